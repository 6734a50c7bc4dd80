/* SPDX-License-Identifier: BSD-3-Clause */
/* Checks and helpers of the contract's test. */
#ifndef CONTRACT_H
#define CONTRACT_H

#include <stdio.h>
#include <stdlib.h>

#include "../upcie_rs.h"

#define EXPECT(call, value)                                                                                   \
	do {                                                                                                  \
		long long got_ = (long long)(call), want_ = (long long)(value);                               \
		if (got_ != want_) {                                                                          \
			fprintf(stderr, "%s:%d: %s is %lld, not %lld (last error: %s)\n", __FILE__, __LINE__, \
				#call, got_, want_, upcie_last_error());                                      \
			exit(1);                                                                              \
		}                                                                                             \
	} while (0)
#define TRUE(condition) EXPECT(!(condition), 0)

/* The bytes of the first device's blocks, without metadata. */
extern uint32_t block_size;

/* Opens a device as xNVMe does: tables copied, the controller in the first word of the state, then dev_open. */
static inline void dev_init(struct xnvme_dev *dev, const char *uri, uint32_t nsid, void *ctrlr)
{
	const struct xnvme_be_config *config = &g_xnvme_be_upcie_rs;

	memset(dev, 0, sizeof(*dev));
	dev->be.async = *config->async;
	dev->be.sync = *config->sync;
	dev->be.admin = *config->admin;
	dev->be.dev = *config->dev;
	dev->be.mem = *config->mem;
	dev->opts.nsid = nsid;
	dev->opts.host_heap_size = 8 << 20;
	snprintf(dev->ident.uri, sizeof(dev->ident.uri), "%s", uri);
	for (dev->geo.ssw = 0; 1u << dev->geo.ssw < block_size; dev->geo.ssw++)
		;
	if (!ctrlr)
		ctrlr = dev->be.dev.ctrlr_init(dev);
	if (!ctrlr) {
		fprintf(stderr, "%s: %s\n", uri, upcie_last_error());
		exit(1);
	}
	memcpy(dev->be.state, &ctrlr, sizeof(ctrlr));
	EXPECT(dev->be.dev.dev_open(dev), 0);
	EXPECT(dev->ident.nsid, nsid);
	EXPECT(dev->ident.dtype, nsid ? XNVME_DEV_TYPE_NVME_NAMESPACE : XNVME_DEV_TYPE_NVME_CONTROLLER);
}

static inline void queue_init(struct xnvme_queue *queue, struct xnvme_dev *dev, uint32_t capacity)
{
	memset(queue, 0, sizeof(*queue));
	queue->base.dev = dev;
	queue->base.capacity = capacity;
	EXPECT(dev->be.async.init(queue, 0), 0);
}

static inline struct xnvme_cmd_ctx context(struct xnvme_dev *dev, uint8_t opcode, uint64_t block, size_t bytes)
{
	struct xnvme_cmd_ctx ctx = {.dev = dev};

	ctx.cmd.common.opcode = opcode;
	ctx.cmd.common.nsid = dev->opts.nsid;
	ctx.cmd.nvm.slba = block;
	ctx.cmd.nvm.nlb = bytes ? (uint32_t)(bytes / block_size) - 1 : 0;
	return ctx;
}

static inline void fill(void *buf, size_t size, unsigned seed)
{
	for (size_t i = 0; i < size; i++)
		((uint8_t *)buf)[i] = (uint8_t)(seed + i * 11 + i / 512);
}

static inline int holds(const void *buf, size_t size, unsigned seed)
{
	for (size_t i = 0; i < size; i++)
		if (((const uint8_t *)buf)[i] != (uint8_t)(seed + i * 11 + i / 512))
			return 0;
	return 1;
}

static inline void set(struct xnvme_cmd_ctx *ctx, struct xnvme_queue *queue, xnvme_queue_cb cb, void *arg)
{
	ctx->async.queue = queue;
	ctx->async.cb = cb;
	ctx->async.cb_arg = arg;
}

/* Synchronous, through whichever namespace or controller: writes, reads into other memory, and compares. */
static inline void sync_round_trip(struct xnvme_dev *dev, char *buf, char *other, size_t size, unsigned seed)
{
	struct xnvme_cmd_ctx ctx = context(dev, XNVME_SPEC_NVM_OPC_WRITE, 4, size);

	fill(buf, size, seed);
	EXPECT(dev->be.sync.cmd_io(&ctx, buf, size, NULL, 0), 0);
	memset(other, 0, size);
	ctx = context(dev, XNVME_SPEC_NVM_OPC_READ, 4, size);
	EXPECT(dev->be.sync.cmd_io(&ctx, other, size, NULL, 0), 0);
	EXPECT(ctx.cpl.status >> 1, 0);
	TRUE(holds(other, size, seed));
	/* Without a length: the geometry was not known. */
	dev->geo.lba_nbytes = 0;
	memset(other, 0, size);
	ctx = context(dev, XNVME_SPEC_NVM_OPC_READ, 4, size);
	EXPECT(dev->be.sync.cmd_io(&ctx, other, 0, NULL, 0), 0);
	TRUE(holds(other, size, seed));
}

struct chain {
	int called, left, failed;
	uint32_t outstanding;
	void *buf;
};

/* Submits again from the callback: the command's own slot is free, even in a queue that was full. */
static inline void again(struct xnvme_cmd_ctx *ctx, void *arg)
{
	struct xnvme_queue *queue = ctx->async.queue;
	struct chain *chain = arg;

	chain->called++;
	chain->failed += ctx->cpl.status >> 1 != 0;
	TRUE(queue->base.outstanding < queue->base.capacity);
	if (chain->left) {
		chain->left--;
		EXPECT(ctx->dev->be.async.cmd_io(ctx, chain->buf, block_size, NULL, 0), 0);
	}
	chain->outstanding = queue->base.outstanding;
}

#endif
