/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Memory of huge pages: files that the program imports and maps, and a heap of such pages, of each size of which pages are free.
 * The argument is the address of a controller. Prints the sizes that were tried.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "transfer.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

/* A memory file of one page, whose size is given by its logarithm; one in the mounted file system, or a memfd. */
static int huge_file(unsigned page, int is_mounted)
{
	const char *path = "/dev/hugepages/upcie-c-test";
	int file = is_mounted ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)
			      : memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB |
						       (page << MFD_HUGE_SHIFT));

	if (is_mounted && file >= 0)
		unlink(path);
	if (file >= 0 && ftruncate(file, (off_t)1 << page) < 0) {
		close(file);
		return -1;
	}
	return file;
}

/* The free pages of a size. */
static long free_pages(unsigned page)
{
	char path[128];
	long pages = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%lukB/free_hugepages", 1UL << (page - 10));
	file = fopen(path, "r");
	if (file && fscanf(file, "%ld", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return pages;
}

/* Transfers at both ends of memory of the program's. */
static void used(upcie_heap *heap, upcie_queue *queue, char *memory, size_t size)
{
	char *check = upcie_alloc(heap, 1 << 16);

	TRUE(check != NULL);
	round_trip(queue, memory, 1 << 16, check, 1);
	round_trip(queue, memory + size - (1 << 16), 1 << 16, check, 2);
	EXPECT(upcie_free(heap, check), 0);
}

/* A file, imported, and mapped by the program. */
static void files(upcie_heap *heap, upcie_queue *queue, unsigned page, int is_mounted)
{
	size_t size = (size_t)1 << page, length;
	int file = huge_file(page, is_mounted);
	void *at;

	TRUE(file >= 0);
	EXPECT(upcie_import_fd(heap, file, &at, &length), 0);
	EXPECT(length, size);
	used(heap, queue, at, size);
	EXPECT(upcie_unmap(heap, at), 0);
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	TRUE(at != MAP_FAILED);
	EXPECT(upcie_map(heap, at, size), 0);
	used(heap, queue, at, size);
	EXPECT(upcie_unmap(heap, at), 0);
	munmap(at, size);
	close(file);
}

/* Anonymous memory of huge pages has no file that could be mapped, and small pages would replace it. */
static void anonymous(upcie_heap *heap)
{
	size_t size = 2 << 20;
	int flags = MAP_ANONYMOUS | MAP_HUGETLB;
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | flags, -1, 0);

	TRUE(at != MAP_FAILED);
	FAILS(upcie_map(heap, at, size), ENOTSUP, "anonymous memory of huge pages");
	munmap(at, size);
}

/* Files of pages of one size, if there is one, beside a heap of pages of another size, or of any. */
static void sizes(const char *address, unsigned page, unsigned heap_page)
{
	struct upcie_heap_opts opts = {.size = sizeof(opts), .page_size = heap_page ? (uint64_t)1 << heap_page : 0};
	upcie_heap *heap;
	upcie_ctrlr *ctrlr;
	upcie_queue *queue;
	char *own;

	EXPECT(upcie_heap_create(&opts, &heap), 0);
	EXPECT(upcie_open(heap, address, NULL, &ctrlr), 0);
	EXPECT(upcie_queue_create(ctrlr, NULL, &queue), 0);
	own = upcie_alloc(heap, 1 << 20);
	TRUE(own != NULL);
	used(heap, queue, own, 1 << 20);
	if (page)
		files(heap, queue, page, 0);
	if (page == 21) {
		files(heap, queue, page, 1);
		anonymous(heap);
	}
	EXPECT(upcie_free(heap, own), 0);
	EXPECT(upcie_queue_delete(queue), 0);
	EXPECT(upcie_close(ctrlr), 0);
	EXPECT(upcie_heap_destroy(heap), 0);
}

int main(int argc, char **argv)
{
	static const unsigned pages[] = {21, 30};
	const char *address = argc > 1 ? argv[1] : "emu:size=16M";

	for (int i = 0; i < 2; i++) {
		/* The controller's own memory may have some, too. */
		if (free_pages(pages[i]) < (pages[i] == 21 ? 16 : 1))
			continue;
		sizes(address, pages[i], 0);
		sizes(address, 0, pages[i]);
		printf("%zu ", (size_t)1 << pages[i]);
	}
	puts("huge pages: ok");
	return 0;
}
