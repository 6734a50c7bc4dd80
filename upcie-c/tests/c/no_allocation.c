/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Counts this thread's allocations in the calls of the I/O path: there are none. A poll that finds nothing may be the one that
 * looks at a silent controller, which is a message to an emulated one, so that those are left out.
 */
#include "check.h"

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *at, size_t size);
void *__libc_memalign(size_t align, size_t size);

static __thread long allocations;

void *malloc(size_t size)
{
	allocations++;
	return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	allocations++;
	return __libc_calloc(count, size);
}

void *realloc(void *at, size_t size)
{
	allocations++;
	return __libc_realloc(at, size);
}

int posix_memalign(void **at, size_t align, size_t size)
{
	allocations++;
	*at = __libc_memalign(align, size);
	return *at ? 0 : ENOMEM;
}

static struct command read_1, read_list;
static char *memory;

static void again(void *user, const void *cqe, void *arg)
{
	long *left = user;

	(void)cqe;
	if (--*left > 0)
		EXPECT(upcie_submit(arg, &read_1, memory, 4096, NULL, 0, user), 0);
}

static void ignore(void *user, const void *cqe, void *arg)
{
	(void)user, (void)cqe, (void)arg;
}

/* The call returns 0, and allocates nothing. */
#define NONE(call)                                      \
	do {                                            \
		long before_ = allocations;             \
		EXPECT(call, 0);                        \
		EXPECT(allocations - before_, 0);       \
	} while (0)

static void polled(int (*poll)(upcie_queue *, uint32_t, upcie_done, void *), upcie_queue *queue, upcie_done done, void *arg)
{
	long before = allocations;
	int count = poll(queue, 0, done, arg);

	TRUE(count >= 0);
	if (count > 0)
		EXPECT(allocations - before, 0);
}

int main(int argc, char **argv)
{
	struct upcie_completion completions[8];
	struct upcie_request requests[4];
	upcie_heap *heap;
	upcie_ctrlr *ctrlr;
	upcie_queue *queue;
	long left = 5000;

	EXPECT(upcie_heap_create(NULL, &heap), 0);
	EXPECT(upcie_open(heap, argc > 1 ? argv[1] : "emu", NULL, &ctrlr), 0);
	EXPECT(upcie_queue_create(ctrlr, NULL, &queue), 0);
	memory = upcie_alloc(heap, 1 << 20);
	TRUE(memory != NULL && allocations > 0);
	struct iovec pieces[] = {{memory, 4096}, {memory + 16384, 8192}, {memory + 4096, 4096}};
	read_1 = transfer(2, 0, 4096);
	read_list = transfer(2, 0, 65536);
	struct command read_pieces = transfer(2, 0, 16384);
	for (int i = 0; i < 4; i++) {
		requests[i].data = memory + i * 4096;
		requests[i].data_size = 4096;
		memcpy(requests[i].cmd, &read_1, 64);
	}

	NONE(upcie_submit(queue, &read_1, memory, 4096, NULL, 0, &left));
	while (left > 0) {
		NONE(upcie_ring(queue));
		polled(upcie_poll, queue, again, queue);
	}
	for (int i = 0; i < 100; i++) {
		NONE(upcie_submit(queue, &read_list, memory + 512, 65536, NULL, 0, NULL));
		NONE(upcie_submitv(queue, &read_pieces, pieces, 3, NULL, 0, NULL));
		NONE(upcie_ring(queue));
		while (upcie_in_flight(queue) > 0)
			polled(upcie_poll, queue, ignore, NULL);
		NONE(upcie_submit_many(queue, requests, 4) - 4);
		NONE(upcie_ring(queue));
		while (upcie_in_flight(queue) > 0) {
			long before = allocations;
			if (upcie_reap(queue, completions, 8) > 0)
				EXPECT(allocations - before, 0);
		}
	}
	EXPECT(upcie_queue_delete(queue), 0);
	EXPECT(upcie_close(ctrlr), 0);
	EXPECT(upcie_heap_destroy(heap), 0);
	puts("no allocation: ok");
	return 0;
}
