/* SPDX-License-Identifier: BSD-3-Clause */
/* The backend's table of tables. */
#include "upcie_rs.h"

const struct xnvme_be_config g_xnvme_be_upcie_rs = {
	.async = &g_xnvme_be_upcie_rs_async,
	.sync = &g_xnvme_be_upcie_rs_sync,
	.admin = &g_xnvme_be_upcie_rs_admin,
	.dev = &g_xnvme_be_upcie_rs_dev,
	.mem = &g_xnvme_be_upcie_rs_mem,
	.attr = {.name = "upcie-rs", .descr = "NVMe driver libupcie", .caps = XNVME_BE_CAP_NVME_PCIE},
};
