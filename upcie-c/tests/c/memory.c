/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory: one heap over several controllers, memory of the program's, and memory that a command in flight uses. */
#include "transfer.h"
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

static void several_controllers(upcie_heap *heap, upcie_queue *first)
{
	upcie_ctrlr *other;
	upcie_queue *queue;
	char *early = upcie_alloc(heap, 1 << 16), *late;
	uint64_t iova;

	EXPECT(upcie_open(heap, "emu:size=4M,serial=OTHER", NULL, &other), 0);
	EXPECT(upcie_queue_create(other, NULL, &queue), 0);
	/* Memory from before and after the second controller came: both reach both. */
	late = upcie_alloc(heap, 8 << 20);
	TRUE(early && late);
	EXPECT(upcie_iova(other, late, 8 << 20, &iova), 0);
	round_trip(first, early, 1 << 16, late, 1);
	round_trip(queue, early, 1 << 16, late, 2);
	round_trip(first, late + 4096, 1 << 16, early, 3);
	EXPECT(upcie_queue_delete(queue), 0);
	EXPECT(upcie_close(other), 0);
	round_trip(first, early, 1 << 16, late, 4);
	EXPECT(upcie_free(heap, early), 0);
	EXPECT(upcie_free(heap, late), 0);
}

static void mapped(upcie_heap *heap, upcie_queue *queue)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), size = 64 * page;
	char *check = upcie_alloc(heap, size), *at, *imported;
	int file = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	size_t length;

	/* A part of a memory file that the program has mapped. */
	TRUE(file >= 0 && ftruncate(file, (off_t)size) == 0);
	at = mmap(NULL, size / 2, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)size / 4);
	TRUE(at != MAP_FAILED);
	EXPECT(upcie_map(heap, at, size / 2), 0);
	FAILS(upcie_map(heap, at + page, page), EEXIST, "already");
	FAILS(upcie_free(heap, at), EINVAL, "upcie_unmap");
	round_trip(queue, at, size / 2, check, 7);
	round_trip(queue, at + page + 512, 2 * page, check, 8);
	/* The same file, imported. */
	EXPECT(upcie_import_fd(heap, file, (void **)&imported, &length), 0);
	EXPECT(length, size);
	TRUE(memcmp(imported + size / 4, at, size / 2) == 0);
	round_trip(queue, imported, size, check, 9);
	EXPECT(upcie_unmap(heap, at), 0);
	FAILS(upcie_unmap(heap, at), EINVAL, "before");
	struct command read = transfer(2, 0, 512);
	FAILS(upcie_submit(queue, &read, at, 512, NULL, 0, NULL), EFAULT, "heap");
	EXPECT(upcie_unmap(heap, imported), 0);
	munmap(at, size / 2);
	close(file);

	/* Anonymous memory keeps its bytes, before and after. */
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TRUE(at != MAP_FAILED);
	pattern(at, size, 10);
	EXPECT(upcie_map(heap, at + page, size - 2 * page), 0);
	TRUE(has_pattern(at, size, 10));
	round_trip(queue, at + page, size - 2 * page, check, 11);
	EXPECT(upcie_unmap(heap, at + page), 0);
	TRUE(has_pattern(at + page, size - 2 * page, 11) && has_pattern(at, page, 10));
	munmap(at, size);
	EXPECT(upcie_free(heap, check), 0);
}

static void in_flight(upcie_heap *heap, upcie_ctrlr *ctrlr, upcie_queue *queue)
{
	char *memory = upcie_alloc(heap, 1 << 16), *at;
	struct command read = transfer(2, 0, 4096), long_read = transfer(2, 0, 16384);
	struct seen seen = {0, 0, 0};
	struct iovec pieces[] = {{memory + 32768, 4096}, {memory + 40960, 4096}, {memory + 8192, 4096}, {memory, 4096}};
	upcie_queue *other;

	at = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	EXPECT(upcie_map(heap, at, 1 << 16), 0);
	/* Nothing is given up, though the controller does not even know the commands: they were not rung. */
	EXPECT(upcie_submit(queue, &read, memory + 4096, 4096, NULL, 0, NULL), 0);
	FAILS(upcie_free(heap, memory), EBUSY, "in flight");
	TRUE(upcie_realloc(heap, memory, 1 << 17) == NULL && errno == EBUSY);
	EXPECT(upcie_submit(queue, &read, at + 8192, 4096, NULL, 0, NULL), 0);
	FAILS(upcie_unmap(heap, at), EBUSY, "in flight");
	/* No completion comes before the doorbell. */
	EXPECT(upcie_poll(queue, 0, count, &seen), 0);
	EXPECT(upcie_in_flight(queue), 2);
	finish(queue, 2, count, &seen);
	EXPECT(upcie_submitv(queue, &long_read, pieces, 4, NULL, 0, NULL), 0);
	FAILS(upcie_free(heap, memory), EBUSY, "in flight");
	finish(queue, 1, count, &seen);
	EXPECT(seen.failed, 0);
	EXPECT(upcie_unmap(heap, at), 0);
	munmap(at, 1 << 16);
	/* A queue that is deleted lets go of its memory. */
	EXPECT(upcie_queue_create(ctrlr, NULL, &other), 0);
	EXPECT(upcie_submit(other, &read, memory, 4096, NULL, 0, NULL), 0);
	EXPECT(upcie_ring(other), 0);
	EXPECT(upcie_queue_delete(other), 0);
	EXPECT(upcie_free(heap, memory), 0);
}

/* A reallocation in one thread. It zeroes so many bytes, in which another thread submits a command. */
#define LONG_TO_ZERO ((size_t)32 << 20)

struct reallocation {
	upcie_heap *heap;
	void *old, *made;
	int error;
};

static void *reallocate(void *arg)
{
	struct reallocation *call = arg;

	call->made = upcie_realloc(call->heap, call->old, LONG_TO_ZERO);
	call->error = errno;
	return NULL;
}

/* A command that comes to use the old memory during upcie_realloc() keeps it from being freed: the new memory is freed. */
static void contended(upcie_heap *heap, upcie_queue *queue)
{
	struct command read = transfer(2, 0, 4096);
	struct reallocation call = {.heap = heap};
	struct seen seen = {0, 0, 0};
	int refused = 0;

	/* A submission that comes too late finds the old memory freed: then once more. */
	for (int round = 0; round < 100 && !refused; round++) {
		volatile char *next;
		pthread_t thread;

		call.old = upcie_alloc(heap, 4096);
		/* The first block that has room: the reallocation finds the same one. */
		next = upcie_alloc(heap, LONG_TO_ZERO);
		TRUE(call.old && next);
		next[0] = 1;
		EXPECT(upcie_free(heap, (void *)next), 0);
		TRUE(pthread_create(&thread, NULL, reallocate, &call) == 0);
		/* Once it zeroes, it has found that no command uses the old memory. */
		while (next[0])
			sched_yield();
		EXPECT(upcie_submit(queue, &read, call.old, 4096, NULL, 0, NULL), 0);
		TRUE(pthread_join(thread, NULL) == 0);
		refused = call.made == NULL;
		finish(queue, 1, count, &seen);
		if (!refused) {
			EXPECT(upcie_free(heap, call.made), 0);
			continue;
		}
		EXPECT(call.error, EBUSY);
		/* Its block is free again, and the old memory is still allocated. */
		call.made = upcie_alloc(heap, LONG_TO_ZERO);
		TRUE(call.made == (void *)next);
		EXPECT(upcie_free(heap, call.made), 0);
		EXPECT(upcie_free(heap, call.old), 0);
	}
	/* The scheduler decides whether a submission comes at the right time. */
	if (!refused)
		puts("memory: no submission came during a reallocation: that case was not tried");
	EXPECT(seen.failed, 0);
}

/* An admin command in one thread. */
struct asked {
	upcie_ctrlr *ctrlr;
	void *data;
	struct entry entry;
	int ended;
};

static void *ask(void *arg)
{
	struct asked *asked = arg;
	/* Directive Receive: the plan of faults delays it. */
	struct command command = {.opcode = 0x1a, .nsid = 1, .dword10 = 4096 / 4 - 1, .dword11 = 1};

	upcie_admin(asked->ctrlr, &command, asked->data, 4096, NULL, 0, &asked->entry);
	__atomic_store_n(&asked->ended, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* The data of an admin command stays in use until it was copied, whatever another thread does. */
static void admin_data(upcie_heap *heap, const char *slow)
{
	struct asked asked = {.data = upcie_alloc(heap, 4096)};
	int is_busy = 0;
	pthread_t thread;

	TRUE(asked.data != NULL);
	EXPECT(upcie_open(heap, slow, NULL, &asked.ctrlr), 0);
	EXPECT(pthread_create(&thread, NULL, ask, &asked), 0);
	/* A reallocation that fails in any case says whether the memory is in use. */
	while (!is_busy && !__atomic_load_n(&asked.ended, __ATOMIC_ACQUIRE)) {
		TRUE(upcie_realloc(heap, asked.data, SIZE_MAX) == NULL);
		is_busy = errno == EBUSY;
		TRUE(is_busy || errno == ENOMEM);
		sched_yield();
	}
	TRUE(is_busy);
	EXPECT(pthread_join(thread, NULL), 0);
	EXPECT(upcie_close(asked.ctrlr), 0);
	EXPECT(upcie_free(heap, asked.data), 0);
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
	several_controllers(heap, queue);
	mapped(heap, queue);
	in_flight(heap, ctrlr, queue);
	contended(heap, queue);
	if (argc > 2)
		admin_data(heap, argv[2]);
	EXPECT(upcie_queue_delete(queue), 0);
	EXPECT(upcie_close(ctrlr), 0);
	EXPECT(upcie_heap_destroy(heap), 0);
	puts("memory: ok");
	return 0;
}
