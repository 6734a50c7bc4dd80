/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Transfers of the tests in C, each waited for. */
#ifndef TRANSFER_H
#define TRANSFER_H

#include "check.h"

struct seen {
	int count, failed;
	uintptr_t sum;
};

static inline void count(void *user, const void *cqe, void *arg)
{
	const struct entry *entry = cqe;
	struct seen *seen = arg;
	seen->count++;
	seen->failed += (entry->status >> 1) != 0;
	seen->sum += (uintptr_t)user;
}

static inline void one(upcie_queue *queue, struct command command, void *data, size_t size)
{
	struct seen seen = {0, 0, 0};
	EXPECT(upcie_submit(queue, &command, data, size, NULL, 0, NULL), 0);
	finish(queue, 1, count, &seen);
	EXPECT(seen.failed, 0);
}

static inline void round_trip(upcie_queue *queue, char *memory, size_t size, char *check, unsigned seed)
{
	pattern(memory, size, seed);
	one(queue, transfer(1, 64, (uint32_t)size), memory, size);
	memset(memory, 0, size);
	memset(check, 0, size);
	one(queue, transfer(2, 64, (uint32_t)size), memory, size);
	TRUE(has_pattern(memory, size, seed));
	one(queue, transfer(2, 64, (uint32_t)size), check, size);
	TRUE(has_pattern(check, size, seed));
}

#endif
