/* SPDX-License-Identifier: BSD-3-Clause */
/* The tables of a backend: functions in their order, and the sizes of the tables. */
#ifndef CONTRACT_XNVME_BE_H
#define CONTRACT_XNVME_BE_H

#include <libxnvme.h>

#define XNVME_BE_STATE_NBYTES       128
#define XNVME_BE_QUEUE_STATE_NBYTES 256

enum { XNVME_BE_CAP_NVME_PCIE = 1 << 5 };

struct xnvme_be_async {
	int (*cmd_io)(struct xnvme_cmd_ctx *, void *, size_t, void *, size_t);
	int (*cmd_iov)(struct xnvme_cmd_ctx *, struct iovec *, size_t, size_t, void *, size_t);
	int (*poke)(struct xnvme_queue *, uint32_t);
	int (*wait)(struct xnvme_queue *);
	int (*init)(struct xnvme_queue *, int);
	int (*term)(struct xnvme_queue *);
	int (*get_completion_fd)(struct xnvme_queue *);
	const char *id;
};
_Static_assert(sizeof(struct xnvme_be_async) == 64, "async");

struct xnvme_be_sync {
	int (*cmd_io)(struct xnvme_cmd_ctx *, void *, size_t, void *, size_t);
	int (*cmd_iov)(struct xnvme_cmd_ctx *, struct iovec *, size_t, size_t, void *, size_t);
	const char *id;
};
_Static_assert(sizeof(struct xnvme_be_sync) == 24, "sync");

struct xnvme_be_admin {
	int (*cmd_admin)(struct xnvme_cmd_ctx *, void *, size_t, void *, size_t);
	int (*cmd_pseudo)(struct xnvme_cmd_ctx *, void *, size_t, void *, size_t);
	const char *id;
};
_Static_assert(sizeof(struct xnvme_be_admin) == 24, "admin");

struct xnvme_be_dev {
	int (*dev_open)(struct xnvme_dev *);
	void (*dev_close)(struct xnvme_dev *);
	const char *id;
	void *(*ctrlr_init)(struct xnvme_dev *);
	int (*ctrlr_term)(void *);
};
_Static_assert(sizeof(struct xnvme_be_dev) == 40, "dev");

struct xnvme_be_mem {
	void *(*buf_alloc)(const struct xnvme_dev *, size_t, uint64_t *);
	int (*buf_vtophys)(const struct xnvme_dev *, void *, uint64_t *);
	void *(*buf_realloc)(const struct xnvme_dev *, void *, size_t, uint64_t *);
	void (*buf_free)(const struct xnvme_dev *, void *);
	int (*mem_map)(const struct xnvme_dev *, void *, size_t, uint64_t *);
	int (*mem_unmap)(const struct xnvme_dev *, void *);
	const char *id;
};
_Static_assert(sizeof(struct xnvme_be_mem) == 56, "mem");

struct xnvme_be_attr {
	const char *name;
	const char *descr;
	uint64_t caps;
};

struct xnvme_be_config {
	const struct xnvme_be_async *async;
	const struct xnvme_be_sync *sync;
	const struct xnvme_be_admin *admin;
	const struct xnvme_be_dev *dev;
	const struct xnvme_be_mem *mem;
	const struct xnvme_be_mem *const *mem_overrides;
	struct xnvme_be_attr attr;
};

/* What a device has of its backend: copies of the tables, and the state. */
struct xnvme_be {
	struct xnvme_be_async async;
	struct xnvme_be_sync sync;
	struct xnvme_be_admin admin;
	struct xnvme_be_dev dev;
	struct xnvme_be_mem mem;
	uint8_t state[XNVME_BE_STATE_NBYTES];
};

#endif
