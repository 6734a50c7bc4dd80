/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Commands of a queue: pieces, lengths, lists, batches, repetitions, admin commands, resets. */
#include "transfer.h"
#include <sys/mman.h>
#include <unistd.h>

static void pieces(upcie_heap *heap, upcie_ctrlr *ctrlr, upcie_queue *queue)
{
	char *memory = upcie_alloc(heap, 1 << 20), *check = upcie_alloc(heap, 1 << 20);
	struct seen seen = {0, 0, 0};
	struct entry entry;

	/* Smaller than a page, side by side: they are one. */
	struct iovec small[] = {{memory, 512}, {memory + 512, 1024}, {memory + 1536, 2560}, {memory + 4096, 4096}};
	struct command write = transfer(1, 0, 8192), read = transfer(2, 0, 8192);
	pattern(memory, 8192, 5);
	EXPECT(upcie_submitv(queue, &write, small, 4, NULL, 0, NULL), 0);
	finish(queue, 1, count, &seen);
	EXPECT(upcie_io(ctrlr, &read, check, 8192, NULL, 0, &entry), 0);
	TRUE(has_pattern(check, 8192, 5));
	/* From everywhere, in whole pages: more than 512, and the second half first. */
	struct iovec pages[64];
	for (int i = 0; i < 64; i++) {
		pages[i].iov_base = memory + (size_t)((i * 29) % 64) * 8192;
		pages[i].iov_len = 4096;
		pattern(pages[i].iov_base, 4096, (unsigned)i);
	}
	write = transfer(1, 0, 64 * 4096), read = transfer(2, 0, 64 * 4096);
	EXPECT(upcie_submitv(queue, &write, pages, 64, NULL, 0, NULL), 0);
	finish(queue, 1, count, &seen);
	EXPECT(upcie_iov(ctrlr, &read, pages, 64, NULL, 0, NULL), 0);
	EXPECT(upcie_io(ctrlr, &read, check, 64 * 4096, NULL, 0, &entry), 0);
	for (int i = 0; i < 64; i++)
		TRUE(has_pattern(check + i * 4096, 4096, (unsigned)i) && has_pattern(pages[i].iov_base, 4096, (unsigned)i));
	/* The first piece begins in the middle of a page; all others are whole. */
	struct iovec middle[] = {{memory + 3584, 512}, {memory + 16384, 4096}, {memory + 8192, 512}};
	write = transfer(1, 0, 5120), read = transfer(2, 0, 5120);
	for (int i = 0; i < 3; i++)
		pattern(middle[i].iov_base, middle[i].iov_len, 40 + (unsigned)i);
	EXPECT(upcie_submitv(queue, &write, middle, 3, NULL, 0, NULL), 0);
	finish(queue, 1, count, &seen);
	EXPECT(upcie_io(ctrlr, &read, check, 5120, NULL, 0, &entry), 0);
	TRUE(has_pattern(check, 512, 40) && has_pattern(check + 512, 4096, 41) && has_pattern(check + 4608, 512, 42));
	/* Apart, and smaller than a page: PRPs can't name them. */
	struct iovec apart[] = {{memory, 512}, {memory + 8192, 512}};
	read = transfer(2, 0, 1024);
	FAILS(upcie_submitv(queue, &read, apart, 2, NULL, 0, NULL), EINVAL, "page's boundary");
	EXPECT(seen.failed, 0);
	EXPECT(upcie_free(heap, memory), 0);
	EXPECT(upcie_free(heap, check), 0);
}

static void lengths(upcie_heap *heap, upcie_queue *queue)
{
	static const size_t sizes[] = {512, 4096, 8192, 8704, 12288, 65536, 1 << 20};
	char *memory = upcie_alloc(heap, 2 << 20), *check = upcie_alloc(heap, 2 << 20);

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (unsigned offset = 0; offset < 8192; offset += 2052)
			round_trip(queue, memory + offset, sizes[i], check, i + offset);
	/* 1 MiB is what the controller takes. */
	struct command read = transfer(2, 0, 512);
	FAILS(upcie_submit(queue, &read, memory, (1 << 20) + 512, NULL, 0, NULL), EMSGSIZE, "max_transfer");
	EXPECT(upcie_free(heap, memory), 0);
	EXPECT(upcie_free(heap, check), 0);
}

static void depth(upcie_ctrlr *ctrlr)
{
	struct upcie_queue_opts opts = {.size = sizeof(opts), .depth = 5};
	struct command flush = {.nsid = 1};
	struct seen seen = {0, 0, 0};
	upcie_queue *queue;

	EXPECT(upcie_queue_create(ctrlr, &opts, &queue), 0);
	for (int round = 0; round < 20; round++) {
		for (uintptr_t i = 0; i < 4; i++)
			EXPECT(upcie_submit(queue, &flush, NULL, 0, NULL, 0, (void *)i), 0);
		FAILS(upcie_submit(queue, &flush, NULL, 0, NULL, 0, NULL), EBUSY, "full");
		EXPECT(upcie_ring(queue), 0);
		while (upcie_in_flight(queue) > 3)
			TRUE(upcie_poll(queue, 1, count, &seen) <= 1);
		finish(queue, 3, count, &seen);
	}
	EXPECT(seen.count, 80);
	EXPECT(seen.sum, 20 * 6);
	/* An opcode of no command set goes to the controller, which says no. */
	struct command odd = {.opcode = 0x7e, .nsid = 1};
	EXPECT(upcie_submit(queue, &odd, NULL, 0, NULL, 0, NULL), 0);
	finish(queue, 1, count, &seen);
	EXPECT(seen.failed, 1);
	/* Nothing comes. */
	EXPECT(upcie_wait(queue, 0), 0);
	EXPECT(upcie_wait(queue, 20), 0);
	EXPECT(upcie_queue_delete(queue), 0);
}

/* The least depth and the most that the specification has, each filled. */
static void extreme_depths(upcie_heap *heap)
{
	static const uint32_t depths[] = {2, 65536};
	struct command flush = {.nsid = 1};
	upcie_ctrlr *ctrlr;

	EXPECT(upcie_open(heap, "emu:size=1M,depth=65536,serial=DEEP", NULL, &ctrlr), 0);
	for (int i = 0; i < 2; i++) {
		struct upcie_queue_opts opts = {.size = sizeof(opts), .depth = depths[i], .max_transfer = 4096};
		struct seen seen = {0, 0, 0};
		upcie_queue *queue;
		int most = (int)depths[i] - 1;

		EXPECT(upcie_queue_create(ctrlr, &opts, &queue), 0);
		for (int round = 0; round < 2; round++) {
			for (int command = 0; command < most; command++)
				EXPECT(upcie_submit(queue, &flush, NULL, 0, NULL, 0, NULL), 0);
			FAILS(upcie_submit(queue, &flush, NULL, 0, NULL, 0, NULL), EBUSY, "full");
			EXPECT(upcie_in_flight(queue), most);
			finish(queue, most, count, &seen);
			EXPECT(upcie_in_flight(queue), 0);
		}
		TRUE(seen.count == 2 * most && seen.failed == 0);
		EXPECT(upcie_queue_delete(queue), 0);
	}
	EXPECT(upcie_close(ctrlr), 0);
}

/* The calls for many commands: plain ones, one with a list, one without data, and one that can't be. */
static void many(upcie_heap *heap, upcie_queue *queue)
{
	char *memory = upcie_alloc(heap, 1 << 20);
	struct upcie_request requests[6];
	struct upcie_completion completions[8];
	struct command read = transfer(2, 0, 4096), write = transfer(1, 8, 65536), flush = {.nsid = 1};
	uintptr_t sum = 0;

	memset(requests, 0, sizeof(requests));
	for (uintptr_t i = 0; i < 6; i++) {
		requests[i].data = memory + i * 8192;
		requests[i].data_size = 4096;
		requests[i].user = (void *)(i + 1);
		memcpy(requests[i].cmd, &read, 64);
	}
	pattern(memory + (1 << 19), 65536, 70);
	memcpy(requests[2].cmd, &write, 64);
	requests[2].data = memory + (1 << 19);
	requests[2].data_size = 65536;
	memcpy(requests[3].cmd, &flush, 64);
	requests[3].data_size = 0;
	requests[5].data = requests;
	EXPECT(upcie_submit_many(queue, requests, 6), 5);
	FAILS(upcie_submit_many(queue, requests + 5, 1), EFAULT, "heap");
	EXPECT(upcie_submit_many(queue, requests, 0), 0);
	FAILS(upcie_submit_many(queue, NULL, 1), EINVAL, "requests is NULL");
	FAILS(upcie_reap(queue, NULL, 1), EINVAL, "completions is NULL");
	FAILS(upcie_free(heap, memory), EBUSY, "in flight");
	EXPECT(upcie_reap(queue, completions, 8), 0);
	for (int left = 5; left > 0;) {
		EXPECT(upcie_wait(queue, 30000), 1);
		int found = upcie_reap(queue, completions, 2);
		TRUE(found >= 1 && found <= 2);
		for (int i = 0; i < found; i++) {
			EXPECT(completions[i].cqe[3] >> 17, 0);
			sum += (uintptr_t)completions[i].user;
		}
		left -= found;
	}
	EXPECT(sum, 15);
	one(queue, transfer(2, 8, 65536), memory, 65536);
	TRUE(has_pattern(memory, 65536, 70));
	EXPECT(upcie_free(heap, memory), 0);
}

/* A slot remembers its last data. The same data goes without a translation, and is checked all the same. */
static void again(upcie_heap *heap, upcie_queue *queue)
{
	struct command read = transfer(2, 0, 4096), write = transfer(1, 0, 4096), flush = {.nsid = 1};
	char *own = upcie_alloc(heap, 8192);
	struct seen seen = {0, 0, 0};

	for (unsigned i = 0; i < 4; i++) {
		pattern(own, 4096, i);
		one(queue, write, own, 4096);
		memset(own, 0, 4096);
		one(queue, read, own, 4096);
		TRUE(has_pattern(own, 4096, i));
	}
	/* Another length, and none at all, after the same address. */
	pattern(own, 8192, 9);
	one(queue, transfer(1, 0, 8192), own, 8192);
	memset(own, 0, 8192);
	one(queue, read, own, 4096);
	TRUE(has_pattern(own, 4096, 9) && own[4096] == 0);
	one(queue, transfer(2, 0, 8192), own, 8192);
	TRUE(has_pattern(own, 8192, 9));
	one(queue, flush, NULL, 0);
	one(queue, flush, NULL, 0);
	FAILS(upcie_submit(queue, &read, own + 1, 4096, NULL, 0, NULL), EINVAL, "multiple of 4");
	/* In flight by a second submission. */
	for (int i = 0; i < 2; i++) {
		EXPECT(upcie_submit(queue, &read, own, 4096, NULL, 0, NULL), 0);
		FAILS(upcie_free(heap, own), EBUSY, "in flight");
		finish(queue, 1, count, &seen);
	}
	/* Memory that is not the heap's any more. */
	int file = memfd_create("again", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	TRUE(file >= 0 && ftruncate(file, 4 << 20) == 0);
	for (int i = 0; i < 3; i++) {
		void *at;
		size_t size;
		EXPECT(upcie_import_fd(heap, file, &at, &size), 0);
		pattern(at, 4096, 20);
		one(queue, write, at, 4096);
		one(queue, read, at, 4096);
		EXPECT(upcie_submit(queue, &read, at, 4096, NULL, 0, NULL), 0);
		FAILS(upcie_unmap(heap, at), EBUSY, "in flight");
		finish(queue, 1, count, &seen);
		EXPECT(upcie_unmap(heap, at), 0);
		FAILS(upcie_submit(queue, &read, at, 4096, NULL, 0, NULL), EFAULT, "heap");
		FAILS(upcie_submit(queue, &read, at, 4096, NULL, 0, NULL), EFAULT, "heap");
		one(queue, read, own, 4096);
	}
	close(file);
	EXPECT(seen.failed, 0);
	EXPECT(upcie_free(heap, own), 0);
}

static void commands(upcie_heap *heap, upcie_ctrlr *ctrlr)
{
	char *data = upcie_alloc(heap, 4096);
	struct command command = identify(1);
	struct upcie_info info = {.size = sizeof(info)};
	struct entry entry;
	uint32_t ids[4] = {0, 0, 0, 0}, version;
	size_t found;

	EXPECT(upcie_info(ctrlr, &info), 0);
	EXPECT(upcie_admin(ctrlr, &command, data, 4096, NULL, 0, &entry), 0);
	TRUE(memcmp(data + 24, info.model, strlen(info.model)) == 0 && strlen(info.model) > 0);
	/* The entry is the controller's: the admin queue's id is 0, and each command moves its head on. */
	EXPECT(entry.sq_id, 0);
	EXPECT(entry.status >> 1, 0);
	struct entry later = {1, 1, 0xffff, 1, 0, 0xffff};
	struct command queues = {.opcode = 0x0a, .dword10 = 7};
	EXPECT(upcie_admin(ctrlr, &queues, NULL, 0, NULL, 0, &later), 0);
	TRUE(later.dword0 != 0 && later.dword1 == 0 && later.sq_id == 0);
	TRUE(later.sq_head == entry.sq_head + 1 || later.sq_head == 0);
	command = identify(0xff);
	FAILS(upcie_admin(ctrlr, &command, data, 4096, NULL, 0, &entry), EIO, "failed");
	TRUE(entry.status >> 1 != 0 && entry.sq_id == 0);
	TRUE(entry.sq_head == later.sq_head + 1 || entry.sq_head == 0);
	EXPECT(upcie_rescan(ctrlr, ids, 4, &found), 0);
	TRUE(found == 1 && ids[0] == 1);
	/* The namespace is detached and attached again (its data is a list of one controller): the controller is asked each time. */
	command = identify(1);
	EXPECT(upcie_admin(ctrlr, &command, data, 4096, NULL, 0, NULL), 0);
	memmove(data + 2, data + 78, 2);
	memset(data + 4, 0, 4092);
	data[0] = 1, data[1] = 0;
	for (uint32_t attach = 0; attach < 2; attach++) {
		command = (struct command){.opcode = 0x15, .nsid = 1, .dword10 = !attach};
		EXPECT(upcie_admin(ctrlr, &command, data, 4096, NULL, 0, NULL), 0);
		EXPECT(upcie_rescan(ctrlr, ids, 4, &found), 0);
		EXPECT(found, attach);
	}
	EXPECT(ids[0], 1);
	EXPECT(upcie_regs(ctrlr, &version, 8, 4), 0);
	EXPECT(version, info.version);
	EXPECT(upcie_free(heap, data), 0);
}

static void resets(upcie_heap *heap, upcie_ctrlr *ctrlr, upcie_queue *queue)
{
	char *memory = upcie_alloc(heap, 1 << 16);
	struct command read = transfer(2, 0, 4096);
	struct seen seen = {0, 0, 0};

	for (uintptr_t i = 1; i <= 3; i++)
		EXPECT(upcie_submit(queue, &read, memory + i * 4096, 4096, NULL, 0, (void *)i), 0);
	EXPECT(upcie_reset(ctrlr, UPCIE_RESET_CONTROLLER), 0);
	FAILS(upcie_ring(queue), ECONNRESET, "reset");
	FAILS(upcie_submit(queue, &read, memory, 4096, NULL, 0, NULL), ECONNRESET, "reset");
	FAILS(upcie_poll(queue, 0, count, &seen), ECONNRESET, "reset");
	FAILS(upcie_free(heap, memory), EBUSY, "in flight");
	/* All that was in flight comes back once. */
	EXPECT(upcie_recover(queue, count, &seen), 3);
	TRUE(seen.count == 3 && seen.failed == 3 && seen.sum == 6);
	one(queue, read, memory, 4096);
	EXPECT(upcie_io(ctrlr, &read, memory, 4096, NULL, 0, NULL), 0);
	for (int kind = UPCIE_RESET_SUBSYSTEM; kind <= UPCIE_RESET_FUNCTION; kind++) {
		EXPECT(upcie_reset(ctrlr, kind), 0);
		EXPECT(upcie_recover(queue, count, &seen), 0);
		one(queue, read, memory, 4096);
		EXPECT(upcie_io(ctrlr, &read, memory, 4096, NULL, 0, NULL), 0);
	}
	/* A queue without commands takes none either, rather than into a ring that is gone. */
	struct upcie_request request = {.data = memory, .data_size = 4096};
	memcpy(request.cmd, &read, sizeof(read));
	for (int round = 0; round < 2; round++) {
		EXPECT(upcie_reset(ctrlr, UPCIE_RESET_CONTROLLER), 0);
		if (round)
			FAILS(upcie_submit_many(queue, &request, 1), ECONNRESET, "reset");
		FAILS(upcie_submit(queue, &read, memory, 4096, NULL, 0, NULL), ECONNRESET, "reset");
		EXPECT(upcie_recover(queue, count, &seen), 0);
		one(queue, read, memory, 4096);
	}
	EXPECT(seen.count, 3);
	EXPECT(upcie_free(heap, memory), 0);
}

int main(int argc, char **argv)
{
	const char *address = argc > 1 ? argv[1] : "emu:size=16M";
	upcie_heap *heap;
	upcie_ctrlr *ctrlr;
	upcie_queue *queue;

	EXPECT(upcie_heap_create(NULL, &heap), 0);
	EXPECT(upcie_open(heap, address, NULL, &ctrlr), 0);
	EXPECT(upcie_queue_create(ctrlr, NULL, &queue), 0);
	pieces(heap, ctrlr, queue);
	lengths(heap, queue);
	depth(ctrlr);
	extreme_depths(heap);
	many(heap, queue);
	again(heap, queue);
	commands(heap, ctrlr);
	resets(heap, ctrlr, queue);
	EXPECT(upcie_queue_delete(queue), 0);
	EXPECT(upcie_close(ctrlr), 0);
	EXPECT(upcie_heap_destroy(heap), 0);
	puts("transfers: ok");
	return 0;
}
