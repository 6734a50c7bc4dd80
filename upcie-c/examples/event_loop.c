/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Sleeps in poll(2) until the controller interrupts: event_loop [ADDRESS]. A timer stands for a program's other events.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <upcie.h>

#define WRITES 64

struct command {
	uint8_t opcode, flags;
	uint16_t id;
	uint32_t nsid;
	uint32_t reserved[8];
	uint64_t block;
	uint16_t blocks_less_1, control;
	uint32_t rest[3];
};

struct state {
	int completed, failed;
};

static void done(void *user, const void *cqe, void *arg)
{
	struct state *state = arg;
	uint16_t status;

	(void)user;
	memcpy(&status, (const char *)cqe + 14, sizeof(status));
	state->completed++;
	state->failed += (status >> 1) != 0;
}

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, upcie_last_error());
	return 1;
}

int main(int argc, char **argv)
{
	const char *address = argc > 1 ? argv[1] : "emu:size=16M";
	struct upcie_queue_opts opts = {.size = sizeof(opts), .depth = 8, .flags = UPCIE_QUEUE_INTERRUPT};
	struct upcie_info info = {.size = sizeof(info)};
	struct command flush = {.opcode = 0x00, .nsid = 1};
	struct itimerspec every = {.it_interval = {0, 5000000}, .it_value = {0, 5000000}};
	struct state state = {0, 0};
	upcie_heap *heap;
	upcie_ctrlr *ctrlr;
	upcie_queue *queue;
	int submitted = 0, ticks = 0;

	if (upcie_heap_create(NULL, &heap) < 0 || upcie_open(heap, address, NULL, &ctrlr) < 0 ||
	    upcie_info(ctrlr, &info) < 0)
		return fail("open");
	if (info.vectors == 0) {
		printf("%s has no interrupts\n", info.address);
		return upcie_close(ctrlr) < 0 || upcie_heap_destroy(heap) < 0;
	}
	opts.vector = info.vectors > 1;
	if (upcie_queue_create(ctrlr, &opts, &queue) < 0)
		return fail("queue");
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (timer < 0 || timerfd_settime(timer, 0, &every, NULL) < 0) {
		perror("timerfd");
		return 1;
	}
	struct pollfd fds[] = {{upcie_fd(queue), POLLIN, 0}, {timer, POLLIN, 0}};

	while (state.completed < WRITES) {
		int result = 0;
		while (submitted < WRITES && (result = upcie_submit(queue, &flush, NULL, 0, NULL, 0, NULL)) == 0)
			submitted++;
		if (result < 0 && result != -EBUSY)
			return fail("submit");
		/* Rings, and asks for an interrupt; completions that came before are polled now, later ones raise it. */
		if (upcie_arm(queue) < 0)
			return fail("arm");
		result = upcie_poll(queue, 0, done, &state);
		if (result < 0)
			return fail("poll");
		if (result > 0)
			continue;
		if (poll(fds, 2, 30000) < 0 && errno != EINTR) {
			perror("poll");
			return 1;
		}
		unsigned long long expired;
		if (fds[1].revents && read(timer, &expired, sizeof(expired)) == sizeof(expired))
			ticks++;
	}
	printf("%d flushes, %d failed\n", state.completed, state.failed);
	(void)ticks;
	close(timer);
	if (upcie_queue_delete(queue) < 0 || upcie_close(ctrlr) < 0 || upcie_heap_destroy(heap) < 0)
		return fail("close");
	return state.failed != 0;
}
