/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Command sets and optional commands through the C calls, each by upcie_io() and by a queue: metadata and protection, zones,
 * keys and values, reservations, directives, Compare and Write. The first argument is the part, the second the address of a
 * controller that has it.
 */
#include "check.h"

/* Status code type and code of a completion. */
#define STATUS(entry) ((entry).status >> 1 & 0x7ff)

static upcie_heap *heap;
static upcie_ctrlr *ctrlr;
static upcie_queue *queue;

struct ends {
	int count;
	struct entry entries[16];
};

static void note(void *user, const void *cqe, void *arg)
{
	struct ends *ends = arg;
	memcpy(&ends->entries[(uintptr_t)user], cqe, sizeof(struct entry));
	ends->count++;
}

/* Runs a command on the queue, and returns its completion. */
static struct entry run(struct command command, void *data, size_t size, void *meta, size_t meta_size)
{
	struct ends ends = {.count = 0};
	EXPECT(upcie_submit(queue, &command, data, size, meta, meta_size, NULL), 0);
	finish(queue, 1, note, &ends);
	EXPECT(ends.count, 1);
	return ends.entries[0];
}

/* Runs a command twice, waited for and on the queue: both succeed. Returns the queue's completion. */
static struct entry twice(struct command command, void *data, size_t size)
{
	struct entry entry;
	EXPECT(upcie_io(ctrlr, &command, data, size, NULL, 0, &entry), 0);
	EXPECT(STATUS(entry), 0);
	entry = run(command, data, size, NULL, 0);
	EXPECT(STATUS(entry), 0);
	return entry;
}

/* Fails with this status, waited for and on the queue. */
static void fails(struct command command, void *data, size_t size, unsigned status)
{
	struct entry entry;
	FAILS(upcie_io(ctrlr, &command, data, size, NULL, 0, &entry), EIO, "failed");
	EXPECT(STATUS(entry), status);
	EXPECT(STATUS(run(command, data, size, NULL, 0)), status);
}

/* ---- metadata and protection: blocks of 512 + 8 bytes, type 1, apart ---- */

enum { PRACT = 1u << 29, GUARD = 1u << 28, APPTAG = 1u << 27, REFTAG = 1u << 26 };
enum { GUARD_ERROR = 0x282, APPTAG_ERROR = 0x283, REFTAG_ERROR = 0x284 };

static struct command protected(uint8_t opcode, uint32_t block, uint32_t bytes, uint32_t how, uint16_t tag)
{
	struct command command = transfer(opcode, block, bytes);
	command.dword12 |= how;
	/* Expected reference tag of the first block; expected application tag, and its mask. */
	command.dword14 = block;
	command.dword15 = tag | 0xffff0000u;
	return command;
}

static void metadata(void)
{
	const uint32_t size = 8192, blocks = size / 512, meta_size = blocks * 8;
	char *data = upcie_alloc(heap, size), *back = upcie_alloc(heap, size);
	unsigned char *meta = upcie_alloc(heap, 4096);
	struct iovec pieces[] = {{back + 4096, 4096}, {back, 4096}};
	struct entry entry;

	TRUE(data && back && meta);
	pattern(data, size, 1);
	/* The controller makes the tuples: the command has no metadata pointer. */
	struct command made = protected(1, 32, size, PRACT, 0x1234);
	entry = twice(made, data, size);
	/* It checks what it reads, and returns it: guard, application tag, reference tag of each block. */
	struct command checked = protected(2, 32, size, GUARD | APPTAG | REFTAG, 0x1234);
	for (int way = 0; way < 3; way++) {
		memset(meta, 0, meta_size);
		memset(back, 0, size);
		if (way == 0)
			EXPECT(upcie_io(ctrlr, &checked, back, size, meta, meta_size, &entry), 0);
		else if (way == 1)
			entry = run(checked, back, size, meta, meta_size);
		else
			EXPECT(upcie_iov(ctrlr, &checked, pieces, 2, meta, meta_size, &entry), 0);
		EXPECT(STATUS(entry), 0);
		for (uint32_t i = 0; i < blocks; i++) {
			unsigned char *tuple = meta + 8 * i;
			EXPECT(tuple[2] << 8 | tuple[3], 0x1234);
			EXPECT(tuple[4] << 24 | tuple[5] << 16 | tuple[6] << 8 | tuple[7], 32 + i);
		}
		/* The third way has both halves in the other order. */
		if (way == 2)
			TRUE(memcmp(back + 4096, data, 4096) == 0 && memcmp(back, data + 4096, 4096) == 0);
		else
			TRUE(has_pattern(back, size, 1));
	}
	/* What is wrong is named: tags of another block, another application tag, other data. */
	fails(protected(2, 32, size, PRACT | APPTAG, 0x4321), back, size, APPTAG_ERROR);
	struct command elsewhere = transfer(1, 96, size);
	EXPECT(upcie_io(ctrlr, &elsewhere, data, size, meta, meta_size, NULL), 0);
	fails(protected(2, 96, size, PRACT | REFTAG, 0), back, size, REFTAG_ERROR);
	data[700] ^= 1;
	EXPECT(STATUS(run(elsewhere, data, size, meta, meta_size)), 0);
	fails(protected(2, 96, size, PRACT | GUARD, 0), back, size, GUARD_ERROR);
	/* The controller checks what is written, too, and writes nothing. */
	struct command refused = protected(1, 160, size, GUARD, 0);
	EXPECT(STATUS(run(refused, data, size, meta, meta_size)), GUARD_ERROR);
	/* Metadata is memory of the heap, at a multiple of 4, and in use while the command is in flight. */
	FAILS(upcie_submit(queue, &checked, back, size, meta + 2, meta_size, NULL), EINVAL, "multiple of 4");
	FAILS(upcie_submit(queue, &checked, back, size, &entry, meta_size, NULL), EFAULT, "heap");
	struct ends ends = {.count = 0};
	EXPECT(upcie_submit(queue, &checked, back, size, meta, meta_size, NULL), 0);
	FAILS(upcie_free(heap, meta), EBUSY, "in flight");
	finish(queue, 1, note, &ends);
	EXPECT(upcie_free(heap, meta), 0);
	EXPECT(upcie_free(heap, back), 0);
	EXPECT(upcie_free(heap, data), 0);
}

/* ---- zones of 64 KiB ---- */

static uint64_t number(const void *at)
{
	uint64_t value;
	memcpy(&value, at, sizeof(value));
	return value;
}

static void zones(void)
{
	enum { APPENDS = 12, SIZE = 4096, BLOCKS = SIZE / 512 };
	const uint32_t zone = 2 * 65536 / 512;
	char *data = upcie_alloc(heap, APPENDS * SIZE), *back = upcie_alloc(heap, APPENDS * SIZE);
	struct command append = transfer(0x7d, zone, SIZE), read = transfer(2, zone, APPENDS * SIZE);
	struct ends ends = {.count = 0};
	struct entry entry;
	unsigned seen = 0;

	TRUE(data && back);
	/* All at once: the completion's first two dwords are the block that the controller has chosen. */
	for (uintptr_t i = 0; i < APPENDS; i++) {
		pattern(data + i * SIZE, SIZE, (unsigned)i * 3);
		EXPECT(upcie_submit(queue, &append, data + i * SIZE, SIZE, NULL, 0, (void *)i), 0);
	}
	finish(queue, APPENDS, note, &ends);
	EXPECT(upcie_io(ctrlr, &read, back, APPENDS * SIZE, NULL, 0, NULL), 0);
	for (unsigned i = 0; i < APPENDS; i++) {
		uint64_t block = number(&ends.entries[i]);
		EXPECT(STATUS(ends.entries[i]), 0);
		TRUE(block >= zone && block < zone + APPENDS * BLOCKS && (block - zone) % BLOCKS == 0);
		TRUE(has_pattern(back + (block - zone) * 512, SIZE, i * 3));
		seen |= 1u << (block - zone) / BLOCKS;
	}
	EXPECT(seen, (1u << APPENDS) - 1);
	EXPECT(upcie_io(ctrlr, &append, data, SIZE, NULL, 0, &entry), 0);
	EXPECT(number(&entry), zone + APPENDS * BLOCKS);
	/* A report from that zone on: its number of dwords is in the command, its bytes in the call. */
	struct command report = {.opcode = 0x7a, .nsid = 1, .dword10 = zone, .dword12 = 4096 / 4 - 1};
	memset(back, 0, 4096);
	twice(report, back, 4096);
	EXPECT(number(back + 64 + 16), zone);
	EXPECT(number(back + 64 + 24), zone + (APPENDS + 1) * BLOCKS);
	/* Finished, the zone takes no more; reset, it is empty. */
	struct command manage = {.opcode = 0x79, .nsid = 1, .dword10 = zone, .dword13 = 2};
	twice(manage, NULL, 0);
	fails(append, data, SIZE, 0x1b9);
	manage.dword13 = 4;
	twice(manage, NULL, 0);
	EXPECT(upcie_io(ctrlr, &append, data, SIZE, NULL, 0, &entry), 0);
	EXPECT(number(&entry), zone);
	EXPECT(upcie_free(heap, back), 0);
	EXPECT(upcie_free(heap, data), 0);
}

/* ---- keys and values ---- */

enum { STORE = 0x01, RETRIEVE = 0x02, LIST = 0x06, DELETE = 0x10, EXIST = 0x14 };
enum { KEY_DOES_NOT_EXIST = 0x87, KEY_EXISTS = 0x89 };

/* The value's length and the key's are bytes of the command; the data's are the call's. */
static struct command of_key(uint8_t opcode, const char *key, uint32_t bytes, uint32_t options)
{
	struct command command = {.opcode = opcode, .nsid = 1, .dword10 = bytes};
	char padded[16] = {0};
	size_t length = strlen(key);

	memcpy(padded, key, length);
	command.dword11 = (uint32_t)length | options << 8;
	memcpy(&command.dword2, padded, 4);
	memcpy(&command.dword3, padded + 4, 4);
	memcpy(&command.dword14, padded + 8, 4);
	memcpy(&command.dword15, padded + 12, 4);
	return command;
}

static void keys(void)
{
	static const char *const names[] = {"k", "user:17", "sixteen bytes !!"};
	static const uint32_t sizes[] = {5, 4096, 12301};
	char *value = upcie_alloc(heap, 16384), *back = upcie_alloc(heap, 16384);
	struct entry entry;

	TRUE(value && back);
	for (unsigned i = 0; i < 3; i++) {
		/* Any number of bytes, from any dword on. */
		pattern(value + 4 * i, sizes[i], i);
		twice(of_key(STORE, names[i], sizes[i], 0), value + 4 * i, sizes[i]);
	}
	for (unsigned i = 0; i < 3; i++) {
		memset(back, 0, 16384);
		/* Dword 0 of the completion is the length of the value, which may be longer than the room for it. */
		EXPECT(twice(of_key(RETRIEVE, names[i], 12301, 0), back, 12301).dword0, sizes[i]);
		TRUE(has_pattern(back, sizes[i], i));
		memset(back, 0, 16384);
		EXPECT(twice(of_key(RETRIEVE, names[i], 3, 0), back, 3).dword0, sizes[i]);
		TRUE(has_pattern(back, 3, i) && back[3] == 0 && back[4] == 0);
		twice(of_key(EXIST, names[i], 0, 0), NULL, 0);
	}
	/* A value of no bytes. */
	twice(of_key(STORE, "empty", 0, 0), NULL, 0);
	EXPECT(twice(of_key(RETRIEVE, "empty", 16, 0), back, 16).dword0, 0);
	/* Options: only if it exists, only if it does not. */
	fails(of_key(STORE, "new", 8, 1), value, 8, KEY_DOES_NOT_EXIST);
	fails(of_key(STORE, "k", 8, 2), value, 8, KEY_EXISTS);
	/* A list: the number of keys, then the length and the bytes of each, padded to dwords. */
	memset(back, 0, 4096);
	twice(of_key(LIST, "", 4096, 0), back, 4096);
	EXPECT(back[0], 4);
	unsigned at = 4, found = 0;
	for (int i = 0; i < 4; i++) {
		unsigned length = (unsigned char)back[at];
		for (unsigned name = 0; name < 3; name++)
			if (strlen(names[name]) == length && memcmp(back + at + 2, names[name], length) == 0)
				found |= 1u << name;
		at += (2 + length + 3) & ~3u;
	}
	EXPECT(found, 7);
	struct command gone = of_key(DELETE, "k", 0, 0);
	EXPECT(upcie_io(ctrlr, &gone, NULL, 0, NULL, 0, &entry), 0);
	/* A Delete of a key that is gone is an error only if a host asks for that, by feature 20h. */
	twice(gone, NULL, 0);
	struct command feature = {.opcode = 0x09, .nsid = 1, .dword10 = 0x20, .dword11 = 1};
	EXPECT(upcie_admin(ctrlr, &feature, NULL, 0, NULL, 0, &entry), 0);
	fails(gone, NULL, 0, KEY_DOES_NOT_EXIST);
	fails(of_key(EXIST, "k", 0, 0), NULL, 0, KEY_DOES_NOT_EXIST);
	fails(of_key(RETRIEVE, "k", 16, 0), back, 16, KEY_DOES_NOT_EXIST);
	EXPECT(upcie_free(heap, back), 0);
	EXPECT(upcie_free(heap, value), 0);
}

/* ---- reservations, and directives with data placement ---- */

enum { REGISTER = 0x0d, REPORT = 0x0e, ACQUIRE = 0x11, RELEASE = 0x15, CONFLICT = 0x83 };

static void reservations(void)
{
	uint64_t *data = upcie_alloc(heap, 4096);
	struct command host = {.opcode = 0x09, .dword10 = 0x81, .dword11 = 1};
	struct command command = {.opcode = REGISTER, .nsid = 1};
	struct entry entry;

	TRUE(data != NULL);
	/* A host identifier of 16 bytes; registrations are the host's. */
	data[0] = 0x1122334455667788, data[1] = 1;
	EXPECT(upcie_admin(ctrlr, &host, data, 16, NULL, 0, &entry), 0);
	data[0] = 0, data[1] = 0xfeed;
	EXPECT(upcie_io(ctrlr, &command, data, 16, NULL, 0, &entry), 0);
	/* Another key of the same host is a conflict; so is a wrong one. */
	data[1] = 0xbad;
	fails(command, data, 16, CONFLICT);
	command = (struct command){.opcode = ACQUIRE, .nsid = 1, .dword10 = 1 << 8};
	data[0] = 0xbad, data[1] = 0;
	fails(command, data, 16, CONFLICT);
	/* Write Exclusive. */
	data[0] = 0xfeed;
	twice(command, data, 16);
	command = (struct command){.opcode = REPORT, .nsid = 1, .dword10 = 4096 / 4 - 1, .dword11 = 1};
	memset(data, 0, 4096);
	twice(command, data, 4096);
	/* The type, the number of registrants; the first one holds it, with its key and its identifier. */
	EXPECT(((unsigned char *)data)[4], 1);
	EXPECT(((unsigned char *)data)[5], 1);
	EXPECT(((unsigned char *)data)[64 + 2] & 1, 1);
	TRUE(data[9] == 0xfeed && data[10] == 0x1122334455667788 && data[11] == 1);
	command = (struct command){.opcode = RELEASE, .nsid = 1, .dword10 = 1 << 8};
	data[0] = 0xfeed;
	twice(command, data, 8);
	command = (struct command){.opcode = REGISTER, .nsid = 1, .dword10 = 1};
	EXPECT(STATUS(run(command, data, 16, NULL, 0)), 0);
	EXPECT(upcie_free(heap, data), 0);
}

static void placement(void)
{
	char *data = upcie_alloc(heap, 4096);
	struct command receive = {.opcode = 0x1a, .nsid = 1, .dword10 = 96 / 4 - 1, .dword11 = 1};
	struct command write = transfer(1, 0, 4096), status = {.opcode = 0x12, .nsid = 1, .dword10 = 1};
	struct entry entry;
	uint64_t before;

	TRUE(data != NULL);
	/* The directives: Identify and Data Placement are supported, and on. */
	EXPECT(upcie_admin(ctrlr, &receive, data, 96, NULL, 0, &entry), 0);
	EXPECT(data[0] & 5, 5);
	EXPECT(data[32] & 5, 5);
	/* The reclaim units' room, of the third placement handle. */
	status.dword11 = 4096 / 4 - 1;
	twice(status, data, 4096);
	TRUE(data[14] > 2);
	before = number(data + 16 + 2 * 32 + 8);
	/* A write with that handle: DTYPE 2 of dword 12, DSPEC of dword 13. */
	write.dword12 |= 2u << 20;
	write.dword13 = 2u << 16;
	twice(write, data, 4096);
	twice(status, data, 4096);
	EXPECT(number(data + 16 + 2 * 32 + 8), before - 2 * 8);
	/* Another reclaim unit for it, which is empty. */
	struct command update = {.opcode = 0x1d, .nsid = 1, .dword10 = 1};
	memset(data, 0, 4096);
	data[0] = 2;
	twice(update, data, 2);
	twice(status, data, 4096);
	TRUE(number(data + 16 + 2 * 32 + 8) >= before);
	EXPECT(upcie_free(heap, data), 0);
}

/* ---- Compare and Write: two entries side by side, by FUSE ---- */

static void fused(void)
{
	char *expected = upcie_alloc(heap, 512), *new = upcie_alloc(heap, 512);
	struct command compare = transfer(5, 3, 512), write = transfer(1, 3, 512);
	struct ends ends = {.count = 0};

	TRUE(expected && new);
	compare.flags = 1, write.flags = 2;
	memset(new, 7, 512);
	for (int round = 0; round < 2; round++) {
		EXPECT(upcie_submit(queue, &compare, expected, 512, NULL, 0, (void *)0), 0);
		EXPECT(upcie_submit(queue, &write, new, 512, NULL, 0, (void *)1), 0);
		finish(queue, 2, note, &ends);
		/* First the blocks are zeros; then they differ, and nothing is written. */
		EXPECT(STATUS(ends.entries[0]), round == 0 ? 0 : 0x285);
		EXPECT(STATUS(ends.entries[1]), round == 0 ? 0 : 0x009);
	}
	EXPECT(upcie_free(heap, new), 0);
	EXPECT(upcie_free(heap, expected), 0);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*test)(void);
	} parts[] = {{"metadata", metadata}, {"zones", zones},	   {"keys", keys},
		     {"reservations", reservations}, {"placement", placement}, {"fused", fused}};

	if (argc != 3)
		return 2;
	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		if (strcmp(parts[i].name, argv[1]))
			continue;
		EXPECT(upcie_heap_create(NULL, &heap), 0);
		EXPECT(upcie_open(heap, argv[2], NULL, &ctrlr), 0);
		EXPECT(upcie_queue_create(ctrlr, NULL, &queue), 0);
		parts[i].test();
		EXPECT(upcie_queue_delete(queue), 0);
		EXPECT(upcie_close(ctrlr), 0);
		EXPECT(upcie_heap_destroy(heap), 0);
		printf("%s: ok\n", argv[1]);
		return 0;
	}
	return 2;
}
