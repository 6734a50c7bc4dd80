/* SPDX-License-Identifier: BSD-3-Clause */
/* Devices: one heap for the process, one controller for all of its namespaces. */
#include <pthread.h>
#include <stdlib.h>

#include "upcie_rs.h"

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static upcie_heap *g_heap;
static int g_ctrlrs;

upcie_heap *upcie_rs_heap(void)
{
	pthread_mutex_lock(&g_lock);
	upcie_heap *heap = g_heap;
	pthread_mutex_unlock(&g_lock);
	return heap;
}

/* Takes the heap for one more controller; makes it for the first one. */
static int heap_get(size_t bytes, upcie_heap **heap)
{
	struct upcie_heap_opts opts = {.size = sizeof(opts), .bytes = bytes};
	int err = 0;

	pthread_mutex_lock(&g_lock);
	if (!g_heap)
		err = upcie_heap_create(&opts, &g_heap);
	if (!err) {
		g_ctrlrs++;
		*heap = g_heap;
	}
	pthread_mutex_unlock(&g_lock);
	return err;
}

static void heap_put(void)
{
	pthread_mutex_lock(&g_lock);
	if (--g_ctrlrs == 0 && upcie_heap_destroy(g_heap) == 0)
		g_heap = NULL;
	pthread_mutex_unlock(&g_lock);
}

/* Opens the controller that the device's URI names: an address of libupcie's, as it is. */
static void *ctrlr_init(struct xnvme_dev *dev)
{
	struct upcie_info info = {.size = sizeof(info)};
	struct upcie_rs_ctrlr *ctrlr = calloc(1, sizeof(*ctrlr));
	upcie_heap *heap;
	int err = ctrlr ? heap_get(dev->opts.host_heap_size, &heap) : -ENOMEM;

	if (err)
		goto failed;
	err = upcie_open(heap, dev->ident.uri, NULL, &ctrlr->handle);
	if (err)
		goto put;
	err = upcie_info(ctrlr->handle, &info);
	if (err) {
		upcie_close(ctrlr->handle);
		goto put;
	}
	ctrlr->magic = UPCIE_RS_MAGIC;
	ctrlr->timeout_ms = info.timeout_ms;
	ctrlr->vectors = info.vectors;
	return ctrlr;

put:
	heap_put();
failed:
	free(ctrlr);
	errno = -err;
	return NULL;
}

static int ctrlr_term(void *handle)
{
	struct upcie_rs_ctrlr *ctrlr = handle;

	if (!ctrlr)
		return -EINVAL;
	int err = upcie_close(ctrlr->handle);
	if (err)
		return err;
	heap_put();
	free(ctrlr);
	return 0;
}

/* The command set of a namespace, from its list of descriptors (CNS 03h): type 4 has it. */
static uint8_t command_set(struct upcie_rs_ctrlr *ctrlr, uint32_t nsid)
{
	const size_t size = 4096;
	uint32_t cmd[16] = {0x06, nsid};
	uint8_t csi = XNVME_SPEC_CSI_NVM, *list = upcie_alloc(upcie_rs_heap(), size);

	cmd[10] = 0x03;
	if (list && upcie_admin(ctrlr->handle, cmd, list, size, NULL, 0, NULL) == 0) {
		for (size_t at = 0; at + 4 < size && list[at]; at += 4 + list[at + 1]) {
			if (list[at] == 4)
				csi = list[at + 4];
		}
	}
	if (list)
		upcie_free(upcie_rs_heap(), list);
	return csi;
}

static int dev_open(struct xnvme_dev *dev)
{
	struct upcie_rs_ctrlr *ctrlr = upcie_rs_ctrlr_of(dev);

	if (!ctrlr)
		return -EINVAL;
	if (ctrlr->magic != UPCIE_RS_MAGIC)
		return -EBUSY;
	dev->ident.dtype = dev->opts.nsid ? XNVME_DEV_TYPE_NVME_NAMESPACE : XNVME_DEV_TYPE_NVME_CONTROLLER;
	dev->ident.nsid = dev->opts.nsid;
	dev->ident.csi = dev->opts.nsid ? command_set(ctrlr, dev->opts.nsid) : XNVME_SPEC_CSI_NVM;
	return 0;
}

/* The controller is closed by ctrlr_term, once no device has it. */
static void dev_close(struct xnvme_dev *dev)
{
	(void)dev;
}

struct xnvme_be_dev g_xnvme_be_upcie_rs_dev = {
	.dev_open = dev_open,
	.dev_close = dev_close,
	.id = "upcie-rs",
	.ctrlr_init = ctrlr_init,
	.ctrlr_term = ctrlr_term,
};
