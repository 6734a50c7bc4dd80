/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The functions of the machine: those whose addresses are the arguments are among them. */
#include "check.h"

struct wanted {
	int count, found;
	char **addresses;
};

static int look(const struct upcie_func *func, void *arg)
{
	struct wanted *wanted = arg;

	EXPECT(func->size, sizeof(*func));
	TRUE(strlen(func->address) >= strlen("0000:00:00.0") && func->vendor != 0);
	TRUE(strlen(func->driver) < sizeof(func->driver));
	for (int i = 0; i < wanted->count; i++)
		wanted->found += strcmp(func->address, wanted->addresses[i]) == 0;
	return 0;
}

static int stop(const struct upcie_func *func, void *arg)
{
	(void)func;
	++*(int *)arg;
	return 7;
}

int main(int argc, char **argv)
{
	struct wanted wanted = {argc - 1, 0, argv + 1};
	int calls = 0;

	EXPECT(upcie_scan(look, &wanted), 0);
	EXPECT(wanted.found, wanted.count);
	/* Another result than 0 ends it. */
	int result = upcie_scan(stop, &calls);
	TRUE((calls == 1 && result == 7) || (calls == 0 && result == 0 && wanted.count == 0));
	puts("functions: ok");
	return 0;
}
