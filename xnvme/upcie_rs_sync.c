/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands that are waited for. */
#include "upcie_rs.h"

void upcie_rs_translate(struct xnvme_cmd_ctx *ctx)
{
	switch (ctx->cmd.common.opcode) {
	case XNVME_SPEC_FS_OPC_READ:
		ctx->cmd.common.opcode = XNVME_SPEC_NVM_OPC_READ;
		break;
	case XNVME_SPEC_FS_OPC_WRITE:
		ctx->cmd.common.opcode = XNVME_SPEC_NVM_OPC_WRITE;
		break;
	default:
		return;
	}
	ctx->cmd.nvm.slba >>= xnvme_dev_get_geo(ctx->dev)->ssw;
}

/* The blocks of a command that moves their data; 0 of any other. */
static size_t blocks(const struct xnvme_cmd_ctx *ctx)
{
	switch (ctx->cmd.common.opcode) {
	case XNVME_SPEC_NVM_OPC_READ:
	case XNVME_SPEC_NVM_OPC_WRITE:
	case XNVME_SPEC_NVM_OPC_COMPARE:
	case XNVME_SPEC_ZND_OPC_APPEND:
		return (ctx->cmd.nvm.nlb & 0xffff) + 1u;
	default:
		return 0;
	}
}

size_t upcie_rs_nbytes(const struct xnvme_cmd_ctx *ctx, const void *dbuf, size_t nbytes)
{
	if (!dbuf || nbytes)
		return dbuf ? nbytes : 0;
	/* Dword 10 is the length of a Store, a Retrieve and a List, two of which have the opcodes of Write and Read. */
	if (ctx->dev->ident.csi == XNVME_SPEC_CSI_KV)
		return (uint32_t)ctx->cmd.nvm.slba;
	return xnvme_dev_get_geo(ctx->dev)->lba_nbytes * blocks(ctx);
}

size_t upcie_rs_mbytes(const struct xnvme_cmd_ctx *ctx, const void *mbuf, size_t nbytes)
{
	if (!mbuf || nbytes || ctx->dev->ident.csi == XNVME_SPEC_CSI_KV)
		return mbuf ? nbytes : 0;
	return xnvme_dev_get_geo(ctx->dev)->nbytes_oob * blocks(ctx);
}

static int cmd_io(struct xnvme_cmd_ctx *ctx, void *dbuf, size_t dbuf_nbytes, void *mbuf, size_t mbuf_nbytes)
{
	struct upcie_rs_ctrlr *ctrlr = upcie_rs_ctrlr_of(ctx->dev);

	upcie_rs_translate(ctx);
	return upcie_io(ctrlr->handle, &ctx->cmd, dbuf, upcie_rs_nbytes(ctx, dbuf, dbuf_nbytes), mbuf,
			upcie_rs_mbytes(ctx, mbuf, mbuf_nbytes), &ctx->cpl);
}

static int cmd_iov(struct xnvme_cmd_ctx *ctx, struct iovec *dvec, size_t dvec_cnt, size_t dvec_nbytes, void *mbuf,
		   size_t mbuf_nbytes)
{
	struct upcie_rs_ctrlr *ctrlr = upcie_rs_ctrlr_of(ctx->dev);

	(void)dvec_nbytes;
	upcie_rs_translate(ctx);
	return upcie_iov(ctrlr->handle, &ctx->cmd, dvec, dvec_cnt, mbuf,
			 upcie_rs_mbytes(ctx, mbuf, mbuf_nbytes), &ctx->cpl);
}

struct xnvme_be_sync g_xnvme_be_upcie_rs_sync = {
	.cmd_io = cmd_io,
	.cmd_iov = cmd_iov,
	.id = "upcie-rs",
};
