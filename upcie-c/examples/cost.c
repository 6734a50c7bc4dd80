/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The calls' cost: cost TURNS [many]. A turn takes up to 32 completions, submits a read for each, and rings: by upcie_poll() and
 * upcie_submit() in its callback, or by upcie_reap() and upcie_submit_many(). cost.sh counts the instructions of a turn with
 * callgrind; the controller runs in another thread, and is not counted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <upcie.h>

#define DEPTH 32

struct command {
	uint8_t opcode, flags;
	uint16_t id;
	uint32_t nsid;
	uint32_t reserved[8];
	uint64_t block;
	uint16_t blocks_less_1, control;
	uint32_t rest[3];
};

static struct run {
	upcie_queue *queue;
	struct command read;
	uint64_t random, done, failed;
} run;

static inline uint64_t next_random(struct run *run)
{
	run->random ^= run->random << 13;
	run->random ^= run->random >> 7;
	run->random ^= run->random << 17;
	return run->random;
}

static void done(void *user, const void *cqe, void *arg)
{
	struct run *run = arg;

	run->done++;
	run->failed += ((const uint16_t *)cqe)[7] >> 1 != 0;
	run->read.block = next_random(run) & 0x3f8;
	if (upcie_submit(run->queue, &run->read, user, 4096, NULL, 0, user) < 0)
		abort();
}

__attribute__((noinline)) int turn_of_32(struct run *run)
{
	int count = upcie_poll(run->queue, 0, done, run);

	if (count < 0 || upcie_ring(run->queue) < 0)
		abort();
	return count;
}

static struct upcie_request requests[DEPTH];
static struct upcie_completion completions[DEPTH];

/* The same by the calls for many commands. */
__attribute__((noinline)) int many_of_32(struct run *run)
{
	int count = upcie_reap(run->queue, completions, DEPTH);

	if (count < 0)
		abort();
	for (int i = 0; i < count; i++) {
		uint64_t block = next_random(run) & 0x3f8;
		run->failed += completions[i].cqe[3] >> 17 != 0;
		requests[i].data = requests[i].user = completions[i].user;
		memcpy(&requests[i].cmd[10], &block, sizeof(block));
	}
	run->done += (uint64_t)count;
	if (upcie_submit_many(run->queue, requests, (size_t)count) != count || upcie_ring(run->queue) < 0)
		abort();
	return count;
}

int main(int argc, char **argv)
{
	struct upcie_queue_opts opts = {.size = sizeof(opts), .depth = 128};
	long turns = argc > 1 ? atol(argv[1]) : 100;
	upcie_heap *heap;
	upcie_ctrlr *ctrlr;

	if (upcie_heap_create(NULL, &heap) < 0 || upcie_open(heap, "emu:size=16M,null=true", NULL, &ctrlr) < 0 ||
	    upcie_queue_create(ctrlr, &opts, &run.queue) < 0) {
		fprintf(stderr, "%s\n", upcie_last_error());
		return 1;
	}
	run = (struct run){run.queue, {.opcode = 2, .nsid = 1, .blocks_less_1 = 7}, 88172645463325252u, 0, 0};
	for (int i = 0; i < DEPTH; i++) {
		requests[i].data_size = 4096;
		memcpy(requests[i].cmd, &run.read, sizeof(run.read));
		void *buffer = upcie_alloc(heap, 4096);
		if (!buffer || upcie_submit(run.queue, &run.read, buffer, 4096, NULL, 0, buffer) < 0)
			abort();
	}
	upcie_ring(run.queue);
	for (long i = 0; i < turns; i++) {
		/* All 32 have completed by then, mostly. */
		usleep(20000);
		if (argc > 2)
			many_of_32(&run);
		else
			turn_of_32(&run);
	}
	printf("%llu\n", (unsigned long long)run.done);
	if (upcie_queue_delete(run.queue) < 0 || upcie_close(ctrlr) < 0 || upcie_heap_destroy(heap) < 0)
		fprintf(stderr, "%s\n", upcie_last_error());
	return run.failed != 0;
}
