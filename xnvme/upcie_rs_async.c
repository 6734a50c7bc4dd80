/* SPDX-License-Identifier: BSD-3-Clause */
/* Queues. A submission rings no doorbell, unless the queue has a completion descriptor; poke and wait ring first. */
#include <time.h>

#include "upcie_rs.h"

/* Waits look at their deadline this often. */
#define SLICE_MS 100

static struct upcie_rs_queue *queue_of(struct xnvme_queue *queue)
{
	return (struct upcie_rs_queue *)(void *)queue;
}

static int create(struct upcie_rs_queue *queue, bool interrupts)
{
	static unsigned int turn;
	struct upcie_rs_ctrlr *ctrlr = upcie_rs_ctrlr_of(queue->base.dev);
	struct upcie_queue_opts opts = {.size = sizeof(opts), .depth = queue->base.capacity + 1};

	if (interrupts) {
		opts.flags = UPCIE_QUEUE_INTERRUPT;
		/* Vector 0 is the admin queue's, too. */
		if (ctrlr->vectors > 1)
			opts.vector = (uint16_t)(1 + __atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED) % (ctrlr->vectors - 1u));
	}
	return upcie_queue_create(ctrlr->handle, &opts, &queue->handle);
}

static int init(struct xnvme_queue *queue, int opts)
{
	(void)opts;
	queue_of(queue)->events = NULL;
	return create(queue_of(queue), false);
}

static int term(struct xnvme_queue *queue)
{
	struct upcie_rs_queue *ours = queue_of(queue);
	upcie_queue *handle = ours->handle;

	upcie_rs_events_stop(ours->events);
	ours->events = NULL;
	ours->handle = NULL;
	return upcie_queue_delete(handle);
}

/* Calls the command's function. The slot is free then, so that it may submit again. */
static void done(void *user, const void *cqe, void *arg)
{
	struct upcie_rs_queue *queue = arg;
	struct xnvme_cmd_ctx *ctx = user;

	memcpy(&ctx->cpl, cqe, sizeof(ctx->cpl));
	queue->base.outstanding--;
	ctx->async.cb(ctx, ctx->async.cb_arg);
}

/*
 * Lets a queue take commands after a reset, if it had none. Otherwise a poke gives these back first: the program hears that the
 * queue is full.
 */
static int bring_back(struct upcie_rs_queue *queue)
{
	if (queue->base.outstanding)
		return -EBUSY;
	int result = upcie_recover(queue->handle, done, queue);
	if (result >= 0 && queue->events)
		result = upcie_arm(queue->handle);
	return result < 0 ? result : 0;
}

/*
 * Counts a command. A program that has a descriptor sleeps on it after it has submitted, and does not poke before. If the doorbell
 * can't be written, after a reset, the next poke says so: the command is in the queue.
 */
static int submitted(struct upcie_rs_queue *queue)
{
	queue->base.outstanding++;
	if (queue->events)
		upcie_ring(queue->handle);
	return 0;
}

static int cmd_io(struct xnvme_cmd_ctx *ctx, void *dbuf, size_t dbuf_nbytes, void *mbuf, size_t mbuf_nbytes)
{
	struct upcie_rs_queue *queue = queue_of(ctx->async.queue);

	upcie_rs_translate(ctx);
	size_t nbytes = upcie_rs_nbytes(ctx, dbuf, dbuf_nbytes), meta_nbytes = upcie_rs_mbytes(ctx, mbuf, mbuf_nbytes);
	int err = upcie_submit(queue->handle, &ctx->cmd, dbuf, nbytes, mbuf, meta_nbytes, ctx);
	if (err == -ECONNRESET && !(err = bring_back(queue)))
		err = upcie_submit(queue->handle, &ctx->cmd, dbuf, nbytes, mbuf, meta_nbytes, ctx);
	return err ? err : submitted(queue);
}

static int cmd_iov(struct xnvme_cmd_ctx *ctx, struct iovec *dvec, size_t dvec_cnt, size_t dvec_nbytes, void *mbuf,
		   size_t mbuf_nbytes)
{
	struct upcie_rs_queue *queue = queue_of(ctx->async.queue);

	(void)dvec_nbytes;
	upcie_rs_translate(ctx);
	size_t meta_nbytes = upcie_rs_mbytes(ctx, mbuf, mbuf_nbytes);
	int err = upcie_submitv(queue->handle, &ctx->cmd, dvec, dvec_cnt, mbuf, meta_nbytes, ctx);
	if (err == -ECONNRESET && !(err = bring_back(queue)))
		err = upcie_submitv(queue->handle, &ctx->cmd, dvec, dvec_cnt, mbuf, meta_nbytes, ctx);
	return err ? err : submitted(queue);
}

/* Looks at the controller. What has completed meanwhile is for the next poke. */
static int look(upcie_queue *handle)
{
	int result = upcie_wait(handle, 0);

	return result < 0 ? result : 0;
}

static int poke(struct xnvme_queue *queue, uint32_t max)
{
	struct upcie_rs_queue *ours = queue_of(queue);
	/* A program that sleeps on the descriptor pokes after each event: this asks for the next one, and rings. */
	int result = ours->events ? upcie_arm(ours->handle) : upcie_ring(ours->handle);

	if (!result)
		result = upcie_poll(ours->handle, max ? max : queue->base.outstanding, done, ours);
	/* A program that sleeps pokes too seldom for the looks at the controller that polls have. */
	if (!result && ours->events && queue->base.outstanding)
		result = look(ours->handle);
	/* After a reset every command comes back, as aborted, and the queue goes on. */
	return result == -ECONNRESET ? upcie_recover(ours->handle, done, ours) : result;
}

static uint64_t now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

/* Takes all outstanding commands. Each gets as long as a synchronous one. */
static int wait_all(struct xnvme_queue *queue)
{
	struct upcie_rs_queue *ours = queue_of(queue);
	uint32_t timeout_ms = upcie_rs_ctrlr_of(queue->base.dev)->timeout_ms;
	uint64_t since = now_ms();
	int count = 0;

	while (queue->base.outstanding) {
		int result = poke(queue, 0);
		if (result < 0)
			return result;
		if (result > 0) {
			count += result;
			since = now_ms();
			continue;
		}
		if (now_ms() - since > timeout_ms)
			return -ETIMEDOUT;
		result = upcie_wait(ours->handle, SLICE_MS);
		if (result < 0 && result != -ECONNRESET)
			return result;
	}
	return count;
}

/*
 * A queue without a descriptor raises no interrupts, which cost the controller and the host. So it gets some when a program
 * first asks, before it has submitted.
 */
static int get_completion_fd(struct xnvme_queue *queue)
{
	struct upcie_rs_queue *ours = queue_of(queue);

	if (!ours->events) {
		if (queue->base.outstanding)
			return -EBUSY;
		if (!upcie_rs_ctrlr_of(queue->base.dev)->vectors)
			return -ENOTSUP;
		int err = upcie_queue_delete(ours->handle);
		if (!err)
			err = create(ours, true);
		if (!err)
			err = upcie_arm(ours->handle);
		if (!err)
			err = upcie_rs_events_start(upcie_fd(ours->handle), &ours->events);
		if (err)
			return err;
	}
	return upcie_rs_events_fd(ours->events);
}

struct xnvme_be_async g_xnvme_be_upcie_rs_async = {
	.cmd_io = cmd_io,
	.cmd_iov = cmd_iov,
	.poke = poke,
	.wait = wait_all,
	.init = init,
	.term = term,
	.get_completion_fd = get_completion_fd,
	.id = "upcie-rs",
};
