/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory: of the one heap, good for all controllers. Device addresses are those of the device's controller. */
#include "upcie_rs.h"

static int address_of(const struct xnvme_dev *dev, const void *buf, size_t size, uint64_t *phys)
{
	return phys ? upcie_iova(upcie_rs_ctrlr_of(dev)->handle, buf, size, phys) : 0;
}

static int buf_vtophys(const struct xnvme_dev *dev, void *buf, uint64_t *phys)
{
	return phys ? address_of(dev, buf, 1, phys) : -EINVAL;
}

static void *with_address(const struct xnvme_dev *dev, void *buf, uint64_t *phys)
{
	int err = buf ? address_of(dev, buf, 1, phys) : 0;

	if (!err)
		return buf;
	upcie_free(upcie_rs_heap(), buf);
	errno = -err;
	return NULL;
}

static void *buf_alloc(const struct xnvme_dev *dev, size_t nbytes, uint64_t *phys)
{
	return with_address(dev, upcie_alloc(upcie_rs_heap(), nbytes), phys);
}

static void *buf_realloc(const struct xnvme_dev *dev, void *buf, size_t nbytes, uint64_t *phys)
{
	return with_address(dev, upcie_realloc(upcie_rs_heap(), buf, nbytes), phys);
}

/* A buffer that a command in flight uses stays allocated. */
static void buf_free(const struct xnvme_dev *dev, void *buf)
{
	(void)dev;
	upcie_free(upcie_rs_heap(), buf);
}

static int mem_map(const struct xnvme_dev *dev, void *vaddr, size_t nbytes, uint64_t *phys)
{
	int err = upcie_map(upcie_rs_heap(), vaddr, nbytes);

	if (err)
		return err;
	err = address_of(dev, vaddr, 1, phys);
	if (err)
		upcie_unmap(upcie_rs_heap(), vaddr);
	return err;
}

static int mem_unmap(const struct xnvme_dev *dev, void *buf)
{
	(void)dev;
	return upcie_unmap(upcie_rs_heap(), buf);
}

struct xnvme_be_mem g_xnvme_be_upcie_rs_mem = {
	.buf_alloc = buf_alloc,
	.buf_vtophys = buf_vtophys,
	.buf_realloc = buf_realloc,
	.buf_free = buf_free,
	.mem_map = mem_map,
	.mem_unmap = mem_unmap,
	.id = "upcie-rs",
};
