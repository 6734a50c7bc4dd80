/* SPDX-License-Identifier: BSD-3-Clause */
/* The backend "upcie-rs" of xNVMe, over libupcie: what its files share. */
#ifndef UPCIE_RS_H
#define UPCIE_RS_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <libxnvme.h>
#include <xnvme_be.h>
#include <xnvme_dev.h>
#include <xnvme_queue.h>
#include <xnvme_spec.h>

#include <upcie.h>

/*
 * A controller, made by ctrlr_init and shared by all devices (namespaces) of it. The first word says that it is: xNVMe gives
 * a controller that another backend whose name has "upcie" has opened to this one, too.
 */
#define UPCIE_RS_MAGIC UINT64_C(0x73722d6569637075)
struct upcie_rs_ctrlr {
	uint64_t magic;
	upcie_ctrlr *handle;
	uint32_t timeout_ms;
	uint16_t vectors;
};

/* The first word of a device's state is the controller, which xNVMe puts there. */
struct upcie_rs_state {
	struct upcie_rs_ctrlr *ctrlr;
};
XNVME_STATIC_ASSERT(sizeof(struct upcie_rs_state) <= XNVME_BE_STATE_NBYTES, "state");

/* A queue: the bytes that xNVMe leaves to the backend, behind its own. */
struct upcie_rs_queue {
	struct xnvme_queue_base base;
	upcie_queue *handle;
	/* Of a queue that has a completion descriptor: it has an interrupt, and each submission rings. */
	struct upcie_rs_events *events;
};
XNVME_STATIC_ASSERT(sizeof(struct upcie_rs_queue) <= XNVME_BE_QUEUE_STATE_NBYTES, "queue");

static inline struct upcie_rs_ctrlr *upcie_rs_ctrlr_of(const struct xnvme_dev *dev)
{
	return ((const struct upcie_rs_state *)(const void *)dev->be.state)->ctrlr;
}

/* The one heap of the process; NULL before the first controller is open and after the last one is closed. */
upcie_heap *upcie_rs_heap(void);

/* Turns the commands for files into those of the NVM command set: bytes become blocks. */
void upcie_rs_translate(struct xnvme_cmd_ctx *ctx);

/*
 * The bytes of a command's data. xNVMe computes them from the device's geometry, and gives 0 while nobody has asked for that.
 */
size_t upcie_rs_nbytes(const struct xnvme_cmd_ctx *ctx, const void *dbuf, size_t nbytes);

/* The bytes of a command's metadata, likewise. Without them it would have no pointer, and the controller would use address 0. */
size_t upcie_rs_mbytes(const struct xnvme_cmd_ctx *ctx, const void *mbuf, size_t nbytes);

/* Passes the events of a queue's descriptor on to an eventfd, until it is stopped. */
int upcie_rs_events_start(int fd, struct upcie_rs_events **events);
int upcie_rs_events_fd(const struct upcie_rs_events *events);
/* NULL does nothing. */
void upcie_rs_events_stop(struct upcie_rs_events *events);

extern struct xnvme_be_async g_xnvme_be_upcie_rs_async;
extern struct xnvme_be_sync g_xnvme_be_upcie_rs_sync;
extern struct xnvme_be_admin g_xnvme_be_upcie_rs_admin;
extern struct xnvme_be_dev g_xnvme_be_upcie_rs_dev;
extern struct xnvme_be_mem g_xnvme_be_upcie_rs_mem;
extern const struct xnvme_be_config g_xnvme_be_upcie_rs;

#endif
