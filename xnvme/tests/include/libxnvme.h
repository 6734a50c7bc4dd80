/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The facts of xNVMe's interface that the backend relies on, in words of our own: names, order and types of the members that
 * it touches, and sizes. The contract program is built against this folder in place of xNVMe's headers.
 */
#ifndef CONTRACT_LIBXNVME_H
#define CONTRACT_LIBXNVME_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define XNVME_STATIC_ASSERT(condition, text) _Static_assert(condition, text);

/* A command: 64 bytes, seen by its common part or as one of the NVM command set. */
struct xnvme_spec_cmd {
	union {
		struct {
			uint8_t opcode;
			uint8_t flags;
			uint16_t cid;
			uint32_t nsid;
			uint32_t rest[14];
		} common;
		struct {
			uint32_t head[2];
			uint32_t cdw2, cdw3;
			uint64_t mptr;
			uint64_t dptr[2];
			uint64_t slba;
			uint32_t nlb;
			uint32_t tail[3];
		} nvm;
		uint32_t dwords[16];
	};
};
_Static_assert(sizeof(struct xnvme_spec_cmd) == 64, "a submission queue entry");

/* A completion: 16 bytes. */
struct xnvme_spec_cpl {
	uint32_t result[2];
	uint16_t sqhd, sqid, cid, status;
};
_Static_assert(sizeof(struct xnvme_spec_cpl) == 16, "a completion queue entry");

struct xnvme_dev;
struct xnvme_queue;
struct xnvme_cmd_ctx;
typedef void (*xnvme_queue_cb)(struct xnvme_cmd_ctx *ctx, void *cb_arg);

/* A command on its way: 128 bytes. */
struct xnvme_cmd_ctx {
	struct xnvme_spec_cmd cmd;
	struct xnvme_spec_cpl cpl;
	struct xnvme_dev *dev;
	struct {
		struct xnvme_queue *queue;
		xnvme_queue_cb cb;
		void *cb_arg;
	} async;
	uint32_t opts;
	uint8_t be_rsvd[12];
};
_Static_assert(sizeof(struct xnvme_cmd_ctx) == 128, "a context");

enum {
	XNVME_SPEC_NVM_OPC_WRITE = 0x01,
	XNVME_SPEC_NVM_OPC_READ = 0x02,
	XNVME_SPEC_NVM_OPC_COMPARE = 0x05,
	XNVME_SPEC_ZND_OPC_APPEND = 0x7D,
	XNVME_SPEC_FS_OPC_WRITE = 0xAC,
	XNVME_SPEC_FS_OPC_READ = 0xDC,
	XNVME_SPEC_CSI_NVM = 0,
	XNVME_SPEC_CSI_KV = 1,
};

/* Bits to shift a byte offset by, the bytes of a block, and those of its metadata: 0 until somebody asks for the geometry. */
struct xnvme_geo {
	uint32_t nbytes_oob;
	uint64_t ssw;
	uint32_t lba_nbytes;
};
const struct xnvme_geo *xnvme_dev_get_geo(const struct xnvme_dev *dev);

struct xnvme_ident {
	char uri[384];
	uint32_t dtype;
	uint32_t nsid;
	uint8_t csi;
};

struct xnvme_opts {
	uint32_t nsid;
	size_t host_heap_size;
};

#endif
