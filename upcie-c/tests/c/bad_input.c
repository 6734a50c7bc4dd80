/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Every call with NULL, with closed and foreign handles, and with lengths that overflow: one error each. */
#include "check.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void ignore(void *user, const void *cqe, void *arg)
{
	(void)user, (void)cqe, (void)arg;
}

/* Every call that takes a handle of a heap, a controller or a queue, with handles that are none. */
static void handles(void *heap, void *ctrlr, void *queue)
{
	struct command flush = {.nsid = 1};
	struct upcie_info info = {.size = sizeof(info)};
	upcie_ctrlr *opened;
	upcie_queue *made;
	uint64_t iova;
	void *at;
	size_t size;

	EXPECT(upcie_heap_destroy(heap), -EBADF);
	errno = 0;
	TRUE(upcie_alloc(heap, 4096) == NULL && errno == EBADF);
	TRUE(upcie_realloc(heap, NULL, 4096) == NULL);
	EXPECT(upcie_free(heap, &iova), -EBADF);
	EXPECT(upcie_map(heap, &iova, 4096), -EBADF);
	EXPECT(upcie_unmap(heap, &iova), -EBADF);
	EXPECT(upcie_import_fd(heap, 0, &at, &size), -EBADF);
	EXPECT(upcie_open(heap, "emu", NULL, &opened), -EBADF);
	EXPECT(upcie_iova(ctrlr, &iova, 8, &iova), -EBADF);
	EXPECT(upcie_close(ctrlr), -EBADF);
	EXPECT(upcie_info(ctrlr, &info), -EBADF);
	EXPECT(upcie_regs(ctrlr, &iova, 0, 8), -EBADF);
	EXPECT(upcie_reset(ctrlr, 0), -EBADF);
	EXPECT(upcie_rescan(ctrlr, NULL, 0, &size), -EBADF);
	EXPECT(upcie_admin(ctrlr, &flush, NULL, 0, NULL, 0, NULL), -EBADF);
	EXPECT(upcie_io(ctrlr, &flush, NULL, 0, NULL, 0, NULL), -EBADF);
	EXPECT(upcie_iov(ctrlr, &flush, NULL, 0, NULL, 0, NULL), -EBADF);
	EXPECT(upcie_queue_create(ctrlr, NULL, &made), -EBADF);
	EXPECT(upcie_queue_delete(queue), -EBADF);
	EXPECT(upcie_submit(queue, &flush, NULL, 0, NULL, 0, NULL), -EBADF);
	EXPECT(upcie_submitv(queue, &flush, NULL, 0, NULL, 0, NULL), -EBADF);
	EXPECT(upcie_submit_many(queue, NULL, 1), -EBADF);
	EXPECT(upcie_reap(queue, NULL, 1), -EBADF);
	EXPECT(upcie_ring(queue), -EBADF);
	EXPECT(upcie_poll(queue, 0, ignore, NULL), -EBADF);
	EXPECT(upcie_in_flight(queue), -EBADF);
	EXPECT(upcie_wait(queue, 0), -EBADF);
	EXPECT(upcie_fd(queue), -EBADF);
	EXPECT(upcie_arm(queue), -EBADF);
	FAILS(upcie_recover(queue, ignore, NULL), EBADF, "not a handle");
}

static void pointers(upcie_heap *heap, upcie_ctrlr *ctrlr, upcie_queue *queue)
{
	struct command read = transfer(2, 0, 512);
	char stack[4096];
	char *buffer = upcie_alloc(heap, 8192);
	struct iovec over[] = {{buffer, SIZE_MAX}, {buffer, 512}}, outside = {stack, 512};
	struct entry entry;
	upcie_ctrlr *opened;
	upcie_heap *other;
	size_t size;
	uint64_t iova;

	TRUE(buffer != NULL);
	FAILS(upcie_heap_create(NULL, NULL), EINVAL, "heap is NULL");
	FAILS(upcie_scan(NULL, NULL), EINVAL, "fn is NULL");
	FAILS(upcie_open(heap, NULL, NULL, &opened), EINVAL, "address is NULL");
	FAILS(upcie_open(heap, "emu", NULL, NULL), EINVAL, "ctrlr is NULL");
	FAILS(upcie_open(heap, "emu:colour=red", NULL, &opened), EINVAL, "colour");
	FAILS(upcie_open(heap, "vfio-user:/nowhere", NULL, &opened), ENODEV, "/nowhere");
	FAILS(upcie_info(ctrlr, NULL), EINVAL, "info is NULL");
	FAILS(upcie_regs(ctrlr, NULL, 0, 8), EINVAL, "dst is NULL");
	FAILS(upcie_regs(ctrlr, stack, 2, 4), EINVAL, "by 4 bytes");
	FAILS(upcie_regs(ctrlr, stack, SIZE_MAX - 3, 8), EINVAL, "by 4 bytes");
	TRUE(upcie_regs(ctrlr, stack, 1 << 30, 4) < 0);
	FAILS(upcie_reset(ctrlr, 7), EINVAL, "no kind");
	FAILS(upcie_iova(ctrlr, buffer, 16, NULL), EINVAL, "iova is NULL");
	FAILS(upcie_iova(ctrlr, NULL, 16, &iova), EINVAL, "NULL");
	FAILS(upcie_iova(ctrlr, stack, 16, &iova), EFAULT, "heap");
	FAILS(upcie_iova(ctrlr, buffer, SIZE_MAX, &iova), EFAULT, "beyond");
	FAILS(upcie_iova(ctrlr, buffer, (size_t)1 << 40, &iova), EFAULT, "heap");

	/* Commands. */
	FAILS(upcie_admin(ctrlr, NULL, NULL, 0, NULL, 0, NULL), EINVAL, "cmd is NULL");
	FAILS(upcie_io(ctrlr, NULL, NULL, 0, NULL, 0, NULL), EINVAL, "cmd is NULL");
	FAILS(upcie_io(ctrlr, &read, NULL, 512, NULL, 0, NULL), EINVAL, "is NULL");
	FAILS(upcie_io(ctrlr, &read, stack, 512, NULL, 0, NULL), EFAULT, "heap");
	FAILS(upcie_io(ctrlr, &read, buffer, 512, stack, 8, NULL), EFAULT, "heap");
	FAILS(upcie_admin(ctrlr, &read, stack, 512, NULL, 0, NULL), EFAULT, "heap");
	FAILS(upcie_admin(ctrlr, &read, buffer, SIZE_MAX, NULL, 0, NULL), EFAULT, "beyond");
	FAILS(upcie_iov(ctrlr, &read, NULL, 1, NULL, 0, NULL), EINVAL, "iov is NULL");
	FAILS(upcie_iov(ctrlr, &read, over, 2, NULL, 0, NULL), EFAULT, "beyond");
	FAILS(upcie_iov(ctrlr, &read, over, SIZE_MAX, NULL, 0, NULL), EINVAL, "pieces");
	FAILS(upcie_iov(ctrlr, NULL, over, 1, NULL, 0, NULL), EINVAL, "cmd is NULL");
	FAILS(upcie_io(ctrlr, &read, buffer, SIZE_MAX, NULL, 0, NULL), EFAULT, "beyond");
	FAILS(upcie_io(ctrlr, &read, buffer, 512, buffer, SIZE_MAX, NULL), EFAULT, "beyond");
	FAILS(upcie_admin(ctrlr, &read, NULL, 512, NULL, 0, NULL), EINVAL, "data is NULL");
	FAILS(upcie_admin(ctrlr, &read, buffer, 512, buffer, SIZE_MAX, NULL), EFAULT, "beyond");
	struct command create = {.opcode = 0x05};
	FAILS(upcie_admin(ctrlr, &create, NULL, 0, NULL, 0, NULL), EPERM, "upcie_queue_create");
	struct command data_queue = {.opcode = 0x45};
	FAILS(upcie_admin(ctrlr, &data_queue, NULL, 0, NULL, 0, NULL), EPERM, "until the queue is deleted");

	FAILS(upcie_submit(queue, NULL, NULL, 0, NULL, 0, NULL), EINVAL, "cmd is NULL");
	FAILS(upcie_submit(queue, &read, NULL, 512, NULL, 0, NULL), EINVAL, "NULL");
	FAILS(upcie_submit(queue, &read, stack, 512, NULL, 0, NULL), EFAULT, "heap");
	FAILS(upcie_submit(queue, &read, (void *)1, 512, NULL, 0, NULL), EFAULT, "heap");
	FAILS(upcie_submit(queue, &read, (void *)~(uintptr_t)0, 1, NULL, 0, NULL), EFAULT, "");
	FAILS(upcie_submit(queue, &read, buffer, SIZE_MAX, NULL, 0, NULL), EFAULT, "beyond");
	FAILS(upcie_submit(queue, &read, buffer, (size_t)1 << 40, NULL, 0, NULL), EMSGSIZE, "max_transfer");
	FAILS(upcie_submit(queue, &read, buffer + 1, 512, NULL, 0, NULL), EINVAL, "multiple of 4");
	FAILS(upcie_submit(queue, &read, buffer, 512, buffer + 1, 8, NULL), EINVAL, "multiple of 4");
	FAILS(upcie_submit(queue, &read, buffer, 512, stack, 8, NULL), EFAULT, "heap");
	FAILS(upcie_submit(queue, &read, buffer, 512, NULL, 8, NULL), EINVAL, "NULL");
	FAILS(upcie_submitv(queue, &read, over, 2, NULL, 0, NULL), EFAULT, "beyond");
	FAILS(upcie_submitv(queue, &read, &outside, 1, NULL, 0, NULL), EFAULT, "heap");
	FAILS(upcie_submitv(queue, &read, over, SIZE_MAX, NULL, 0, NULL), EINVAL, "pieces");
	FAILS(upcie_submit(queue, &read, buffer, 512, buffer, SIZE_MAX, NULL), EFAULT, "beyond");
	FAILS(upcie_submitv(queue, &read, NULL, 1, NULL, 0, NULL), EINVAL, "iov is NULL");
	FAILS(upcie_submitv(queue, &read, over + 1, 1, buffer, SIZE_MAX, NULL), EFAULT, "beyond");
	FAILS(upcie_submitv(queue, NULL, over + 1, 1, NULL, 0, NULL), EINVAL, "cmd is NULL");
	struct upcie_request request = {.data = buffer, .data_size = SIZE_MAX};
	struct upcie_completion completion;
	memcpy(request.cmd, &read, sizeof(read));
	FAILS(upcie_submit_many(queue, &request, SIZE_MAX), EMSGSIZE, "max_transfer");
	request.data = (void *)~(uintptr_t)0, request.data_size = 1;
	FAILS(upcie_submit_many(queue, &request, 1), EFAULT, "heap");
	request.data = NULL, request.data_size = 512;
	FAILS(upcie_submit_many(queue, &request, 1), EFAULT, "heap");
	FAILS(upcie_submit_many(queue, (void *)((char *)&request + 4), 1), EINVAL, "aligned");
	FAILS(upcie_reap(queue, (void *)((char *)&completion + 4), 1), EINVAL, "aligned");
	FAILS(upcie_reap(queue, NULL, SIZE_MAX), EINVAL, "completions is NULL");
	FAILS(upcie_poll(queue, 0, NULL, NULL), EINVAL, "fn is NULL");
	FAILS(upcie_fd(queue), EINVAL, "INTERRUPT");
	FAILS(upcie_arm(queue), EINVAL, "INTERRUPT");
	FAILS(upcie_recover(queue, NULL, NULL), EINVAL, "fn is NULL");
	EXPECT(upcie_in_flight(queue), 0);
	/* None of these has left anything behind: the queue works. */
	EXPECT(upcie_submit(queue, &read, buffer, 512, NULL, 0, NULL), 0);
	finish(queue, 1, ignore, NULL);
	EXPECT(upcie_io(ctrlr, &read, buffer, 512, NULL, 0, &entry), 0);

	/* Options. */
	struct upcie_opts opened_by = {.size = 4};
	struct upcie_info info = {.size = 0};
	FAILS(upcie_open(heap, "emu", &opened_by, &opened), EINVAL, "sizeof");
	FAILS(upcie_info(ctrlr, &info), EINVAL, "sizeof");
	struct upcie_queue_opts depth = {.size = sizeof(depth), .depth = 1};
	upcie_queue *made;
	FAILS(upcie_queue_create(ctrlr, &depth, &made), EINVAL, "1 entries");
	FAILS(upcie_queue_create(ctrlr, NULL, NULL), EINVAL, "queue is NULL");
	depth.size = 0;
	FAILS(upcie_queue_create(ctrlr, &depth, &made), EINVAL, "sizeof");
	struct {
		struct upcie_heap_opts opts;
		uint64_t later;
	} newer = {{.size = sizeof(newer)}, 0};
	EXPECT(upcie_heap_create(&newer.opts, &other), 0);
	EXPECT(upcie_heap_destroy(other), 0);
	newer.later = 1;
	FAILS(upcie_heap_create(&newer.opts, &other), EINVAL, "doesn't know");
	newer.opts.size = sizeof(newer.opts);
	newer.opts.page_size = 5000;
	FAILS(upcie_heap_create(&newer.opts, &other), EINVAL, "5000");
	newer.opts.page_size = 0;
	newer.opts.bytes = UINT64_MAX;
	TRUE(upcie_heap_create(&newer.opts, &other) < 0);

	/* Beyond what the controller has. */
	info.size = sizeof(info);
	EXPECT(upcie_info(ctrlr, &info), 0);
	depth = (struct upcie_queue_opts){.size = sizeof(depth), .depth = info.max_depth + 1};
	FAILS(upcie_queue_create(ctrlr, &depth, &made), EINVAL, "entries");
	depth = (struct upcie_queue_opts){.size = sizeof(depth), .max_transfer = info.max_transfer + 1};
	FAILS(upcie_queue_create(ctrlr, &depth, &made), EINVAL, "at once");
	depth = (struct upcie_queue_opts){.size = sizeof(depth), .flags = UPCIE_QUEUE_INTERRUPT, .vector = 0xffff};
	FAILS(upcie_queue_create(ctrlr, &depth, &made), EINVAL, "vector 65535");

	/* Fields for later versions. */
	struct upcie_heap_opts of_heap = {.size = sizeof(of_heap), .reserved = 1};
	FAILS(upcie_heap_create(&of_heap, &other), EINVAL, "reserved field");
	opened_by.size = sizeof(opened_by);
	for (int i = 0; i < 3; i++) {
		memset(opened_by.reserved, 0, sizeof(opened_by.reserved));
		opened_by.reserved[i] = 1;
		FAILS(upcie_open(heap, "emu", &opened_by, &opened), EINVAL, "reserved field");
	}
	struct upcie_queue_opts bad[] = {
		{.size = sizeof(*bad), .reserved0 = 1},
		{.size = sizeof(*bad), .reserved = {1, 0}},
		{.size = sizeof(*bad), .reserved = {0, 1}},
		{.size = sizeof(*bad), .flags = 2},
	};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		FAILS(upcie_queue_create(ctrlr, &bad[i], &made), EINVAL, "reserved field");

	/* Memory. */
	TRUE(upcie_alloc(heap, 0) == NULL && errno == EINVAL);
	TRUE(upcie_alloc(heap, SIZE_MAX) == NULL && errno == ENOMEM);
	TRUE(upcie_alloc(heap, (size_t)1 << 46) == NULL);
	TRUE(upcie_realloc(heap, buffer, SIZE_MAX) == NULL);
	TRUE(upcie_realloc(heap, buffer, 0) == NULL && errno == EINVAL);
	TRUE(upcie_realloc(heap, stack, 16) == NULL && errno == EINVAL);
	EXPECT(upcie_free(heap, NULL), 0);
	FAILS(upcie_free(heap, stack), EINVAL, "no memory of this heap");
	FAILS(upcie_free(heap, buffer + 4096), EINVAL, "within the allocation");
	EXPECT(upcie_free(heap, buffer), 0);
	FAILS(upcie_free(heap, buffer), EINVAL, "freed before");
	TRUE(upcie_realloc(heap, buffer, 16) == NULL);
	FAILS(upcie_unmap(heap, stack), EINVAL, "mapped");
	FAILS(upcie_map(heap, NULL, 4096), EINVAL, "whole pages");
	FAILS(upcie_map(heap, (void *)4096, 4096), EFAULT, "not mapped");
	FAILS(upcie_map(heap, (void *)4096, (size_t)-4096), EINVAL, "whole pages");
	/* Under valgrind the stack is memory like any other. */
	if (!getenv("UPCIE_CHECKED"))
		FAILS(upcie_map(heap, (void *)((uintptr_t)stack & ~(uintptr_t)4095), 4096), ENOTSUP, "stack");
	FAILS(upcie_import_fd(heap, -1, (void **)&buffer, &size), EBADF, "descriptor");
	FAILS(upcie_import_fd(heap, 0, NULL, &size), EINVAL, "addr is NULL");
	FAILS(upcie_import_fd(heap, 0, (void **)&buffer, NULL), EINVAL, "size is NULL");
	int file = open("/dev/null", O_RDWR);
	TRUE(upcie_import_fd(heap, file, (void **)&buffer, &size) < 0);
	close(file);

	/* Open handles keep what they are made from. */
	FAILS(upcie_heap_destroy(heap), EBUSY, "close them first");
	FAILS(upcie_close(ctrlr), EBUSY, "delete them first");
}

static upcie_queue *shared_queue;

/* Every call of a queue, while another thread is in one. */
static void *other_thread(void *arg)
{
	struct command flush = {.nsid = 1};
	struct upcie_request request = {.data = NULL};
	struct upcie_completion completion;
	upcie_queue *queue = arg;

	memcpy(request.cmd, &flush, sizeof(flush));
	FAILS(upcie_submit(queue, &flush, NULL, 0, NULL, 0, NULL), EPERM, "another thread");
	FAILS(upcie_submitv(queue, &flush, NULL, 0, NULL, 0, NULL), EPERM, "another thread");
	FAILS(upcie_submit_many(queue, &request, 1), EPERM, "another thread");
	FAILS(upcie_ring(queue), EPERM, "another thread");
	FAILS(upcie_poll(queue, 0, ignore, NULL), EPERM, "another thread");
	FAILS(upcie_reap(queue, &completion, 1), EPERM, "another thread");
	FAILS(upcie_in_flight(queue), EPERM, "another thread");
	FAILS(upcie_wait(queue, 0), EPERM, "another thread");
	FAILS(upcie_fd(queue), EPERM, "another thread");
	FAILS(upcie_arm(queue), EPERM, "another thread");
	FAILS(upcie_recover(queue, ignore, NULL), EPERM, "another thread");
	FAILS(upcie_queue_delete(queue), EPERM, "another thread");
	return NULL;
}

static void in_callback(void *user, const void *cqe, void *arg)
{
	pthread_t thread;
	(void)user, (void)cqe, (void)arg;
	FAILS(upcie_queue_delete(shared_queue), EBUSY, "own poll");
	EXPECT(upcie_in_flight(shared_queue), 0);
	/* This thread is in a call on the queue, so that another one must not be. Each has its own last error. */
	if (getenv("UPCIE_DEBUG_BUILD"))
		TRUE(pthread_create(&thread, NULL, other_thread, shared_queue) == 0 && pthread_join(thread, NULL) == 0);
	TRUE(strstr(upcie_last_error(), "own poll") != NULL);
}

static void *move(void *queue)
{
	struct command flush = {.nsid = 1};
	EXPECT(upcie_submit(queue, &flush, NULL, 0, NULL, 0, NULL), 0);
	finish(queue, 1, ignore, NULL);
	return NULL;
}

struct deletion {
	pthread_barrier_t *start;
	upcie_queue *queue;
	int result;
};

static void *delete_queue(void *arg)
{
	struct deletion *deletion = arg;
	pthread_barrier_wait(deletion->start);
	deletion->result = upcie_queue_delete(deletion->queue);
	return NULL;
}

/* Of two threads that delete a queue one does, and the other one gets an error. */
static void deletions(upcie_ctrlr *ctrlr)
{
	pthread_barrier_t start;
	EXPECT(pthread_barrier_init(&start, NULL, 2), 0);
	for (int round = 0; round < 100; round++) {
		struct deletion two[2];
		pthread_t threads[2];
		upcie_queue *queue;
		EXPECT(upcie_queue_create(ctrlr, NULL, &queue), 0);
		for (int i = 0; i < 2; i++) {
			two[i] = (struct deletion){&start, queue, 1};
			EXPECT(pthread_create(&threads[i], NULL, delete_queue, &two[i]), 0);
		}
		for (int i = 0; i < 2; i++)
			EXPECT(pthread_join(threads[i], NULL), 0);
		/* A debug build says that the other thread is in a call. */
		int refused = two[two[0].result == 0].result;
		TRUE(two[0].result == 0 || two[1].result == 0);
		TRUE(refused == -EBADF || refused == -EPERM);
	}
	pthread_barrier_destroy(&start);
}

/* A child has none of the handles, and does no harm. */
static void forked(upcie_heap *heap, upcie_ctrlr *ctrlr, upcie_queue *queue)
{
	int status;
	pid_t child = fork();
	if (child == 0) {
		handles(heap, ctrlr, queue);
		handles(NULL, NULL, NULL);
		upcie_heap *own;
		upcie_ctrlr *emu;
		/* It may make its own. */
		EXPECT(upcie_heap_create(NULL, &own), 0);
		EXPECT(upcie_open(own, "emu:size=1M", NULL, &emu), 0);
		EXPECT(upcie_close(emu), 0);
		EXPECT(upcie_heap_destroy(own), 0);
		exit(0);
	}
	TRUE(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv)
{
	const char *address = argc > 1 ? argv[1] : "emu:size=16M";
	struct command flush = {.nsid = 1};
	upcie_heap *heap;
	upcie_ctrlr *ctrlr;
	upcie_queue *queue;
	pthread_t thread;
	char stack[64];

	EXPECT(strcmp(upcie_last_error(), ""), 0);
	handles(NULL, NULL, NULL);
	handles(stack, stack, stack);
	EXPECT(upcie_heap_create(NULL, &heap), 0);
	EXPECT(upcie_open(heap, address, NULL, &ctrlr), 0);
	EXPECT(upcie_queue_create(ctrlr, NULL, &queue), 0);
	/* Of another kind, and almost right. */
	handles(ctrlr, queue, heap);
	handles(queue, heap, ctrlr);
	handles((char *)heap + 1, (char *)ctrlr + 16, (char *)queue - 16);
	handles(NULL, NULL, NULL);
	pointers(heap, ctrlr, queue);

	/* A queue may move between threads, and be used by one at a time. */
	TRUE(pthread_create(&thread, NULL, move, queue) == 0 && pthread_join(thread, NULL) == 0);
	shared_queue = queue;
	EXPECT(upcie_submit(queue, &flush, NULL, 0, NULL, 0, NULL), 0);
	finish(queue, 1, in_callback, NULL);

	deletions(ctrlr);

	/* It leaks what its parent has: that is not looked for. */
	if (!getenv("UPCIE_CHECKED"))
		forked(heap, ctrlr, queue);
	EXPECT(upcie_submit(queue, &flush, NULL, 0, NULL, 0, NULL), 0);
	finish(queue, 1, ignore, NULL);

	EXPECT(upcie_queue_delete(queue), 0);
	EXPECT(upcie_queue_delete(queue), -EBADF);
	EXPECT(upcie_close(ctrlr), 0);
	EXPECT(upcie_close(ctrlr), -EBADF);
	EXPECT(upcie_heap_destroy(heap), 0);
	handles(heap, ctrlr, queue);
	puts("bad input: ok");
	return 0;
}
