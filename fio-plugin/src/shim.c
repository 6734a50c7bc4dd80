/*
 * The one file that is compiled against fio's headers: the table of hooks, the table of options, and every access to a
 * field of fio's structures.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "config-host.h"

#include <dlfcn.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "fio.h"
#include "optgroup.h"
/* verify.h needs it, and os.h has it for fio's own code alone. */
#ifndef le32_to_cpu
#define le32_to_cpu(value) le32toh(value)
#endif
#include "verify.h"

#include "shim.h"

/*
 * Data placement, by the version of the hooks in fio's headers: 32 (fio 3.34) has the hook fdp_fetch_ruhs, and a directive in
 * each unit. Since 35 (fio 3.38) the hook is called twice, for the number of handles and then with room for as many; before, it
 * is called once, with room for FETCHED_ONCE.
 */
#define HAS_PLACEMENT (FIO_IOOPS_VERSION >= 32)
#define FETCHES_TWICE (FIO_IOOPS_VERSION >= 35)
#define FETCHED_ONCE 128

/* No option is at offset 0, because fio takes that for no offset. */
struct engine_options {
	void *padding;
	unsigned int nsid;
	unsigned int wait;
	unsigned int hugepage;
	unsigned int queue_depth;
	unsigned int priority;
	unsigned int fua;
	unsigned long long timeout_us;
	unsigned int sgl;
	unsigned int metadata;
	unsigned int action;
	char *checks;
	unsigned int tag;
	unsigned int mask;
	unsigned int write_mode;
	unsigned int verify_mode;
};

#define COMMON .category = FIO_OPT_C_ENGINE, .group = FIO_OPT_G_INVALID

static struct fio_option options[] = {
	{
		.name = "upcie_nsid",
		.lname = "namespace id",
		.type = FIO_OPT_INT,
		.off1 = offsetof(struct engine_options, nsid),
		.help = "Namespace that the job uses",
		.def = "1",
		.minval = 1,
		COMMON,
	},
	{
		.name = "upcie_wait",
		.lname = "how to wait for completions",
		.type = FIO_OPT_STR,
		.off1 = offsetof(struct engine_options, wait),
		.help = "How to wait for completions",
		.def = "poll",
		.posval = {
			{ .ival = "poll", .oval = 0, .help = "Poll all the time: the shortest latency, a whole core" },
			{ .ival = "irq", .oval = 1, .help = "Sleep until the queue's interrupt" },
			{ .ival = "adaptive", .oval = 2, .help = "Poll for 50 us, then sleep until the interrupt" },
		},
		COMMON,
	},
	{
		.name = "upcie_hugepage",
		.lname = "pages of the DMA memory",
		.type = FIO_OPT_STR,
		.off1 = offsetof(struct engine_options, hugepage),
		.help = "Pages of the DMA memory",
		.def = "auto",
		.posval = {
			{ .ival = "auto", .oval = 0, .help = "2 MiB while some are free, small ones otherwise" },
			{ .ival = "no", .oval = 1, .help = "Small pages only: needs an IOMMU" },
			{ .ival = "2m", .oval = 2, .help = "Huge pages of 2 MiB" },
			{ .ival = "1g", .oval = 3, .help = "Huge pages of 1 GiB" },
		},
		COMMON,
	},
	{
		.name = "upcie_queue_depth",
		.lname = "commands in flight per queue pair",
		.type = FIO_OPT_INT,
		.off1 = offsetof(struct engine_options, queue_depth),
		.help = "Largest number of commands in each queue pair; 0: as many as iodepth needs",
		.def = "0",
		COMMON,
	},
	{
		.name = "upcie_priority",
		.lname = "priority of the job's queues",
		.type = FIO_OPT_STR,
		.off1 = offsetof(struct engine_options, priority),
		.help = "Priority of the job's queues (weighted round robin 8:4:1; refused where the controller has none)",
		.def = "none",
		.posval = {
			{ .ival = "none", .oval = 0, .help = "Round robin" },
			{ .ival = "urgent", .oval = 1, .help = "Before all others" },
			{ .ival = "high", .oval = 2, .help = "High weight" },
			{ .ival = "medium", .oval = 3, .help = "Medium weight" },
			{ .ival = "low", .oval = 4, .help = "Low weight" },
		},
		COMMON,
	},
	{
		.name = "upcie_fua",
		.lname = "force unit access",
		.type = FIO_OPT_BOOL,
		.off1 = offsetof(struct engine_options, fua),
		.help = "Writes complete once they are on the media (FUA), as with sync=dsync",
		.def = "0",
		COMMON,
	},
	{
		.name = "upcie_timeout",
		.lname = "time for a command",
		.type = FIO_OPT_STR_VAL_TIME,
		.off1 = offsetof(struct engine_options, timeout_us),
		.help = "The job fails when a command takes longer (30s, 500ms; seconds if there is no unit)",
		.def = "30",
		.is_seconds = 1,
		.is_time = 1,
		COMMON,
	},
	/* From here on, names and values are those of io_uring_cmd and of SPDK's engine. */
	{
		.name = "md_per_io_size",
		.lname = "metadata of an I/O",
		.type = FIO_OPT_INT,
		.off1 = offsetof(struct engine_options, metadata),
		.help = "Bytes of the metadata buffer of each I/O, for namespaces with metadata apart from the data",
		.def = "0",
		COMMON,
	},
	{
		.name = "pi_act",
		.lname = "protection information action",
		.type = FIO_OPT_BOOL,
		.off1 = offsetof(struct engine_options, action),
		.help = "1: the controller makes protection information, and strips it; 0: the engine makes and checks it",
		.def = "1",
		COMMON,
	},
	{
		.name = "pi_chk",
		.lname = "protection information checks",
		.type = FIO_OPT_STR_STORE,
		.off1 = offsetof(struct engine_options, checks),
		.help = "Fields of protection information that are checked: GUARD, REFTAG, APPTAG, separated by commas",
		.def = NULL,
		COMMON,
	},
	{
		.name = "apptag",
		.lname = "application tag",
		.type = FIO_OPT_INT,
		.off1 = offsetof(struct engine_options, tag),
		.help = "Application tag of protection information",
		.def = "0x1234",
		COMMON,
	},
	{
		.name = "apptag_mask",
		.lname = "application tag mask",
		.type = FIO_OPT_INT,
		.off1 = offsetof(struct engine_options, mask),
		.help = "Bits of the application tag that are checked",
		.def = "0xffff",
		COMMON,
	},
	{
		.name = "enable_sgl",
		.lname = "scatter gather lists",
		.type = FIO_OPT_BOOL,
		.off1 = offsetof(struct engine_options, sgl),
		.help = "Describe all data by scatter gather lists instead of PRPs",
		.def = "0",
		COMMON,
	},
	{
		.name = "write_mode",
		.lname = "command of a write",
		.type = FIO_OPT_STR,
		.off1 = offsetof(struct engine_options, write_mode),
		.help = "Command that each write is",
		.def = "write",
		.posval = {
			{ .ival = "write", .oval = 0, .help = "Write" },
			{ .ival = "uncor", .oval = 1, .help = "Write Uncorrectable" },
			{ .ival = "uncorrectable", .oval = 1, .help = "Write Uncorrectable" },
			{ .ival = "zeroes", .oval = 2, .help = "Write Zeroes" },
			{ .ival = "verify", .oval = 3, .help = "Verify" },
		},
		COMMON,
	},
	{
		.name = "verify_mode",
		.lname = "command of a verification",
		.type = FIO_OPT_STR,
		.off1 = offsetof(struct engine_options, verify_mode),
		.help = "Command by which verify= looks at the data",
		.def = "read",
		.posval = {
			{ .ival = "read", .oval = 0, .help = "Read" },
			{ .ival = "compare", .oval = 1, .help = "Compare (verify=pattern alone)" },
		},
		COMMON,
	},
	{ .name = NULL },
};

static struct ioengine_ops engine;

void upcie_shim_print(const char *text, size_t len)
{
	log_err("upcie: %.*s\n", (int) len, text);
}

/* The error of a flush of this thread's job: fio looks at no error of a sync that was queued. */
static __thread int sync_error;

void upcie_shim_fail(void *unit, int error)
{
	struct io_u *io_u = unit;

	if (ddir_sync(io_u->ddir))
		sync_error = error;
	io_u->error = error;
	io_u->resid = io_u->xfer_buflen;
}

int upcie_shim_fill_expected(void *thread, void *unit)
{
	struct io_u *io_u = unit;

	if (!(io_u->flags & IO_U_F_VER_LIST))
		return 0;
	populate_verify_io_u(thread, io_u);
	return 1;
}

uint32_t upcie_shim_directive(const void *unit)
{
#if HAS_PLACEMENT
	const struct io_u *io_u = unit;

	return io_u->dtype << 16 | (io_u->dspec & 0xffff);
#else
	return 0;
#endif
}

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

static __attribute__((cold, noinline)) int fail(struct thread_data *td, int error)
{
	td_verror(td, error, "upcie");
	return error;
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

static int fio_upcie_setup(struct thread_data *td)
{
	struct thread_options *o = &td->o;
	struct fio_file *f;
	unsigned int i;
	int error;

	if (!job_of(td))
		return fail(td, EINVAL);
	for_each_file(td, f, i) {
		error = target_of(td, f);
		/* The start offset includes offset_increment= and percentages. */
		if (!error && !o->read_iolog_file)
			error = upcie_check_start(td->io_ops_data, FILE_ENG_DATA(f), get_start_offset(td, f));
		if (error)
			return fail(td, error);
	}
	/* A split names sizes of its own; fio aligns the sizes in between. */
	for (int d = 0; d < 3; d++) {
		for (unsigned int n = 0; n < o->bssplit_nr[d]; n++) {
			error = upcie_check_block(td->io_ops_data, o->bssplit[d][n].bs);
			if (error)
				return fail(td, error);
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

static int fio_upcie_init(struct thread_data *td)
{
	struct fio_file *f;
	unsigned int i;
	int error;

	if (!job_of(td))
		return fail(td, EINVAL);
	for_each_file(td, f, i) {
		error = target_of(td, f);
		if (error)
			return fail(td, error);
	}
	/* trim_percentage= trims in a job that writes (since fio 3.40; older versions stop at an assertion). */
	error = upcie_start(td->io_ops_data, longest(td), td_trim(td) || td->o.trim_percentage);
	return error ? fail(td, error) : 0;
}

static void fio_upcie_cleanup(struct thread_data *td)
{
	struct fio_file *f;
	unsigned int i;

	for_each_file(td, f, i)
		FILE_SET_ENG_DATA(f, NULL);
	if (td->io_ops_data)
		upcie_job_free(td->io_ops_data);
	td->io_ops_data = NULL;
}

static int fio_upcie_open_file(struct thread_data *td, struct fio_file *f)
{
	int error = target_of(td, f);

	return error ? fail(td, error) : 0;
}

static int fio_upcie_close_file(struct thread_data *td, struct fio_file *f)
{
	return 0;
}

static int fio_upcie_get_file_size(struct thread_data *td, struct fio_file *f)
{
	int error = target_of(td, f);

	return error ? fail(td, error) : 0;
}

static int fio_upcie_get_zoned_model(struct thread_data *td, struct fio_file *f, enum zbd_zoned_model *model)
{
	const int error = target_of(td, f);

	if (error)
		return -error;
	*model = upcie_has_zones(td->io_ops_data, FILE_ENG_DATA(f)) ? ZBD_HOST_MANAGED : ZBD_NONE;
	return 0;
}

static int fio_upcie_report_zones(struct thread_data *td, struct fio_file *f, uint64_t offset, struct zbd_zone *zones,
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

static int fio_upcie_reset_wp(struct thread_data *td, struct fio_file *f, uint64_t offset, uint64_t len)
{
	return -upcie_reset_zones(td->io_ops_data, FILE_ENG_DATA(f), offset, len);
}

static int fio_upcie_get_max_open_zones(struct thread_data *td, struct fio_file *f, unsigned int *most)
{
	*most = upcie_max_open_zones(td->io_ops_data, FILE_ENG_DATA(f));
	return 0;
}

#if HAS_PLACEMENT
static int fio_upcie_fetch_ruhs(struct thread_data *td, struct fio_file *f, struct fio_ruhs_info *info)
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

static int fio_upcie_invalidate(struct thread_data *td, struct fio_file *f)
{
	/* The engine has no cache. */
	return 0;
}

static int fio_upcie_io_u_init(struct thread_data *td, struct io_u *io_u)
{
	upcie_unit(td->io_ops_data, io_u->index, io_u);
	return 0;
}

static int fio_upcie_iomem_alloc(struct thread_data *td, size_t bytes)
{
	td->orig_buffer = upcie_memory_new(td->io_ops_data, bytes);
	if (td->orig_buffer)
		return 0;
	/* fio would continue, and fill buffers that do not exist. */
	fio_mark_td_terminate(td);
	return ENOMEM;
}

static void fio_upcie_iomem_free(struct thread_data *td)
{
	if (td->io_ops_data)
		upcie_memory_free(td->io_ops_data);
	td->orig_buffer = NULL;
}

static enum fio_q_status fio_upcie_queue(struct thread_data *td, struct io_u *io_u)
{
	struct upcie_job *job = td->io_ops_data;
	const uint32_t index = io_u->index;
	struct upcie_slot *slot = &job->slots[index];

	fio_ro_check(td, io_u);
	slot->offset = io_u->offset;
	slot->len = io_u->xfer_buflen;
	slot->buf = io_u->xfer_buf;
	slot->target = FILE_ENG_DATA(io_u->file);
	slot->op = job->op_of[io_u->ddir & 7];
	job->pending[job->queued++] = index;
	return FIO_Q_QUEUED;
}

/* Not inlined, as `reap` is not, so that its caller saves no registers for it on the common path. */
static __attribute__((noinline)) void stamp(struct thread_data *td, struct upcie_job *job, uint32_t queued)
{
	struct timespec now;

	fio_gettime(&now, NULL);
	for (uint32_t i = 0; i < queued; i++) {
		struct io_u *io_u = job->slots[job->pending[i]].unit;

		io_u->issue_time = now;
		io_u_queued(td, io_u);
	}
	if (td->o.read_iolog_file)
		td->last_issue = now;
	if (now.tv_sec != job->second)
		upcie_tick(job, now.tv_sec);
}

static int fio_upcie_commit(struct thread_data *td)
{
	struct upcie_job *job = td->io_ops_data;
	const uint32_t queued = job->queued;

	if (!queued)
		return 0;
	upcie_submit(job);
	job->queued = 0;
	io_u_mark_submit(td, queued);
	if (fio_fill_issue_time(td))
		stamp(td, job, queued);
	return 0;
}

static int give(struct upcie_job *job, uint32_t ready, uint32_t max)
{
	if (ready > max)
		ready = max;
	job->given = job->events + job->next;
	job->next += ready;
	return ready;
}

static __attribute__((noinline)) int reap(struct thread_data *td, unsigned int min, unsigned int max,
					  const struct timespec *t)
{
	struct upcie_job *job = td->io_ops_data;
	const int found = upcie_reap(job, min, t);

	if (sync_error) {
		/* Data that was written may be lost: the job fails, unless the user wants to go on after errors. */
		if (!td->o.continue_on_error) {
			fail(td, sync_error);
			fio_mark_td_terminate(td);
		}
		sync_error = 0;
	}
	if (found >= 0)
		return give(job, found, max);
	/* fio would take the negative result for the error number. */
	fail(td, -found);
	/* While fio waits until nothing is in flight (thinktime=, rate=), it does not check for errors. */
	td->io_u_in_flight = 0;
	fio_mark_td_terminate(td);
	return found;
}

static int fio_upcie_getevents(struct thread_data *td, unsigned int min, unsigned int max, const struct timespec *t)
{
	struct upcie_job *job = td->io_ops_data;
	const uint32_t ready = job->end - job->next;

	/* By default fio requests one event at a time; completed units are reaped in one turn and kept for it. */
	if (ready && ready >= min)
		return give(job, ready, max);
	return reap(td, min, max, t);
}

static struct io_u *fio_upcie_event(struct thread_data *td, int event)
{
	const struct upcie_job *job = td->io_ops_data;

	return job->given[event];
}

static struct ioengine_ops engine = {
	.name = "upcie",
	.version = FIO_IOOPS_VERSION,
	.flags = FIO_RAWIO | FIO_DISKLESSIO | FIO_NOEXTEND | FIO_NODISKUTIL | FIO_MEMALIGN | FIO_NO_OFFLOAD |
		 FIO_ASYNCIO_SETS_ISSUE_TIME,
	.setup = fio_upcie_setup,
	.init = fio_upcie_init,
	.cleanup = fio_upcie_cleanup,
	.open_file = fio_upcie_open_file,
	.close_file = fio_upcie_close_file,
	.get_file_size = fio_upcie_get_file_size,
	.invalidate = fio_upcie_invalidate,
	.get_zoned_model = fio_upcie_get_zoned_model,
	.report_zones = fio_upcie_report_zones,
	.reset_wp = fio_upcie_reset_wp,
	.get_max_open_zones = fio_upcie_get_max_open_zones,
#if HAS_PLACEMENT
	.fdp_fetch_ruhs = fio_upcie_fetch_ruhs,
#endif
	.iomem_alloc = fio_upcie_iomem_alloc,
	.iomem_free = fio_upcie_iomem_free,
	.io_u_init = fio_upcie_io_u_init,
	.queue = fio_upcie_queue,
	.commit = fio_upcie_commit,
	.getevents = fio_upcie_getevents,
	.event = fio_upcie_event,
	.options = options,
	.option_struct_size = sizeof(struct engine_options),
};

void *upcie_shim_engine(void)
{
	const char *running = dlsym(RTLD_DEFAULT, "fio_version_string");

	if (!running || strcmp(running, UPCIE_FIO_VERSION)) {
		log_err("upcie: this engine was built for %s, and this is %s, whose structures may differ: build it again "
			"with `cargo xtask fio` (for another fio than the installed one: --fio-source DIR)\n",
			UPCIE_FIO_VERSION, running ? running : "a fio without a version");
		return NULL;
	}
	return &engine;
}

/* Closes jobs that were set up and never started. */
__attribute__((destructor)) static void leave(void)
{
	upcie_exit();
}

_Static_assert(sizeof(struct upcie_slot) == 64, "a slot is a cache line");
_Static_assert(sizeof(struct upcie_job) == 64, "as in ffi.rs");
_Static_assert(sizeof(struct upcie_options) == 64, "as in ffi.rs");
_Static_assert(sizeof(struct upcie_workload) == 112, "as in ffi.rs");
_Static_assert(sizeof(struct upcie_zone) == 40, "as in ffi.rs");
_Static_assert(ZBD_ZONE_TYPE_SWR == 2 && ZBD_ZONE_COND_EMPTY == 1 && ZBD_ZONE_COND_FULL == 14 &&
	       ZBD_ZONE_COND_OFFLINE == 15, "NVMe's numbers");
#ifdef FIO_DATAPLACEMENT_H
_Static_assert(FIO_DP_NONE == 0 && FIO_DP_FDP == 1 && FIO_DP_STREAMS == 2, "as in workload.rs");
_Static_assert(STREAMS_DIR_DTYPE == 1 && FDP_DIR_DTYPE == 2, "NVMe's numbers");
#endif
