/* SPDX-License-Identifier: BSD-3-Clause */
/* Admin commands, and the operations that xNVMe dresses as such. */
#include "upcie_rs.h"

static int cmd_admin(struct xnvme_cmd_ctx *ctx, void *dbuf, size_t dbuf_nbytes, void *mbuf, size_t mbuf_nbytes)
{
	struct upcie_rs_ctrlr *ctrlr = upcie_rs_ctrlr_of(ctx->dev);

	return upcie_admin(ctrlr->handle, &ctx->cmd, dbuf, dbuf ? dbuf_nbytes : 0, mbuf, mbuf ? mbuf_nbytes : 0,
			   &ctx->cpl);
}

static int cmd_pseudo(struct xnvme_cmd_ctx *ctx, void *dbuf, size_t dbuf_nbytes, void *mbuf, size_t mbuf_nbytes)
{
	struct upcie_rs_ctrlr *ctrlr = upcie_rs_ctrlr_of(ctx->dev);

	(void)mbuf, (void)mbuf_nbytes;
	switch (ctx->cmd.common.opcode) {
	case XNVME_SPEC_PSEUDO_OPC_SHOW_REGS:
		return upcie_regs(ctrlr->handle, dbuf, 0, dbuf_nbytes);
	case XNVME_SPEC_PSEUDO_OPC_CONTROLLER_RESET:
		return upcie_reset(ctrlr->handle, UPCIE_RESET_CONTROLLER);
	case XNVME_SPEC_PSEUDO_OPC_SUBSYSTEM_RESET:
		return upcie_reset(ctrlr->handle, UPCIE_RESET_SUBSYSTEM);
	case XNVME_SPEC_PSEUDO_OPC_NAMESPACE_RESCAN:
		return upcie_rescan(ctrlr->handle, NULL, 0, NULL);
	default:
		return -ENOSYS;
	}
}

struct xnvme_be_admin g_xnvme_be_upcie_rs_admin = {
	.cmd_admin = cmd_admin,
	.cmd_pseudo = cmd_pseudo,
	.id = "upcie-rs",
};
