/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * libupcie: a user-space NVMe driver with one heap of memory for any number of controllers.
 *
 * Results
 *   Functions that return int return 0 (or a count, where they say so), or a negative errno value. Functions that
 *   return a pointer return NULL and set errno. The text of the calling thread's last error: upcie_last_error().
 *
 * Handles
 *   A handle is a tagged number and not an address. NULL, a closed handle, a handle of another kind and any other
 *   value are -EBADF.
 *
 * Threads
 *   A heap and a controller may be used by several threads at the same time. A queue may be used by one thread at a
 *   time, and may move between threads that synchronise by themselves. A library built with debug assertions notices
 *   two threads in calls on one queue, and returns -EPERM to the second one. A handle that is being closed must not
 *   be in use by another thread.
 *
 * Forks
 *   All handles belong to the process that made them: in a forked child every one is -EBADF, and nothing there
 *   touches a device. Memory of a heap is shared with the child, which must leave it alone.
 *
 * Memory
 *   Data of a command is memory of the heap that its controller was opened with: from upcie_alloc(), or mapped by
 *   upcie_map() or upcie_import_fd(). All else is -EFAULT. Until a command has completed its memory belongs to the
 *   controller: upcie_free(), upcie_realloc() and upcie_unmap() return -EBUSY for it.
 *
 * Without an IOMMU
 *   (uio:, sysfs:, noiommu:) memory is huge pages that outlive the process, since a device does not stop when its
 *   process is killed. Such a controller is opened before memory is allocated and before others; -ENOTSUP otherwise,
 *   and for a second one by another way. After the last one is closed, the same holds for the next one.
 */
#ifndef UPCIE_H
#define UPCIE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this interface; upcie_abi() returns that of the library. Libraries of one number are compatible. */
#define UPCIE_ABI 0

typedef struct upcie_heap upcie_heap;
typedef struct upcie_ctrlr upcie_ctrlr;
typedef struct upcie_queue upcie_queue;

/*
 * Structures of options begin with their size, which the caller sets to sizeof. All zeros after it are the defaults.
 * Reserved fields, and bytes beyond the library's own structure, must be zero.
 */

struct upcie_heap_opts {
	uint32_t size;      /* sizeof(struct upcie_heap_opts) */
	uint32_t reserved;  /* 0 */
	uint64_t bytes;     /* added with the first controller; default 0: memory is added when it is needed */
	uint64_t page_size; /* 4096, 2 MiB or 1 GiB; default 0: 2 MiB where they are free and not refused */
};

struct upcie_opts {
	uint32_t size;       /* sizeof(struct upcie_opts) */
	uint32_t timeout_ms; /* limit of an admin or synchronous call, 1 s more for each MiB of data; default 30,000 */
	uint16_t queues;     /* I/O queue pairs to ask for; default 64 */
	uint16_t reserved[3];
};

struct upcie_queue_opts {
	uint32_t size;         /* sizeof(struct upcie_queue_opts) */
	uint32_t depth;        /* entries: one more than commands in flight; default 128, at most upcie_info.max_depth */
	uint32_t flags;        /* UPCIE_QUEUE_… */
	uint16_t vector;       /* with UPCIE_QUEUE_INTERRUPT: below upcie_info.vectors */
	uint16_t reserved0;
	uint32_t max_transfer; /* bytes of the longest command; default: upcie_info.max_transfer, 2 MiB at most. Each
	                          entry takes 8 bytes of memory for each page of it. */
	uint32_t reserved[2];
};

/* The queue has an interrupt: upcie_fd() and upcie_arm() work, and upcie_wait() sleeps. */
#define UPCIE_QUEUE_INTERRUPT 1u

/* A controller. Structures that the library fills begin with their size, too: it fills no more than that. */
struct upcie_info {
	uint32_t size;         /* sizeof(struct upcie_info) */
	uint32_t timeout_ms;   /* as opened */
	uint32_t max_transfer; /* bytes of one command */
	uint32_t max_depth;    /* entries of a queue: MQES + 1 */
	uint32_t page_size;    /* memory page of the controller (CC.MPS), in bytes */
	uint32_t version;      /* register VS */
	uint16_t queues;       /* I/O queue pairs granted */
	uint16_t vectors;      /* interrupt vectors; 0 if the transport has none */
	uint32_t reserved;
	char address[128];     /* cut off if longer */
	char model[41];
	char serial[21];
	char firmware[9];
	char padding[5];
};

/* An NVMe function of this machine. */
struct upcie_func {
	uint32_t size; /* sizeof(struct upcie_func), of the library */
	uint16_t vendor;
	uint16_t device;
	char address[32]; /* for upcie_open() */
	char driver[32];  /* the driver that it is bound to, or an empty string */
};

/* A command, its data in one piece, and the program's pointer, for upcie_submit_many(). */
struct upcie_request {
	void *data;
	size_t data_size;
	void *user;
	uint32_t cmd[16];
};

/* A finished command, from upcie_reap(). */
struct upcie_completion {
	void *user;
	uint32_t cqe[4];
};

uint32_t upcie_abi(void);

/* The text of the last error in this thread, "" if there was none. Valid until the thread's next call that fails. */
const char *upcie_last_error(void);

/* Calls fn for each NVMe function, until it returns other than 0, which upcie_scan() then returns. */
int upcie_scan(int (*fn)(const struct upcie_func *func, void *arg), void *arg);

/* ---- memory ---- */

int upcie_heap_create(const struct upcie_heap_opts *opts, upcie_heap **heap);

/* Frees all memory of the heap. -EBUSY while a controller of it is open. */
int upcie_heap_destroy(upcie_heap *heap);

/* Zeroed memory, aligned to its size rounded up to a power of two, between 4096 and 2 MiB. */
void *upcie_alloc(upcie_heap *heap, size_t size);

/* Keeps the bytes. NULL is allocated; on failure the old memory stays. */
void *upcie_realloc(upcie_heap *heap, void *ptr, size_t size);

/* NULL does nothing. -EINVAL: not the start of an allocation, or freed before. -EBUSY: a command in flight uses it. */
int upcie_free(upcie_heap *heap, void *ptr);

/*
 * Lets all controllers of the heap use memory of the program's: whole pages, either of a memory file (memfd or
 * hugetlbfs), mapped as shared, whose descriptor is open during the call, or anonymous, private and of small pages. A
 * file is sealed against shrinking. Anonymous memory is replaced by a memory file with the same bytes until
 * upcie_unmap(): meanwhile forked children share it. No thread may write to it during both calls. A controller without
 * an IOMMU takes files of huge pages alone. -ENOTSUP for other memory, -EEXIST for memory that the heap has.
 */
int upcie_map(upcie_heap *heap, void *addr, size_t size);

/* Ends upcie_map() or upcie_import_fd() of memory that begins at addr. */
int upcie_unmap(upcie_heap *heap, void *addr);

/*
 * Maps a memory file, of which the caller keeps the descriptor, for this process and for all controllers of the
 * heap.
 */
int upcie_import_fd(upcie_heap *heap, int fd, void **addr, size_t *size);

/*
 * The device address of memory for a controller. -EFAULT if not all of it is the heap's; -ERANGE if it is not
 * contiguous.
 */
int upcie_iova(upcie_ctrlr *ctrlr, const void *addr, size_t size, uint64_t *iova);

/* ---- controllers ---- */

/*
 * Opens a controller: "0000:01:00.0", "vfio-user:/path", "emu", "emu:size=1G", ... It shares the address space of
 * another controller of the heap where the transport can; otherwise the heap's memory is mapped for it, too. opts may
 * be NULL.
 */
int upcie_open(upcie_heap *heap, const char *address, const struct upcie_opts *opts, upcie_ctrlr **ctrlr);

/* Shuts the controller down. -EBUSY while it has queues. */
int upcie_close(upcie_ctrlr *ctrlr);

int upcie_info(upcie_ctrlr *ctrlr, struct upcie_info *info);

/* Reads registers: offset and size in bytes, multiples of 4. */
int upcie_regs(upcie_ctrlr *ctrlr, void *dst, size_t offset, size_t size);

#define UPCIE_RESET_CONTROLLER 0
#define UPCIE_RESET_SUBSYSTEM  1
#define UPCIE_RESET_FUNCTION   2

/*
 * Resets the controller, its NVM subsystem or its PCI function, and brings it up again. Its queues take no command until
 * upcie_recover(): -ECONNRESET.
 */
int upcie_reset(upcie_ctrlr *ctrlr, int kind);

/* Stores up to max ids of active namespaces, and their number; ids may be NULL. Asks the controller each time. */
int upcie_rescan(upcie_ctrlr *ctrlr, uint32_t *ids, size_t max, size_t *count);

/*
 * Runs an admin command of 64 bytes. The data is copied, so that a late answer does no harm. Stores the controller's
 * completion entry of 16 bytes, if cqe is not NULL. -EIO: the controller completed it with an error status, which is in
 * cqe.
 * -EPERM: a command that is the driver's own (queues, events, doorbells, host memory, controller data queues).
 */
int upcie_admin(upcie_ctrlr *ctrlr, const void *cmd, void *data, size_t data_size, void *meta, size_t meta_size,
		void *cqe);

/* Runs an I/O command on a queue of the library's own, and waits for it. Several threads take turns. */
int upcie_io(upcie_ctrlr *ctrlr, const void *cmd, void *data, size_t data_size, void *meta, size_t meta_size,
	     void *cqe);
int upcie_iov(upcie_ctrlr *ctrlr, const void *cmd, const struct iovec *iov, size_t iov_count, void *meta,
	      size_t meta_size, void *cqe);

/* ---- queues ---- */

/* opts may be NULL. */
int upcie_queue_create(upcie_ctrlr *ctrlr, const struct upcie_queue_opts *opts, upcie_queue **queue);

/*
 * Deletes the queue. Commands in flight end without a callback. -EBUSY inside a callback of the queue. -ETIMEDOUT: the
 * controller did not confirm it; the handle is closed, and the memory of commands in flight stays in use until
 * upcie_close().
 */
int upcie_queue_delete(upcie_queue *queue);

/*
 * Puts a command of 64 bytes into the ring, and rings no doorbell. The library sets the command's id, its data
 * pointer (PRP) and its metadata pointer; all else is sent as it is, whatever the opcode. data_size and meta_size are
 * bytes, for every command set; the lengths in the command (blocks, dwords, bytes of a value) are the program's, and no
 * more than these. user comes back with the completion. -EBUSY: the queue is full. -EINVAL: the data can't be named by
 * PRPs. -EMSGSIZE: more than the queue's max_transfer. -ECONNRESET: the controller was reset, see upcie_recover().
 */
int upcie_submit(upcie_queue *queue, const void *cmd, void *data, size_t data_size, void *meta, size_t meta_size,
		 void *user);

/* The same for data in several pieces; adjacent ones are joined. Pieces that PRPs can't join are -EINVAL. */
int upcie_submitv(upcie_queue *queue, const void *cmd, const struct iovec *iov, size_t iov_count, void *meta,
		  size_t meta_size, void *user);

/*
 * Submits commands like upcie_submit(), in order and with less work for each, and returns their number: fewer than
 * count if the queue is full, or the next one can't be submitted. If that is the first one, returns its error.
 */
int upcie_submit_many(upcie_queue *queue, const struct upcie_request *requests, size_t count);

/* Writes the doorbells: the controller begins with all commands that were submitted. */
int upcie_ring(upcie_queue *queue);

/* cqe: the completion entry, 16 bytes; valid during the call. */
typedef void (*upcie_done)(void *user, const void *cqe, void *arg);

/*
 * Calls fn for up to max completed commands (0: as many as the controller has now), and returns their number. Rings no
 * doorbell, but for one of 1,024 calls in a row that find nothing. Inside fn the command's slot is free: fn may
 * submit and ring. -ECONNRESET: the controller was reset, see upcie_recover(). Other errors close the queue: delete
 * it.
 */
int upcie_poll(upcie_queue *queue, uint32_t max, upcie_done fn, void *arg);

/*
 * Stores up to max completed commands, and returns their number: upcie_poll() without a callback, and with less
 * work.
 */
int upcie_reap(upcie_queue *queue, struct upcie_completion *completions, size_t max);

/* The number of commands in flight, also of those that were not rung. */
int upcie_in_flight(upcie_queue *queue);

/* Rings, and waits until a completion can be polled. 1: there is one; 0: none came within timeout_ms. */
int upcie_wait(upcie_queue *queue, uint32_t timeout_ms);

/*
 * A descriptor that becomes readable with each interrupt (edge triggered), for poll(2) or an event loop; it stays the
 * queue's. Before the first wait and after each event call upcie_arm(), then upcie_poll().
 */
int upcie_fd(upcie_queue *queue);

/* Rings, forgets past interrupts, and asks for the next one. */
int upcie_arm(upcie_queue *queue);

/*
 * Brings a queue back after a reset of its controller. Calls fn for each command that was in flight, with its own
 * entry if it had completed, and otherwise with the status "command aborted by host" (status code type 3h, status
 * code 71h).
 */
int upcie_recover(upcie_queue *queue, upcie_done fn, void *arg);

#ifdef __cplusplus
}
#endif

#endif /* UPCIE_H */
