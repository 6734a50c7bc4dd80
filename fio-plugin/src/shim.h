/*
 * What the shim and the Rust side share. src/ffi.rs has the same, and both sides assert the sizes.
 *
 * The shim knows fio's structures and nothing of NVMe; Rust knows NVMe, and of fio only the numbers and opaque
 * pointers below.
 */
#ifndef UPCIE_FIO_SHIM_H
#define UPCIE_FIO_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* What is to be done with an I/O unit. */
enum upcie_op {
	UPCIE_READ = 0,
	UPCIE_WRITE = 1,
	UPCIE_WRITE_FUA = 2,
	UPCIE_FLUSH = 3,
	UPCIE_TRIM = 4,
};

/* One I/O unit, by its index: the shim fills in the first part when it is queued. One cache line. */
struct upcie_slot {
	uint64_t offset; /* bytes */
	uint64_t len; /* bytes */
	void *buf;
	void *target; /* from upcie_open */
	uint32_t op;
	uint32_t padding;
	void *unit; /* fio's, set once by upcie_unit */
	uint64_t private_words[2];
};

/* The part of a job that the hot path shares; the rest behind it is Rust's. */
struct upcie_job {
	struct upcie_slot *slots; /* `depth` of them */
	uint32_t *pending; /* indexes of slots that were queued and not committed, in order */
	void **events; /* units that are done: those from `next` to `end` are still to be given to fio */
	uint32_t queued; /* how many are pending */
	uint32_t depth;
	uint8_t op_of[8]; /* enum upcie_op by fio's data direction */
	int64_t second; /* of the last tick */
	uint32_t next;
	uint32_t end;
	void **given; /* what fio was given last */
};

/* The engine's options as they were given. Enumerations are in the order of the table in shim.c. */
struct upcie_options {
	uint32_t nsid;
	uint32_t wait; /* 0 poll, 1 irq, 2 adaptive */
	uint32_t hugepage; /* 0 auto, 1 none, 2 2 MiB, 3 1 GiB */
	uint32_t queue_depth; /* 0: as needed */
	uint32_t priority; /* 0 none, 1 urgent, 2 high, 3 medium, 4 low */
	uint32_t fua;
	uint64_t timeout_us;
};

/* What fio's own options say that matters here, by data direction: read, write, trim. */
struct upcie_workload {
	uint64_t depth;
	uint64_t max_block; /* bytes, of trims too: the stride of the units' buffers */
	uint32_t threads; /* thread=1 */
	uint32_t unaligned; /* bs_unaligned=1 */
	uint32_t named; /* filename= is given */
	uint32_t memory; /* mem= is given */
	uint32_t uses[3]; /* whether the job does this at all */
	uint32_t zoned; /* zonemode=zbd */
	uint64_t least_block[3];
	uint64_t alignment[3]; /* blockalign */
};

/* Rust's. Where an int comes back, it is 0 or an errno, and what was wrong has been printed. */
struct upcie_job *upcie_job_new(const struct upcie_options *options, const struct upcie_workload *workload);
int upcie_check_block(struct upcie_job *job, uint64_t bytes);
int upcie_check_start(struct upcie_job *job, void *target, uint64_t offset);
int upcie_open(struct upcie_job *job, const char *name, uint64_t *size, void **target);
/* Bytes of the longest read or write, and whether there are trims: as fio knows it by then. */
int upcie_start(struct upcie_job *job, uint64_t longest, uint32_t trims);
void upcie_unit(struct upcie_job *job, uint32_t index, void *unit);
void *upcie_memory_new(struct upcie_job *job, size_t bytes);
void upcie_memory_free(struct upcie_job *job);
void upcie_job_free(struct upcie_job *job);
void upcie_exit(void);
/* Sends what is pending, with one doorbell for each queue. What could not be sent is reaped with its error. */
void upcie_submit(struct upcie_job *job);
/*
 * Reaps all that is done. Gives how many of `events` are filled in, from the first on, or a negative errno once nothing
 * works any more. `timeout` may be NULL.
 */
int upcie_reap(struct upcie_job *job, uint32_t least, const struct timespec *timeout);
/* `second` is not that of the last tick: looks for commands that are out of time. */
void upcie_tick(struct upcie_job *job, int64_t second);

/* The shim's, for Rust's cold paths. */
void upcie_shim_print(const char *text, size_t len);
void upcie_shim_fail(void *unit, int error);

/* fio's structure of the engine, or NULL with a message when this fio is not the one it was built for. */
void *upcie_shim_engine(void);

#endif
