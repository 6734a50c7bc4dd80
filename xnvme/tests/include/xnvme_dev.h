/* SPDX-License-Identifier: BSD-3-Clause */
/* A device. */
#ifndef CONTRACT_XNVME_DEV_H
#define CONTRACT_XNVME_DEV_H

#include <xnvme_be.h>

enum { XNVME_DEV_TYPE_NVME_CONTROLLER = 1, XNVME_DEV_TYPE_NVME_NAMESPACE = 2 };

struct xnvme_dev {
	struct xnvme_geo geo;
	struct xnvme_be be;
	struct xnvme_ident ident;
	struct xnvme_opts opts;
};

#endif
