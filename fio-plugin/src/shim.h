/*
 * The interface between the shim and the Rust side. src/ffi.rs repeats it, and both sides assert the sizes.
 *
 * The shim knows fio's structures and nothing about NVMe; Rust knows NVMe, and only the numbers and opaque pointers
 * below of fio.
 */
#ifndef UPCIE_FIO_SHIM_H
#define UPCIE_FIO_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* The operation of an I/O unit. */
enum upcie_op {
	UPCIE_READ = 0,
	UPCIE_WRITE = 1,
	UPCIE_WRITE_FUA = 2,
	UPCIE_FLUSH = 3,
	UPCIE_TRIM = 4,
};

/* One I/O unit, in one cache line. The shim fills in the first part when the unit is queued. */
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

/* The part of a job that both sides use on the hot path; Rust's own part follows it. */
struct upcie_job {
	struct upcie_slot *slots; /* an array of `depth` slots */
	uint32_t *pending; /* indexes of queued slots that were not committed yet, in order */
	void **events; /* completed units; fio has not received those from `next` to `end` yet */
	uint32_t queued; /* number of pending slots */
	uint32_t depth;
	uint8_t op_of[8]; /* enum upcie_op by fio's data direction */
	int64_t second; /* the second of the last tick */
	uint32_t next;
	uint32_t end;
	void **given; /* the events that fio received last */
};

/* The engine's options. Enumerations are in the order of the table in options.c. */
struct upcie_options {
	uint32_t nsid;
	uint32_t wait; /* 0 poll, 1 irq, 2 adaptive */
	uint32_t hugepage; /* 0 auto, 1 none, 2 2 MiB, 3 1 GiB */
	uint32_t queue_depth; /* 0: as needed */
	uint32_t priority; /* 0 none, 1 urgent, 2 high, 3 medium, 4 low */
	uint32_t fua;
	uint64_t timeout_us;
	uint32_t sgl;
	uint32_t metadata; /* bytes of a unit */
	uint32_t action; /* PRACT */
	uint32_t tag;
	uint32_t mask;
	uint32_t write_mode; /* 0 write, 1 uncorrectable, 2 zeroes, 3 verify */
	uint32_t verify_mode; /* 0 read, 1 compare */
	uint32_t padding;
};

/* A zone of a zoned namespace, in bytes; kinds and states have NVMe's numbers, which are fio's. */
struct upcie_zone {
	uint64_t start;
	uint64_t write_pointer;
	uint64_t len;
	uint64_t capacity;
	uint32_t kind;
	uint32_t state;
};

/* fio's own options, as far as the engine uses them; arrays are by data direction: read, write, trim. */
struct upcie_workload {
	uint64_t depth;
	uint64_t max_block; /* bytes, including trims: the stride of the units' buffers */
	uint32_t threads; /* thread=1 */
	uint32_t unaligned; /* bs_unaligned=1 */
	uint32_t named; /* filename= is given */
	uint32_t memory; /* mem= is given */
	uint32_t uses[3]; /* whether the job uses this direction */
	uint32_t zoned; /* zonemode=zbd */
	uint64_t least_block[3];
	uint64_t alignment[3]; /* blockalign */
	uint32_t verifies; /* verify= is given */
	uint32_t pattern; /* verify=pattern with verify_pattern= */
	uint32_t directive; /* of writes: 0 none, 1 flexible data placement, 2 streams */
	uint32_t padding;
};

/* Functions of the Rust side. An int result is 0 or an errno, and the error has been printed. */
/* `checks` is the text of pi_chk=, or NULL; `thread` is fio's structure of the job's thread. */
struct upcie_job *upcie_job_new(const struct upcie_options *options, const char *checks,
				const struct upcie_workload *workload, void *thread);
int upcie_check_block(struct upcie_job *job, uint64_t bytes);
int upcie_check_start(struct upcie_job *job, void *target, uint64_t offset);
int upcie_open(struct upcie_job *job, const char *name, uint64_t *size, void **target);
/* Return 1 if the namespace has zones, otherwise 0; and the most zones that can be open, 0 for no limit. */
uint32_t upcie_has_zones(struct upcie_job *job, void *target);
uint32_t upcie_max_open_zones(struct upcie_job *job, void *target);
/* Reports at most `count` zones from the one of byte `offset` on. Returns their number, or a negative errno. */
int upcie_report_zones(struct upcie_job *job, void *target, uint64_t offset, struct upcie_zone *zones, uint32_t count);
/* Resets the zones of the bytes from `offset` on, and loses their data. */
int upcie_reset_zones(struct upcie_job *job, void *target, uint64_t offset, uint64_t len);
/*
 * Fetches the placement identifiers of a file's namespace, the first `room` of them into `identifiers`. Returns the number of all,
 * or a negative errno.
 */
int upcie_fetch_handles(struct upcie_job *job, void *target, uint16_t *identifiers, uint32_t room);
/* Starts a job. `longest` is the size of the longest read or write in bytes, as fio knows it at the start. */
int upcie_start(struct upcie_job *job, uint64_t longest, uint32_t trims);
void upcie_unit(struct upcie_job *job, uint32_t index, void *unit);
void *upcie_memory_new(struct upcie_job *job, size_t bytes);
void upcie_memory_free(struct upcie_job *job);
void upcie_job_free(struct upcie_job *job);
void upcie_exit(void);
/* Submits all pending units, with one doorbell for each queue. Units that can't be submitted are reaped with an error. */
void upcie_submit(struct upcie_job *job);
/*
 * Reaps all completed units. Returns how many of `events` are filled in, from the first on, or a negative errno once the
 * job is broken. `timeout` may be NULL.
 */
int upcie_reap(struct upcie_job *job, uint32_t least, const struct timespec *timeout);
/* Reports a second that differs from the last tick's, and checks for commands that have timed out. */
void upcie_tick(struct upcie_job *job, int64_t second);

/* Functions of the shim, for Rust's cold paths. */
void upcie_shim_print(const char *text, size_t len);
void upcie_shim_fail(void *unit, int error);
/* Fills the buffer of a unit with what fio expects, and returns 1, if the unit is a read of fio's verification. */
int upcie_shim_fill_expected(void *thread, void *unit);
/* Returns the directive that fio has chosen for a unit: the type (DTYPE) in the upper half, DSPEC in the lower; 0 for none. */
uint32_t upcie_shim_directive(const void *unit);

/* Returns fio's structure of the engine, or NULL with a message when this is not the fio that it was built for. */
void *upcie_shim_engine(void);

#endif
