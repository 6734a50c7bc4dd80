/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls the backend's tables as xNVMe does with commands of the command sets, on a controller that has them: "metadata" (512 + 8
 * bytes, type 1, metadata apart), "zones" or "keys", and its address, on the command line. The namespace is 1, with blocks of 512
 * bytes and zones of 128 blocks, unless these three numbers follow.
 */
#define _GNU_SOURCE
#include "contract.h"

#define STATUS(ctx) ((ctx).cpl.status >> 1 & 0x7ff)

uint32_t block_size = 512;
static uint32_t metadata_size, zone_blocks = 128;

const struct xnvme_geo *xnvme_dev_get_geo(const struct xnvme_dev *dev)
{
	((struct xnvme_dev *)dev)->geo.lba_nbytes = block_size;
	((struct xnvme_dev *)dev)->geo.nbytes_oob = metadata_size;
	return &dev->geo;
}

static void count(struct xnvme_cmd_ctx *ctx, void *arg)
{
	(void)ctx;
	++*(int *)arg;
}

/* Runs a command by every function that takes it: waited for, on a queue, and both with an iovec. */
static void each_way(struct xnvme_dev *dev, struct xnvme_cmd_ctx ctx, void *data, size_t size, void *meta,
		     size_t meta_size, uint32_t status, void (*check)(const struct xnvme_cmd_ctx *))
{
	int expected = status ? -EIO : 0, called = 0;
	struct iovec piece = {data, size};
	struct xnvme_queue queue;

	queue_init(&queue, dev, 4);
	for (int way = 0; way < 4; way++) {
		struct xnvme_cmd_ctx now = ctx;

		set(&now, &queue, count, &called);
		if (way == 0)
			EXPECT(dev->be.sync.cmd_io(&now, data, size, meta, meta_size), expected);
		else if (way == 1)
			EXPECT(dev->be.sync.cmd_iov(&now, &piece, size ? 1 : 0, size, meta, meta_size), expected);
		else if (way == 2)
			EXPECT(dev->be.async.cmd_io(&now, data, size, meta, meta_size), 0);
		else
			EXPECT(dev->be.async.cmd_iov(&now, &piece, size ? 1 : 0, size, meta, meta_size), 0);
		if (way >= 2)
			EXPECT(dev->be.async.wait(&queue), 1);
		EXPECT(STATUS(now), status);
		if (check)
			check(&now);
	}
	EXPECT(called, 2);
	EXPECT(dev->be.async.term(&queue), 0);
}

enum { PRACT = 1u << 29, GUARD = 1u << 28, REFTAG = 1u << 26, REFTAG_ERROR = 0x284 };

static struct xnvme_cmd_ctx protected(struct xnvme_dev *dev, uint8_t opcode, uint32_t block, size_t size, uint32_t how)
{
	struct xnvme_cmd_ctx ctx = context(dev, opcode, block, size);

	ctx.cmd.nvm.nlb |= how;
	ctx.cmd.dwords[14] = block;
	return ctx;
}

static void metadata(struct xnvme_dev *dev)
{
	const size_t size = 8192, meta_size = size / 512 * 8;
	char *buf = dev->be.mem.buf_alloc(dev, size, NULL);
	unsigned char *meta = dev->be.mem.buf_alloc(dev, meta_size, NULL);
	struct xnvme_cmd_ctx ctx;

	TRUE(buf && meta);
	metadata_size = 8;
	fill(buf, size, 1);
	each_way(dev, protected(dev, XNVME_SPEC_NVM_OPC_WRITE, 32, size, PRACT), buf, size, NULL, 0, 0, NULL);
	memset(buf, 0, size);
	memset(meta, 0, meta_size);
	each_way(dev, protected(dev, XNVME_SPEC_NVM_OPC_READ, 32, size, GUARD | REFTAG), buf, size, meta, meta_size, 0,
		 NULL);
	TRUE(holds(buf, size, 1));
	for (unsigned i = 0; i < size / 512; i++)
		EXPECT(meta[8 * i + 7], 32 + i);
	/* Without lengths: the geometry was not known. The metadata moves all the same. */
	memset(meta, 0, meta_size);
	dev->geo.lba_nbytes = dev->geo.nbytes_oob = 0;
	ctx = protected(dev, XNVME_SPEC_NVM_OPC_READ, 32, size, GUARD | REFTAG);
	EXPECT(dev->be.sync.cmd_io(&ctx, buf, 0, meta, 0), 0);
	TRUE(holds(buf, size, 1));
	for (unsigned i = 0; i < size / 512; i++)
		EXPECT(meta[8 * i + 7], 32 + i);
	/* Tags of another place are told. */
	each_way(dev, context(dev, XNVME_SPEC_NVM_OPC_WRITE, 96, size), buf, size, meta, meta_size, 0, NULL);
	each_way(dev, protected(dev, XNVME_SPEC_NVM_OPC_READ, 96, size, REFTAG), buf, size, meta, meta_size,
		 REFTAG_ERROR, NULL);
	/* Memory that is none of the heap's. */
	ctx = context(dev, XNVME_SPEC_NVM_OPC_READ, 96, size);
	EXPECT(dev->be.sync.cmd_io(&ctx, buf, size, &ctx, meta_size), -EFAULT);
	dev->be.mem.buf_free(dev, meta);
	dev->be.mem.buf_free(dev, buf);
}

static uint64_t next_block;

/* The block is the 64-bit result. */
static void appended(const struct xnvme_cmd_ctx *ctx)
{
	uint64_t block;

	memcpy(&block, ctx->cpl.result, sizeof(block));
	EXPECT(block, next_block);
	next_block += 4096 / block_size;
}

static void zones(struct xnvme_dev *dev)
{
	const uint64_t zone = zone_blocks;
	char *buf = dev->be.mem.buf_alloc(dev, 32768, NULL), *other = dev->be.mem.buf_alloc(dev, 32768, NULL);
	struct xnvme_cmd_ctx ctx;
	uint64_t pointer;

	TRUE(buf && other);
	/* Whatever was there before. */
	ctx = context(dev, 0x79, zone, 0);
	ctx.cmd.dwords[13] = 4;
	EXPECT(dev->be.sync.cmd_io(&ctx, NULL, 0, NULL, 0), 0);
	next_block = zone;
	fill(buf, 4096, 3);
	each_way(dev, context(dev, XNVME_SPEC_ZND_OPC_APPEND, zone, 4096), buf, 4096, NULL, 0, 0, appended);
	/* Without a length. */
	dev->geo.lba_nbytes = 0;
	ctx = context(dev, XNVME_SPEC_ZND_OPC_APPEND, zone, 4096);
	EXPECT(dev->be.sync.cmd_io(&ctx, buf, 0, NULL, 0), 0);
	appended(&ctx);
	for (uint64_t block = zone; block < next_block; block += 4096 / block_size) {
		memset(other, 0, 4096);
		ctx = context(dev, XNVME_SPEC_NVM_OPC_READ, block, 4096);
		EXPECT(dev->be.sync.cmd_io(&ctx, other, 4096, NULL, 0), 0);
		TRUE(holds(other, 4096, 3));
	}
	/* A report, whose length is in dwords. */
	ctx = context(dev, 0x7a, zone, 0);
	ctx.cmd.dwords[12] = 4096 / 4 - 1;
	each_way(dev, ctx, other, 4096, NULL, 0, 0, NULL);
	memcpy(&pointer, other + 64 + 24, sizeof(pointer));
	EXPECT(pointer, next_block);
	/* Reset, and empty. */
	ctx = context(dev, 0x79, zone, 0);
	ctx.cmd.dwords[13] = 4;
	each_way(dev, ctx, NULL, 0, NULL, 0, 0, NULL);
	next_block = zone;
	ctx = context(dev, XNVME_SPEC_ZND_OPC_APPEND, zone, 4096);
	EXPECT(dev->be.sync.cmd_io(&ctx, buf, 4096, NULL, 0), 0);
	appended(&ctx);
	dev->be.mem.buf_free(dev, other);
	dev->be.mem.buf_free(dev, buf);
}

enum { STORE = 0x01, RETRIEVE = 0x02, DELETE = 0x10, EXIST = 0x14, KEY_DOES_NOT_EXIST = 0x87 };

/* A key of 7 bytes; the value's length is in bytes. */
static struct xnvme_cmd_ctx of_key(struct xnvme_dev *dev, uint8_t opcode, uint32_t bytes)
{
	struct xnvme_cmd_ctx ctx = context(dev, opcode, 0, 0);

	memcpy(&ctx.cmd.dwords[2], "user", 4);
	memcpy(&ctx.cmd.dwords[3], ":17", 3);
	ctx.cmd.dwords[10] = bytes;
	ctx.cmd.dwords[11] = 7;
	return ctx;
}

static void has_length(const struct xnvme_cmd_ctx *ctx)
{
	EXPECT(ctx->cpl.result[0], 5001);
}

static void keys(struct xnvme_dev *dev)
{
	char *buf = dev->be.mem.buf_alloc(dev, 8192, NULL);
	struct xnvme_cmd_ctx ctx;

	TRUE(buf != NULL);
	fill(buf, 5001, 9);
	each_way(dev, of_key(dev, STORE, 5001), buf, 5001, NULL, 0, 0, NULL);
	each_way(dev, of_key(dev, EXIST, 0), NULL, 0, NULL, 0, 0, NULL);
	memset(buf, 0, 8192);
	each_way(dev, of_key(dev, RETRIEVE, 6000), buf, 6000, NULL, 0, 0, has_length);
	TRUE(holds(buf, 5001, 9) && buf[5001] == 0);
	/* Without a length of the data: the command has it, whose opcode is that of a Read of blocks. */
	memset(buf, 0, 8192);
	ctx = of_key(dev, RETRIEVE, 100);
	EXPECT(dev->be.sync.cmd_io(&ctx, buf, 0, NULL, 0), 0);
	has_length(&ctx);
	TRUE(holds(buf, 100, 9) && buf[100] == 0);
	ctx = of_key(dev, DELETE, 0);
	EXPECT(dev->be.sync.cmd_io(&ctx, NULL, 0, NULL, 0), 0);
	each_way(dev, of_key(dev, EXIST, 0), NULL, 0, NULL, 0, KEY_DOES_NOT_EXIST, NULL);
	each_way(dev, of_key(dev, RETRIEVE, 100), buf, 100, NULL, 0, KEY_DOES_NOT_EXIST, NULL);
	dev->be.mem.buf_free(dev, buf);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		uint8_t csi;
		void (*test)(struct xnvme_dev *);
	} sets[] = {{"metadata", XNVME_SPEC_CSI_NVM, metadata}, {"zones", 2, zones}, {"keys", XNVME_SPEC_CSI_KV, keys}};
	static struct xnvme_dev dev;
	uint32_t nsid = 1;
	void *ctrlr;

	if (argc == 6) {
		nsid = (uint32_t)atoi(argv[3]);
		block_size = (uint32_t)atoi(argv[4]);
		zone_blocks = (uint32_t)atoi(argv[5]);
	}
	for (unsigned i = 0; argc >= 3 && i < sizeof(sets) / sizeof(sets[0]); i++) {
		if (strcmp(sets[i].name, argv[1]))
			continue;
		dev_init(&dev, argv[2], nsid, NULL);
		EXPECT(dev.ident.csi, sets[i].csi);
		memcpy(&ctrlr, dev.be.state, sizeof(ctrlr));
		sets[i].test(&dev);
		dev.be.dev.dev_close(&dev);
		EXPECT(g_xnvme_be_upcie_rs.dev->ctrlr_term(ctrlr), 0);
		printf("%s: ok\n", argv[1]);
		return 0;
	}
	return 2;
}
