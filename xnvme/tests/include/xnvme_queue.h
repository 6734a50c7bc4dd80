/* SPDX-License-Identifier: BSD-3-Clause */
/* A queue: 256 bytes, of which the backend has all behind the first 24. */
#ifndef CONTRACT_XNVME_QUEUE_H
#define CONTRACT_XNVME_QUEUE_H

#include <xnvme_be.h>

struct xnvme_queue_base {
	struct xnvme_dev *dev;
	uint32_t capacity;
	uint32_t outstanding;
	void *pool;
};
_Static_assert(sizeof(struct xnvme_queue_base) == 24, "base");

struct xnvme_queue {
	struct xnvme_queue_base base;
	uint8_t be_rsvd[232];
};
_Static_assert(sizeof(struct xnvme_queue) == XNVME_BE_QUEUE_STATE_NBYTES, "queue");

#endif
