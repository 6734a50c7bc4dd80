/*
 * The table of hooks, and the hooks of the hot path. This file, setup.c and options.c are compiled against fio's
 * headers, and have every access to a field of fio's structures.
 */
#include "hooks.h"

#include <dlfcn.h>

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

__attribute__((cold, noinline)) int upcie_shim_fail_job(struct thread_data *td, int error)
{
	td_verror(td, error, "upcie");
	return error;
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
			upcie_shim_fail_job(td, sync_error);
			fio_mark_td_terminate(td);
		}
		sync_error = 0;
	}
	if (found >= 0)
		return give(job, found, max);
	/* fio would take the negative result for the error number. */
	upcie_shim_fail_job(td, -found);
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
	.options = upcie_shim_options,
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
