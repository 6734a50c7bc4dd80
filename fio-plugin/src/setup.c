/* Jobs, files, zones and memory: the hooks outside of the hot path. */
#include "hooks.h"

/* Returns the directive of the job's writes: 0 none, 1 flexible data placement, 2 streams. */
static uint32_t directive_of(const struct thread_options *o)
{
#ifdef FIO_DATAPLACEMENT_H
	return o->dp_type;
#elif HAS_PLACEMENT
	return o->fdp;
#else
	return 0;
#endif
}

/* Returns the job, made on the first call: fio calls `setup` before `init`, or after it with create_serialize=0. */
static struct upcie_job *job_of(struct thread_data *td)
{
	const struct engine_options *eo = td->eo;
	struct thread_options *o = &td->o;
	const struct upcie_options given = {
		.nsid = eo->nsid,
		.wait = eo->wait,
		.hugepage = eo->hugepage,
		.queue_depth = eo->queue_depth,
		.priority = eo->priority,
		.fua = eo->fua || o->sync_io,
		.timeout_us = eo->timeout_us,
		.sgl = eo->sgl,
		.metadata = eo->metadata,
		.action = eo->action,
		.tag = eo->tag,
		.mask = eo->mask,
		.write_mode = eo->write_mode,
		.verify_mode = eo->verify_mode,
	};
	struct upcie_workload workload = {
		.depth = o->iodepth,
		.max_block = td_max_bs(td),
		.threads = o->use_thread,
		.unaligned = o->bs_unaligned,
		.named = o->filename != NULL || o->read_iolog_file != NULL,
		.memory = fio_option_is_set(o, mem_type),
		.zoned = o->zone_mode == ZONE_MODE_ZBD,
		.uses = { td_read(td) != 0, td_write(td) != 0, td_trim(td) != 0 },
		.verifies = o->verify != VERIFY_NONE,
		/* Without a header, whose time differs. */
		.pattern = o->verify == VERIFY_PATTERN_NO_HDR && o->verify_pattern_bytes,
		.directive = directive_of(o),
	};
	struct upcie_job *job = td->io_ops_data;

	if (job)
		return job;
	for (int i = 0; i < 3; i++) {
		workload.least_block[i] = o->min_bs[i];
		workload.alignment[i] = o->ba[i];
	}
	job = upcie_job_new(&given, eo->checks, &workload, td);
	if (!job)
		return NULL;
	/* Every direction that is not a transfer is a kind of sync. */
	memset(job->op_of, UPCIE_FLUSH, sizeof(job->op_of));
	job->op_of[DDIR_READ] = UPCIE_READ;
	job->op_of[DDIR_WRITE] = given.fua ? UPCIE_WRITE_FUA : UPCIE_WRITE;
	job->op_of[DDIR_TRIM] = UPCIE_TRIM;
	td->io_ops_data = job;
	return job;
}

static int target_of(struct thread_data *td, struct fio_file *f)
{
	struct upcie_job *job = job_of(td);
	uint64_t size;
	void *target;
	int error;

	if (!job)
		return EINVAL;
	if (FILE_ENG_DATA(f))
		return 0;
	error = upcie_open(job, f->file_name, &size, &target);
	if (error)
		return error;
	FILE_SET_ENG_DATA(f, target);
	f->real_file_size = size;
	f->filetype = FIO_TYPE_BLOCK;
	fio_file_set_size_known(f);
	return 0;
}

int fio_upcie_setup(struct thread_data *td)
{
	struct thread_options *o = &td->o;
	struct fio_file *f;
	unsigned int i;
	int error;

	if (!job_of(td))
		return upcie_shim_fail_job(td, EINVAL);
	for_each_file(td, f, i) {
		error = target_of(td, f);
		/* The start offset includes offset_increment= and percentages. */
		if (!error && !o->read_iolog_file)
			error = upcie_check_start(td->io_ops_data, FILE_ENG_DATA(f), get_start_offset(td, f));
		if (error)
			return upcie_shim_fail_job(td, error);
	}
	/* A split names sizes of its own; fio aligns the sizes in between. */
	for (int d = 0; d < 3; d++) {
		for (unsigned int n = 0; n < o->bssplit_nr[d]; n++) {
			error = upcie_check_block(td->io_ops_data, o->bssplit[d][n].bs);
			if (error)
				return upcie_shim_fail_job(td, error);
		}
	}
	return 0;
}

/*
 * Returns the bytes of the longest read or write: an iolog, which is read after `setup`, may have longer ones, and
 * trimwrite= writes the trimmed ranges.
 */
static uint64_t longest(struct thread_data *td)
{
	return td_read(td) || td_write(td) || td->o.read_iolog_file ? td_max_bs(td) : 0;
}

int fio_upcie_init(struct thread_data *td)
{
	struct fio_file *f;
	unsigned int i;
	int error;

	if (!job_of(td))
		return upcie_shim_fail_job(td, EINVAL);
	for_each_file(td, f, i) {
		error = target_of(td, f);
		if (error)
			return upcie_shim_fail_job(td, error);
	}
	/* trim_percentage= trims in a job that writes (since fio 3.40; older versions stop at an assertion). */
	error = upcie_start(td->io_ops_data, longest(td), td_trim(td) || td->o.trim_percentage);
	return error ? upcie_shim_fail_job(td, error) : 0;
}

void fio_upcie_cleanup(struct thread_data *td)
{
	struct fio_file *f;
	unsigned int i;

	for_each_file(td, f, i)
		FILE_SET_ENG_DATA(f, NULL);
	if (td->io_ops_data)
		upcie_job_free(td->io_ops_data);
	td->io_ops_data = NULL;
}

int fio_upcie_open_file(struct thread_data *td, struct fio_file *f)
{
	int error = target_of(td, f);

	return error ? upcie_shim_fail_job(td, error) : 0;
}

int fio_upcie_close_file(struct thread_data *td, struct fio_file *f)
{
	return 0;
}

int fio_upcie_get_file_size(struct thread_data *td, struct fio_file *f)
{
	int error = target_of(td, f);

	return error ? upcie_shim_fail_job(td, error) : 0;
}

int fio_upcie_get_zoned_model(struct thread_data *td, struct fio_file *f, enum zbd_zoned_model *model)
{
	const int error = target_of(td, f);

	if (error)
		return -error;
	*model = upcie_has_zones(td->io_ops_data, FILE_ENG_DATA(f)) ? ZBD_HOST_MANAGED : ZBD_NONE;
	return 0;
}

int fio_upcie_report_zones(struct thread_data *td, struct fio_file *f, uint64_t offset, struct zbd_zone *zones,
			   unsigned int count)
{
	struct upcie_zone found[64];
	const unsigned int most = sizeof(found) / sizeof(found[0]);
	int reported;

	/* Fewer than fio has room for are enough: it asks again from the last one on. */
	reported = upcie_report_zones(td->io_ops_data, FILE_ENG_DATA(f), offset, found, count < most ? count : most);
	for (int i = 0; i < reported; i++) {
		zones[i] = (struct zbd_zone) {
			.start = found[i].start,
			.wp = found[i].write_pointer,
			.len = found[i].len,
			.capacity = found[i].capacity,
			.type = found[i].kind,
			.cond = found[i].state,
		};
	}
	return reported;
}

int fio_upcie_reset_wp(struct thread_data *td, struct fio_file *f, uint64_t offset, uint64_t len)
{
	return -upcie_reset_zones(td->io_ops_data, FILE_ENG_DATA(f), offset, len);
}

int fio_upcie_get_max_open_zones(struct thread_data *td, struct fio_file *f, unsigned int *most)
{
	*most = upcie_max_open_zones(td->io_ops_data, FILE_ENG_DATA(f));
	return 0;
}

#if HAS_PLACEMENT
int fio_upcie_fetch_ruhs(struct thread_data *td, struct fio_file *f, struct fio_ruhs_info *info)
{
	const uint32_t room = FETCHES_TWICE ? info->nr_ruhs : FETCHED_ONCE;
	int found = -target_of(td, f);

	if (!found)
		found = upcie_fetch_handles(td->io_ops_data, FILE_ENG_DATA(f), info->plis, room);
	if (found < 0) {
		/* fio shows it. */
		errno = -found;
		return found;
	}
	/* Never more than there is room for, except by the call that asks for the number alone. */
	info->nr_ruhs = room && found > (int) room ? room : (uint32_t) found;
	return 0;
}
#endif

int fio_upcie_invalidate(struct thread_data *td, struct fio_file *f)
{
	/* The engine has no cache. */
	return 0;
}

int fio_upcie_io_u_init(struct thread_data *td, struct io_u *io_u)
{
	upcie_unit(td->io_ops_data, io_u->index, io_u);
	return 0;
}

int fio_upcie_iomem_alloc(struct thread_data *td, size_t bytes)
{
	td->orig_buffer = upcie_memory_new(td->io_ops_data, bytes);
	if (td->orig_buffer)
		return 0;
	/* fio would continue, and fill buffers that do not exist. */
	fio_mark_td_terminate(td);
	return ENOMEM;
}

void fio_upcie_iomem_free(struct thread_data *td)
{
	if (td->io_ops_data)
		upcie_memory_free(td->io_ops_data);
	td->orig_buffer = NULL;
}

_Static_assert(sizeof(struct upcie_options) == 64, "as in ffi.rs");
_Static_assert(sizeof(struct upcie_workload) == 112, "as in ffi.rs");
_Static_assert(sizeof(struct upcie_zone) == 40, "as in ffi.rs");
_Static_assert(ZBD_ZONE_TYPE_SWR == 2 && ZBD_ZONE_COND_EMPTY == 1 && ZBD_ZONE_COND_FULL == 14 &&
	       ZBD_ZONE_COND_OFFLINE == 15, "NVMe's numbers");
#ifdef FIO_DATAPLACEMENT_H
_Static_assert(FIO_DP_NONE == 0 && FIO_DP_FDP == 1 && FIO_DP_STREAMS == 2, "as in workload.rs");
_Static_assert(STREAMS_DIR_DTYPE == 1 && FDP_DIR_DTYPE == 2, "NVMe's numbers");
#endif
