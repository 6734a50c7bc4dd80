/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Checks of the tests in C, and the NVMe structures that they use. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <upcie.h>

/* The call returns the value. */
#define EXPECT(call, value)                                                                                     \
	do {                                                                                                    \
		long long got_ = (long long)(call), want_ = (long long)(value);                                 \
		if (got_ != want_) {                                                                            \
			fprintf(stderr, "%s:%d: %s is %lld, not %lld (last error: %s)\n", __FILE__, __LINE__,   \
				#call, got_, want_, upcie_last_error());                                        \
			exit(1);                                                                                \
		}                                                                                               \
	} while (0)

/* The call fails with this errno, and the text of the error has this part. */
#define FAILS(call, error, part)                                                                                \
	do {                                                                                                    \
		EXPECT(call, -(error));                                                                         \
		if (!strstr(upcie_last_error(), part)) {                                                        \
			fprintf(stderr, "%s:%d: %s: \"%s\" has no \"%s\"\n", __FILE__, __LINE__, #call,         \
				upcie_last_error(), part);                                                      \
			exit(1);                                                                                \
		}                                                                                               \
	} while (0)

#define TRUE(condition) EXPECT(!(condition), 0)

struct command {
	uint8_t opcode, flags;
	uint16_t id;
	uint32_t nsid;
	uint32_t dword2, dword3;
	uint64_t meta, data[2];
	uint32_t dword10, dword11, dword12, dword13, dword14, dword15;
};

struct entry {
	uint32_t dword0, dword1;
	uint16_t sq_head, sq_id, id, status;
};

/* Reads (2) or writes (1) blocks of 512 bytes. */
static inline struct command transfer(uint8_t opcode, uint64_t block, uint32_t bytes)
{
	struct command command = {.opcode = opcode, .nsid = 1};
	command.dword10 = (uint32_t)block;
	command.dword11 = (uint32_t)(block >> 32);
	command.dword12 = bytes / 512 - 1;
	return command;
}

static inline struct command identify(uint32_t cns)
{
	struct command command = {.opcode = 0x06, .nsid = cns == 0 ? 1 : 0, .dword10 = cns};
	return command;
}

/* Fills memory with bytes that tell their place. */
static inline void pattern(void *at, size_t size, unsigned seed)
{
	unsigned char *bytes = at;
	for (size_t i = 0; i < size; i++)
		bytes[i] = (unsigned char)(seed + i * 7 + (i >> 9) * 13);
}

static inline int has_pattern(const void *at, size_t size, unsigned seed)
{
	const unsigned char *bytes = at;
	for (size_t i = 0; i < size; i++)
		if (bytes[i] != (unsigned char)(seed + i * 7 + (i >> 9) * 13))
			return 0;
	return 1;
}

/* Polls until count commands have completed. */
static inline void finish(upcie_queue *queue, int count, upcie_done done, void *arg)
{
	while (count > 0) {
		EXPECT(upcie_wait(queue, 30000), 1);
		int found = upcie_poll(queue, 0, done, arg);
		if (found < 0)
			EXPECT(found, 0);
		count -= found;
	}
}

#endif
