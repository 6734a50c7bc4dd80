/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Writes a block, reads it back and compares: hello [ADDRESS], by default on the controller in software. */
#include <stdio.h>
#include <string.h>
#include <upcie.h>

#define CHECK(call)                                                                          \
	do {                                                                                 \
		int result_ = (call);                                                        \
		if (result_ < 0) {                                                           \
			fprintf(stderr, "%s: %d: %s\n", #call, result_, upcie_last_error()); \
			return 1;                                                            \
		}                                                                            \
	} while (0)

/* A submission queue entry, as far as this program uses it. */
struct command {
	uint8_t opcode, flags;
	uint16_t id;
	uint32_t nsid;
	uint32_t reserved[8];
	uint64_t block;
	uint16_t blocks_less_1, control;
	uint32_t rest[3];
};

int main(int argc, char **argv)
{
	const char *address = argc > 1 ? argv[1] : "emu:size=16M";
	struct command write = {.opcode = 0x01, .nsid = 1, .block = 8}, read = {.opcode = 0x02, .nsid = 1, .block = 8};
	struct upcie_info info = {.size = sizeof(info)};
	upcie_heap *heap;
	upcie_ctrlr *ctrlr;

	if (upcie_abi() != UPCIE_ABI) {
		fprintf(stderr, "this program is for another libupcie\n");
		return 1;
	}
	/* Memory that every controller of this heap can reach. */
	CHECK(upcie_heap_create(NULL, &heap));
	CHECK(upcie_open(heap, address, NULL, &ctrlr));
	CHECK(upcie_info(ctrlr, &info));
	printf("%s: %s, %u queue pairs\n", info.address, info.model, (unsigned)info.queues);

	/* A whole block, whatever its size. The commands above are for one block each. */
	char *out = upcie_alloc(heap, 4096), *in = upcie_alloc(heap, 4096);
	if (!out || !in) {
		fprintf(stderr, "%s\n", upcie_last_error());
		return 1;
	}
	strcpy(out, "hello, controller");
	/* The block size is in Identify Namespace; this writes as many bytes as one block has. */
	uint32_t identify[16] = {0x06, 1};
	unsigned char *data = upcie_alloc(heap, 4096);
	CHECK(upcie_admin(ctrlr, identify, data, 4096, NULL, 0, NULL));
	size_t block = (size_t)1 << data[128 + 4 * (data[26] & 15) + 2];
	CHECK(upcie_io(ctrlr, &write, out, block, NULL, 0, NULL));
	CHECK(upcie_io(ctrlr, &read, in, block, NULL, 0, NULL));
	if (memcmp(in, out, block) != 0) {
		fprintf(stderr, "block 8 is not as it was written\n");
		return 1;
	}
	printf("block 8 of %zu bytes: %s\n", block, in);

	CHECK(upcie_free(heap, data));
	CHECK(upcie_free(heap, in));
	CHECK(upcie_free(heap, out));
	CHECK(upcie_close(ctrlr));
	CHECK(upcie_heap_destroy(heap));
	return 0;
}
