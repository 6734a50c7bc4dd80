/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls the backend's tables as xNVMe does, on the controllers that are named on the command line: the first has two
 * namespaces, of which the first has blocks of the size that is the third argument; the second is another controller.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "contract.h"

uint32_t block_size;

/* xNVMe identifies a device when its geometry is first asked for. */
const struct xnvme_geo *xnvme_dev_get_geo(const struct xnvme_dev *dev)
{
	((struct xnvme_dev *)dev)->geo.lba_nbytes = block_size;
	return &dev->geo;
}

static void never(void *user, const void *cqe, void *arg)
{
	(void)user, (void)cqe, (void)arg;
	abort();
}

/* Pokes until nothing is outstanding. */
static int drain(struct xnvme_queue *queue)
{
	int count = 0;

	while (queue->base.outstanding) {
		int result = queue->base.dev->be.async.poke(queue, 0);
		if (result < 0)
			EXPECT(result, 0);
		count += result;
	}
	return count;
}

static void queues(struct xnvme_dev *dev, char *buf)
{
	enum { CAPACITY = 15 };
	struct xnvme_cmd_ctx ctxs[CAPACITY + 1];
	struct chain chain = {.buf = buf};
	struct xnvme_queue queue;

	/* A queue takes as many as its capacity: it has an entry more. */
	queue_init(&queue, dev, CAPACITY);
	for (int i = 0; i <= CAPACITY; i++) {
		ctxs[i] = context(dev, XNVME_SPEC_NVM_OPC_READ, (uint64_t)i, block_size);
		set(&ctxs[i], &queue, again, &chain);
		EXPECT(dev->be.async.cmd_io(&ctxs[i], buf, block_size, NULL, 0), i < CAPACITY ? 0 : -EBUSY);
	}
	EXPECT(queue.base.outstanding, CAPACITY);
	/* Submissions don't ring: nothing can complete before the first poke. */
	usleep(20000);
	EXPECT(chain.called, 0);
	EXPECT(upcie_poll(((struct upcie_rs_queue *)(void *)&queue)->handle, 0, never, NULL), 0);
	/* Each completion submits another one, 100 times. */
	chain.left = 100;
	EXPECT(drain(&queue), CAPACITY + 100);
	TRUE(chain.called == CAPACITY + 100 && chain.failed == 0 && chain.outstanding == 0);

	/* A poke takes at most max, and with 0 all that is outstanding; a wait takes the rest. */
	chain = (struct chain){.buf = buf};
	for (int i = 0; i < 10; i++)
		EXPECT(dev->be.async.cmd_io(&ctxs[i], buf, block_size, NULL, 0), 0);
	int found;
	while ((found = dev->be.async.poke(&queue, 3)) == 0)
		;
	TRUE(found >= 1 && found <= 3 && chain.called == found);
	EXPECT(dev->be.async.wait(&queue), 10 - found);
	EXPECT(chain.called, 10);
	EXPECT(dev->be.async.wait(&queue), 0);
	EXPECT(dev->be.async.poke(&queue, 0), 0);

	/* Opcodes of any command set go to the controller: this one has neither zones, nor keys, nor this vendor's. */
	static const uint8_t opcodes[] = {0x7d, 0x79, 0x10, 0x14, 0xc1};
	for (unsigned i = 0; i < sizeof(opcodes); i++) {
		ctxs[i].cmd.common.opcode = opcodes[i];
		EXPECT(dev->be.async.cmd_io(&ctxs[i], NULL, 0, NULL, 0), 0);
	}
	chain.called = chain.failed = 0;
	EXPECT(dev->be.async.wait(&queue), sizeof(opcodes));
	TRUE(chain.called == sizeof(opcodes) && chain.failed == sizeof(opcodes));

	/* The commands for files are those for blocks, by bytes. */
	ctxs[0] = context(dev, XNVME_SPEC_FS_OPC_WRITE, 7 * (uint64_t)block_size, block_size);
	set(&ctxs[0], &queue, again, &chain);
	fill(buf, block_size, 3);
	chain.failed = 0;
	EXPECT(dev->be.async.cmd_io(&ctxs[0], buf, block_size, NULL, 0), 0);
	EXPECT(dev->be.async.wait(&queue), 1);
	ctxs[0] = context(dev, XNVME_SPEC_NVM_OPC_READ, 7, block_size);
	EXPECT(dev->be.sync.cmd_io(&ctxs[0], buf + 65536, block_size, NULL, 0), 0);
	TRUE(chain.failed == 0 && holds(buf + 65536, block_size, 3));
	EXPECT(dev->be.async.term(&queue), 0);
}

static void vectors(struct xnvme_dev *dev, char *buf, char *other)
{
	struct chain chain = {.buf = buf};
	struct xnvme_queue queue;
	struct xnvme_cmd_ctx ctx;
	size_t size = 3 * 4096;

	queue_init(&queue, dev, 4);
	/* Segments smaller than a page, side by side in one buffer, are one transfer. */
	struct iovec beside[] = {{buf, 512}, {buf + 512, 512}, {buf + 1024, 3072}, {buf + 4096, 8192}};
	fill(buf, size, 21);
	ctx = context(dev, XNVME_SPEC_NVM_OPC_WRITE, 16, size);
	set(&ctx, &queue, again, &chain);
	EXPECT(dev->be.async.cmd_iov(&ctx, beside, 4, size, NULL, 0), 0);
	EXPECT(dev->be.async.wait(&queue), 1);
	memset(other, 0, size);
	/* Pages in any order; the first may begin anywhere. */
	struct iovec apart[] = {{other + 8192, 4096}, {other, 4096}, {other + 16384, 4096}};
	ctx = context(dev, XNVME_SPEC_NVM_OPC_READ, 16, size);
	EXPECT(dev->be.sync.cmd_iov(&ctx, apart, 3, size, NULL, 0), 0);
	TRUE(memcmp(other + 8192, buf, 4096) == 0 && memcmp(other, buf + 4096, 4096) == 0);
	TRUE(memcmp(other + 16384, buf + 8192, 4096) == 0);
	struct iovec tail[] = {{other + 4096 - 512, 512}, {other + 8192, size - 512}};
	EXPECT(dev->be.sync.cmd_iov(&ctx, tail, 2, size, NULL, 0), 0);
	TRUE(memcmp(other + 4096 - 512, buf, 512) == 0 && memcmp(other + 8192, buf + 512, size - 512) == 0);
	/* Smaller than a page and apart can't be named: refused, and nothing is sent. */
	struct iovec holes[] = {{buf, 512}, {buf + 2048, size - 512}};
	set(&ctx, &queue, again, &chain);
	EXPECT(dev->be.async.cmd_iov(&ctx, holes, 2, size, NULL, 0), -EINVAL);
	EXPECT(queue.base.outstanding, 0);
	EXPECT(chain.failed, 0);
	EXPECT(dev->be.async.term(&queue), 0);
}

static void interrupts(struct xnvme_dev *dev, char *buf)
{
	struct chain chain = {.buf = buf};
	struct xnvme_queue queue;
	struct xnvme_cmd_ctx ctx = context(dev, XNVME_SPEC_NVM_OPC_READ, 0, block_size);

	queue_init(&queue, dev, 4);
	set(&ctx, &queue, again, &chain);
	EXPECT(dev->be.async.cmd_io(&ctx, buf, block_size, NULL, 0), 0);
	EXPECT(dev->be.async.get_completion_fd(&queue), -EBUSY);
	EXPECT(dev->be.async.wait(&queue), 1);
	int fd = dev->be.async.get_completion_fd(&queue);
	TRUE(fd >= 0);
	EXPECT(dev->be.async.get_completion_fd(&queue), fd);
	/* It is an eventfd, and blocks its reader. The submission has rung: no poke is needed before the event. */
	struct pollfd event = {.fd = fd, .events = POLLIN};
	struct iovec piece = {buf, block_size};
	for (int i = 0; i < 50; i++) {
		uint64_t events = 0;
		EXPECT(i % 2 ? dev->be.async.cmd_iov(&ctx, &piece, 1, block_size, NULL, 0)
			     : dev->be.async.cmd_io(&ctx, buf, block_size, NULL, 0),
		       0);
		do {
			EXPECT(poll(&event, 1, 30000), 1);
			EXPECT(read(fd, &events, sizeof(events)), sizeof(events));
			TRUE(events >= 1);
		} while (dev->be.async.poke(&queue, 0) == 0);
	}
	EXPECT(chain.called, 51);
	EXPECT(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	EXPECT(dev->be.async.term(&queue), 0);
}

/* A controller that another backend has opened comes in the same word. */
static void foreign_controller(struct xnvme_dev *dev)
{
	struct xnvme_dev other = *dev;
	uint64_t theirs[32] = {0};
	void *ctrlr = theirs;

	memcpy(other.be.state, &ctrlr, sizeof(ctrlr));
	EXPECT(other.be.dev.dev_open(&other), -EBUSY);
	ctrlr = NULL;
	memcpy(other.be.state, &ctrlr, sizeof(ctrlr));
	EXPECT(other.be.dev.dev_open(&other), -EINVAL);
}

int main(int argc, char **argv)
{
	static struct xnvme_dev first, second, other, none;
	void *ctrlr, *other_ctrlr;

	if (argc != 4)
		return 2;
	block_size = (uint32_t)atoi(argv[3]);
	/* A URI that is none. */
	snprintf(none.ident.uri, sizeof(none.ident.uri), "vfio-user:/nowhere");
	TRUE(g_xnvme_be_upcie_rs.dev->ctrlr_init(&none) == NULL && errno == ENODEV);

	dev_init(&first, argv[1], 1, NULL);
	EXPECT(first.ident.csi, XNVME_SPEC_CSI_NVM);
	memcpy(&ctrlr, first.be.state, sizeof(ctrlr));
	/* Namespaces share their controller. */
	dev_init(&second, argv[1], 2, ctrlr);
	char *buf = first.be.mem.buf_alloc(&first, 1 << 18, NULL);
	TRUE(buf != NULL);
	/* A controller of its own, which came after the memory. */
	dev_init(&other, argv[2], 1, NULL);
	memcpy(&other_ctrlr, other.be.state, sizeof(other_ctrlr));
	TRUE(other_ctrlr != ctrlr);

	sync_round_trip(&first, buf, buf + 65536, 65536, 1);
	sync_round_trip(&other, buf, buf + 65536, 65536, 2);
	queues(&first, buf);
	queues(&other, buf);
	vectors(&first, buf, buf + 65536);
	interrupts(&first, buf);
	foreign_controller(&first);

	first.be.mem.buf_free(&first, buf);
	first.be.dev.dev_close(&first);
	second.be.dev.dev_close(&second);
	other.be.dev.dev_close(&other);
	EXPECT(g_xnvme_be_upcie_rs.dev->ctrlr_term(ctrlr), 0);
	EXPECT(g_xnvme_be_upcie_rs.dev->ctrlr_term(other_ctrlr), 0);
	TRUE(upcie_rs_heap() == NULL);
	/* And all of it once more. */
	dev_init(&first, argv[1], 0, NULL);
	memcpy(&ctrlr, first.be.state, sizeof(ctrlr));
	EXPECT(g_xnvme_be_upcie_rs.dev->ctrlr_term(ctrlr), 0);
	puts("contract: ok");
	return 0;
}
