/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A heap with controllers that have no IOMMU: its memory outlives the process, whatever was made first. The arguments are the
 * addresses of such a controller and of another one by another way.
 */
#include "transfer.h"
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#define HUGE_PAGES "/dev/hugepages"

/* The bytes of this process's files of huge pages that have a name: they stay if the process is killed. */
static size_t named(void)
{
	char part[32], path[512];
	size_t bytes = 0;
	struct dirent *entry;
	DIR *all = opendir(HUGE_PAGES);

	TRUE(all != NULL);
	snprintf(part, sizeof(part), "-%d-", (int)getpid());
	while ((entry = readdir(all))) {
		struct stat file;

		snprintf(path, sizeof(path), HUGE_PAGES "/%s", entry->d_name);
		if (strstr(entry->d_name, part) && stat(path, &file) == 0)
			bytes += (size_t)file.st_size;
	}
	closedir(all);
	return bytes;
}

/* Opens the controller, uses early and late memory with it, and closes it. */
static void used(upcie_heap *heap, const char *address)
{
	upcie_ctrlr *ctrlr;
	upcie_queue *queue;
	char *early, *late;

	EXPECT(upcie_open(heap, address, NULL, &ctrlr), 0);
	/* What the heap was made with came now. */
	TRUE(named() >= (size_t)8 << 20);
	EXPECT(upcie_queue_create(ctrlr, NULL, &queue), 0);
	early = upcie_alloc(heap, 1 << 16);
	late = upcie_alloc(heap, (size_t)16 << 20);
	TRUE(early && late && named() >= (size_t)24 << 20);
	round_trip(queue, early, 1 << 16, late, 1);
	round_trip(queue, late + (2 << 20) - 4096, 1 << 16, early, 2);
	EXPECT(upcie_free(heap, early), 0);
	EXPECT(upcie_free(heap, late), 0);
	EXPECT(upcie_queue_delete(queue), 0);
	EXPECT(upcie_close(ctrlr), 0);
	EXPECT(named(), 0);
}

int main(int argc, char **argv)
{
	struct upcie_heap_opts opts = {.size = sizeof(opts), .bytes = 8 << 20};
	upcie_ctrlr *ctrlr, *other;
	upcie_heap *heap;
	void *memory;

	if (argc != 3)
		return 2;
	EXPECT(upcie_heap_create(&opts, &heap), 0);
	used(heap, argv[1]);
	/* Once more in the same heap, whose memory was freed. */
	used(heap, argv[1]);
	/* Memory that is in use, and that no controller without an IOMMU has: from before the open, and of another controller. */
	memory = upcie_alloc(heap, 4096);
	TRUE(memory != NULL);
	FAILS(upcie_open(heap, argv[1], NULL, &ctrlr), ENOTSUP, "before memory is allocated");
	EXPECT(upcie_free(heap, memory), 0);
	EXPECT(upcie_open(heap, "emu:size=1M", NULL, &other), 0);
	FAILS(upcie_open(heap, argv[1], NULL, &ctrlr), ENOTSUP, "before other controllers");
	EXPECT(upcie_close(other), 0);
	EXPECT(named(), 0);
	used(heap, argv[1]);
	/* Two ways have an address space each, and a file has the names of one. */
	EXPECT(upcie_open(heap, argv[1], NULL, &ctrlr), 0);
	FAILS(upcie_open(heap, argv[2], NULL, &other), ENOTSUP, "in the same way");
	EXPECT(upcie_close(ctrlr), 0);
	EXPECT(upcie_heap_destroy(heap), 0);
	puts("untranslated: ok");
	return 0;
}
