/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls the backend's tables as xNVMe does, for what several devices share: memory, admin commands and resets. The arguments are
 * those of the contract program.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "contract.h"

uint32_t block_size;
/* The first controller has an IOMMU, or is one in software. */
static int is_translated;

/* xNVMe identifies a device when its geometry is first asked for. */
const struct xnvme_geo *xnvme_dev_get_geo(const struct xnvme_dev *dev)
{
	((struct xnvme_dev *)dev)->geo.lba_nbytes = block_size;
	return &dev->geo;
}

static void memory(struct xnvme_dev *dev, struct xnvme_dev *other)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), size = 16 * page;
	struct chain chain = {0};
	struct xnvme_queue queue;
	struct xnvme_cmd_ctx ctx;
	uint64_t phys = 1, again_phys, theirs;
	char stack[16];

	char *buf = dev->be.mem.buf_alloc(dev, size, &phys);
	TRUE(buf && phys % page == 0);
	EXPECT(dev->be.mem.buf_vtophys(dev, buf + 100, &again_phys), 0);
	EXPECT(again_phys, phys + 100);
	/* Memory of one device is good for every other, of whichever controller. */
	EXPECT(other->be.mem.buf_vtophys(other, buf, &theirs), 0);
	sync_round_trip(other, buf, buf + size / 2, size / 2, 30);
	fill(buf, size, 31);
	buf = dev->be.mem.buf_realloc(dev, buf, 4 * size, &phys);
	TRUE(buf && holds(buf, size, 31));
	EXPECT(dev->be.mem.buf_vtophys(dev, buf, &again_phys), 0);
	EXPECT(again_phys, phys);
	buf = dev->be.mem.buf_realloc(dev, buf, page, NULL);
	TRUE(buf && holds(buf, page, 31));
	EXPECT(dev->be.mem.buf_vtophys(dev, stack, &phys), -EFAULT);
	TRUE(dev->be.mem.buf_alloc(dev, 0, &phys) == NULL);

	/* Freed without a length; not while a command uses it. */
	queue_init(&queue, dev, 4);
	ctx = context(dev, XNVME_SPEC_NVM_OPC_READ, 0, block_size);
	set(&ctx, &queue, again, &chain);
	EXPECT(dev->be.async.cmd_io(&ctx, buf, block_size, NULL, 0), 0);
	dev->be.mem.buf_free(dev, buf);
	EXPECT(dev->be.mem.buf_vtophys(dev, buf, &phys), 0);
	EXPECT(dev->be.async.wait(&queue), 1);
	TRUE(chain.failed == 0);
	dev->be.mem.buf_free(dev, buf);
	dev->be.mem.buf_free(dev, buf);
	dev->be.mem.buf_free(dev, NULL);
	EXPECT(dev->be.async.term(&queue), 0);
}

/* Memory of the program's is good for both devices, and stays mapped while a command uses it. */
static void own_memory(struct xnvme_dev *dev, struct xnvme_dev *other, char *own, size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), part = 16 * page;
	struct xnvme_cmd_ctx ctx = context(dev, XNVME_SPEC_NVM_OPC_READ, 0, block_size);
	char *check = dev->be.mem.buf_alloc(dev, part, NULL);
	struct chain chain = {0};
	struct xnvme_queue queue;
	uint64_t phys, again_phys;

	TRUE(check && own != MAP_FAILED);
	queue_init(&queue, dev, 4);
	set(&ctx, &queue, again, &chain);
	fill(own, part, 40);
	EXPECT(dev->be.mem.mem_map(dev, own, size, &phys), 0);
	TRUE(holds(own, part, 40));
	EXPECT(dev->be.mem.buf_vtophys(dev, own, &again_phys), 0);
	EXPECT(again_phys, phys);
	sync_round_trip(dev, own, check, part, 41);
	sync_round_trip(other, check, own, part, 42);
	EXPECT(dev->be.async.cmd_io(&ctx, own + page, block_size, NULL, 0), 0);
	EXPECT(dev->be.mem.mem_unmap(dev, own), -EBUSY);
	EXPECT(dev->be.async.wait(&queue), 1);
	EXPECT(dev->be.mem.mem_unmap(dev, own), 0);
	EXPECT(dev->be.mem.mem_unmap(dev, own), -EINVAL);
	TRUE(holds(own, page, 42));
	EXPECT(dev->be.async.cmd_io(&ctx, own, block_size, NULL, 0), -EFAULT);
	munmap(own, size);
	dev->be.mem.buf_free(dev, check);
	EXPECT(dev->be.async.term(&queue), 0);
}

/* A memory file, and anonymous memory; without an IOMMU the file has huge pages, and anonymous memory is refused. */
static void kinds_of_memory(struct xnvme_dev *dev, struct xnvme_dev *other)
{
	size_t size = is_translated ? 16 * (size_t)sysconf(_SC_PAGESIZE) : 2 << 20;
	int access = PROT_READ | PROT_WRITE, file;
	char *own = mmap(NULL, size, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (is_translated) {
		own_memory(dev, other, own, size);
	} else {
		TRUE(own != MAP_FAILED);
		EXPECT(dev->be.mem.mem_map(dev, own, size, NULL), -ENOTSUP);
		munmap(own, size);
	}
	file = memfd_create("own", MFD_CLOEXEC | MFD_ALLOW_SEALING | (is_translated ? 0 : MFD_HUGETLB));
	TRUE(file >= 0 && ftruncate(file, (off_t)size) == 0);
	own_memory(dev, other, mmap(NULL, size, access, MAP_SHARED, file, 0), size);
	close(file);
}

/* The bytes of a namespace's blocks, from Identify Namespace. */
static uint32_t bytes_of_blocks(struct xnvme_dev *dev, char *buf)
{
	struct xnvme_cmd_ctx ctx = context(dev, 0x06, 0, 0);

	EXPECT(dev->be.admin.cmd_admin(&ctx, buf, 4096, NULL, 0), 0);
	return 1u << buf[128 + 4 * (buf[26] & 15) + 2];
}

/* Namespaces of one controller have data of their own, and queues of the controller's. */
static void namespaces(struct xnvme_dev *first, struct xnvme_dev *second, char *buf)
{
	size_t size = 65536;
	uint32_t blocks_of_first = block_size;
	struct chain chain = {.buf = buf};
	struct xnvme_queue queue;
	struct xnvme_cmd_ctx ctx;

	EXPECT(bytes_of_blocks(first, buf), block_size);
	sync_round_trip(first, buf, buf + size, size, 60);
	block_size = bytes_of_blocks(second, buf);
	sync_round_trip(second, buf, buf + size, size, 61);
	queue_init(&queue, second, 4);
	ctx = context(second, XNVME_SPEC_NVM_OPC_READ, 4, size);
	set(&ctx, &queue, again, &chain);
	memset(buf, 0, size);
	EXPECT(second->be.async.cmd_io(&ctx, buf, size, NULL, 0), 0);
	EXPECT(second->be.async.wait(&queue), 1);
	TRUE(chain.failed == 0 && holds(buf, size, 61));
	EXPECT(second->be.async.term(&queue), 0);
	block_size = blocks_of_first;
	ctx = context(first, XNVME_SPEC_NVM_OPC_READ, 4, size);
	EXPECT(first->be.sync.cmd_io(&ctx, buf, size, NULL, 0), 0);
	TRUE(holds(buf, size, 60));
}

static void admin(struct xnvme_dev *dev, char *buf)
{
	struct xnvme_cmd_ctx ctx = context(dev, 0x06, 0, 0);
	uint32_t registers[16];

	ctx.cmd.dwords[10] = 0x00;
	EXPECT(dev->be.admin.cmd_admin(&ctx, buf, 4096, NULL, 0), 0);
	uint64_t blocks;
	memcpy(&blocks, buf, 8);
	TRUE(blocks > 0);
	ctx.cmd.common.nsid = 0;
	ctx.cmd.dwords[10] = 0xff;
	EXPECT(dev->be.admin.cmd_admin(&ctx, buf, 4096, NULL, 0), -EIO);
	TRUE(ctx.cpl.status >> 1 != 0);
	/* The driver's own. */
	ctx = context(dev, 0x04, 0, 0);
	EXPECT(dev->be.admin.cmd_admin(&ctx, NULL, 0, NULL, 0), -EPERM);

	ctx = context(dev, XNVME_SPEC_PSEUDO_OPC_SHOW_REGS, 0, 0);
	EXPECT(dev->be.admin.cmd_pseudo(&ctx, registers, sizeof(registers), NULL, 0), 0);
	/* CSTS.RDY. */
	EXPECT(registers[7] & 1, 1);
	ctx = context(dev, XNVME_SPEC_PSEUDO_OPC_NAMESPACE_RESCAN, 0, 0);
	EXPECT(dev->be.admin.cmd_pseudo(&ctx, NULL, 0, NULL, 0), 0);
	ctx = context(dev, 0x7f, 0, 0);
	EXPECT(dev->be.admin.cmd_pseudo(&ctx, NULL, 0, NULL, 0), -ENOSYS);
}

/* Commands in flight come back once, with a status, and the queue goes on. */
static void reset(struct xnvme_dev *dev, char *buf)
{
	struct xnvme_cmd_ctx ctxs[3], pseudo = context(dev, XNVME_SPEC_PSEUDO_OPC_CONTROLLER_RESET, 0, 0);
	struct chain chain = {.buf = buf};
	struct xnvme_queue queue;
	uint32_t registers[2];

	queue_init(&queue, dev, 4);
	for (int i = 0; i < 3; i++) {
		ctxs[i] = context(dev, XNVME_SPEC_NVM_OPC_READ, 0, block_size);
		set(&ctxs[i], &queue, again, &chain);
		EXPECT(dev->be.async.cmd_io(&ctxs[i], buf, block_size, NULL, 0), 0);
	}
	EXPECT(dev->be.admin.cmd_pseudo(&pseudo, NULL, 0, NULL, 0), 0);
	/* There is room for one more, and none before the others are back. */
	struct xnvme_cmd_ctx early = ctxs[0];
	EXPECT(dev->be.async.cmd_io(&early, buf, block_size, NULL, 0), -EBUSY);
	EXPECT(dev->be.async.poke(&queue, 0), 3);
	TRUE(chain.called == 3 && chain.failed == 3 && queue.base.outstanding == 0);
	EXPECT(dev->be.async.cmd_io(&ctxs[0], buf, block_size, NULL, 0), 0);
	EXPECT(dev->be.async.wait(&queue), 1);
	TRUE(chain.called == 4 && chain.failed == 3);
	pseudo.cmd.common.opcode = XNVME_SPEC_PSEUDO_OPC_SHOW_REGS;
	EXPECT(dev->be.admin.cmd_pseudo(&pseudo, registers, sizeof(registers), NULL, 0), 0);
	/* CAP.NSSRS. */
	int has_reset = registers[1] >> 4 & 1;
	pseudo.cmd.common.opcode = XNVME_SPEC_PSEUDO_OPC_SUBSYSTEM_RESET;
	EXPECT(dev->be.async.cmd_io(&ctxs[0], buf, block_size, NULL, 0), 0);
	EXPECT(dev->be.admin.cmd_pseudo(&pseudo, NULL, 0, NULL, 0), has_reset ? 0 : -ENOTSUP);
	EXPECT(dev->be.async.wait(&queue), 1);
	TRUE(chain.called == 5 && chain.failed == 3 + has_reset && queue.base.outstanding == 0);
	EXPECT(dev->be.async.term(&queue), 0);
	sync_round_trip(dev, buf, buf + 65536, 8192, 50);
}

/* A reset finds a queue without commands: the next ones are ordinary ones. With a completion descriptor, too. */
static void reset_of_idle_queues(struct xnvme_dev *dev, char *buf)
{
	struct xnvme_cmd_ctx ctxs[3], pseudo = context(dev, XNVME_SPEC_PSEUDO_OPC_CONTROLLER_RESET, 0, 0);
	struct iovec piece = {buf, block_size};
	struct xnvme_queue queue;

	for (int has_events = 0; has_events < 2; has_events++) {
		struct chain chain = {.buf = buf};

		queue_init(&queue, dev, 4);
		if (has_events)
			TRUE(dev->be.async.get_completion_fd(&queue) >= 0);
		for (int round = 0; round < 3; round++) {
			for (int i = 0; i < 3; i++) {
				ctxs[i] = context(dev, XNVME_SPEC_NVM_OPC_READ, 0, block_size);
				set(&ctxs[i], &queue, again, &chain);
				EXPECT((i + round) % 2 ? dev->be.async.cmd_iov(&ctxs[i], &piece, 1, block_size, NULL, 0)
						       : dev->be.async.cmd_io(&ctxs[i], buf, block_size, NULL, 0),
				       0);
			}
			EXPECT(dev->be.async.wait(&queue), 3);
			EXPECT(dev->be.admin.cmd_pseudo(&pseudo, NULL, 0, NULL, 0), 0);
		}
		TRUE(chain.called == 9 && chain.failed == 0);
		EXPECT(dev->be.async.term(&queue), 0);
	}
}

int main(int argc, char **argv)
{
	static struct xnvme_dev first, second, other;
	void *ctrlr, *other_ctrlr;

	if (argc != 4)
		return 2;
	block_size = (uint32_t)atoi(argv[3]);
	is_translated = strncmp(argv[1], "uio:", 4) && strncmp(argv[1], "noiommu:", 8);
	dev_init(&first, argv[1], 1, NULL);
	memcpy(&ctrlr, first.be.state, sizeof(ctrlr));
	dev_init(&second, argv[1], 2, ctrlr);
	dev_init(&other, argv[2], 1, NULL);
	memcpy(&other_ctrlr, other.be.state, sizeof(other_ctrlr));
	char *buf = first.be.mem.buf_alloc(&first, 1 << 18, NULL);
	TRUE(buf != NULL);

	/* More than the heap was made with. */
	char *more = first.be.mem.buf_alloc(&first, 16 << 20, NULL);
	TRUE(more != NULL);
	sync_round_trip(&first, more + (12 << 20), buf, 65536, 59);
	first.be.mem.buf_free(&first, more);

	namespaces(&first, &second, buf);
	memory(&first, &other);
	kinds_of_memory(&first, &other);
	admin(&first, buf);
	admin(&second, buf);
	reset(&first, buf);
	reset_of_idle_queues(&first, buf);

	first.be.mem.buf_free(&first, buf);
	EXPECT(g_xnvme_be_upcie_rs.dev->ctrlr_term(ctrlr), 0);
	EXPECT(g_xnvme_be_upcie_rs.dev->ctrlr_term(other_ctrlr), 0);
	puts("devices: ok");
	return 0;
}
