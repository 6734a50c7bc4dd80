/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Reads at a queue depth: batch [ADDRESS [READS]]. Each completion submits the next read from inside the callback, and one
 * doorbell is written for all that a poll has found.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* The completion queue entry. */
struct entry {
	uint32_t result[2];
	uint16_t sq_head, sq_id, id, status;
};

struct run {
	upcie_queue *queue;
	struct command read;
	uint64_t left, done, failed;
	char *buffers[DEPTH];
};

static int submit(struct run *run, char *buffer)
{
	run->read.block = (run->read.block + 8) % 1024;
	run->left--;
	return upcie_submit(run->queue, &run->read, buffer, 4096, NULL, 0, buffer);
}

static void done(void *user, const void *cqe, void *arg)
{
	const struct entry *entry = cqe;
	struct run *run = arg;

	run->done++;
	/* Bits 15:1 are the status, bit 0 is the phase tag. */
	if (entry->status >> 1)
		run->failed++;
	if (run->left && submit(run, user) < 0) {
		fprintf(stderr, "submit: %s\n", upcie_last_error());
		exit(1);
	}
}

int main(int argc, char **argv)
{
	const char *address = argc > 1 ? argv[1] : "emu:size=16M,lba=512";
	struct upcie_queue_opts opts = {.size = sizeof(opts), .depth = DEPTH + 1};
	struct run run = {.read = {.opcode = 0x02, .nsid = 1, .blocks_less_1 = 0}};
	upcie_heap *heap;
	upcie_ctrlr *ctrlr;
	uint32_t identify[16] = {0x06, 1};
	uint64_t reads = argc > 2 ? strtoull(argv[2], NULL, 10) : 10000;
	int failed = 0;

	if (upcie_heap_create(NULL, &heap) < 0 || upcie_open(heap, address, NULL, &ctrlr) < 0 ||
	    upcie_queue_create(ctrlr, &opts, &run.queue) < 0) {
		fprintf(stderr, "%s\n", upcie_last_error());
		return 1;
	}
	/* 4096 bytes are so many blocks. */
	unsigned char *data = upcie_alloc(heap, 4096);
	if (!data || upcie_admin(ctrlr, identify, data, 4096, NULL, 0, NULL) < 0) {
		fprintf(stderr, "%s\n", upcie_last_error());
		return 1;
	}
	run.read.blocks_less_1 = (uint16_t)((4096 >> data[128 + 4 * (data[26] & 15) + 2]) - 1);

	run.left = reads;
	for (int i = 0; i < DEPTH && run.left; i++) {
		run.buffers[i] = upcie_alloc(heap, 4096);
		if (!run.buffers[i] || submit(&run, run.buffers[i]) < 0)
			failed = 1;
	}
	while (!failed && run.done < reads) {
		failed = upcie_ring(run.queue) < 0 || upcie_poll(run.queue, 0, done, &run) < 0;
	}
	if (failed)
		fprintf(stderr, "%s\n", upcie_last_error());
	printf("%" PRIu64 " reads, %" PRIu64 " failed\n", run.done, run.failed);

	if (upcie_queue_delete(run.queue) < 0 || upcie_close(ctrlr) < 0 || upcie_heap_destroy(heap) < 0)
		fprintf(stderr, "%s\n", upcie_last_error());
	return failed || run.failed;
}
