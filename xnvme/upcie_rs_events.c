/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The completion descriptor. xNVMe promises its programs an eventfd, which they read from and which may block them. That of
 * libupcie is for poll(2) alone, since queues may share an interrupt: so a thread passes each event on.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "upcie_rs.h"

struct upcie_rs_events {
	pthread_t thread;
	int eventfd, stop, epoll;
};

/* Adds one to an eventfd; that can't fail before its counter has 64 bits. */
static void signal_fd(int fd)
{
	uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/* A controller that has failed raises no interrupt: the program is woken this often, and looks. */
#define LOOK_MS 1000

static void *pass_on(void *arg)
{
	const struct upcie_rs_events *events = arg;

	for (;;) {
		struct epoll_event event;
		int count = epoll_wait(events->epoll, &event, 1, LOOK_MS);

		if (count < 0 && errno != EINTR)
			return NULL;
		if (count < 0)
			continue;
		if (count && event.data.fd == events->stop)
			return NULL;
		signal_fd(events->eventfd);
	}
}

static int watch(int epoll, int fd, uint32_t how)
{
	struct epoll_event event = {.events = how, .data.fd = fd};

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* Starts the thread, which takes none of the program's signals. */
static int start(struct upcie_rs_events *events)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int err = -pthread_create(&events->thread, NULL, pass_on, events);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

static void release(struct upcie_rs_events *events)
{
	int fds[] = {events->eventfd, events->stop, events->epoll};

	for (unsigned int i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	free(events);
}

int upcie_rs_events_start(int fd, struct upcie_rs_events **made)
{
	struct upcie_rs_events *events = calloc(1, sizeof(*events));

	if (!events)
		return -ENOMEM;
	events->eventfd = eventfd(0, EFD_CLOEXEC);
	events->stop = eventfd(0, EFD_CLOEXEC);
	events->epoll = epoll_create1(EPOLL_CLOEXEC);
	int err = events->eventfd < 0 || events->stop < 0 || events->epoll < 0 ? -errno : 0;
	if (!err)
		err = watch(events->epoll, events->stop, EPOLLIN);
	/* Edge triggered, as the descriptor is: it stays readable until the queue is poked. */
	if (!err)
		err = watch(events->epoll, fd, EPOLLIN | EPOLLET);
	if (!err)
		err = start(events);
	if (err) {
		release(events);
		return err;
	}
	*made = events;
	return 0;
}

int upcie_rs_events_fd(const struct upcie_rs_events *events)
{
	return events->eventfd;
}

void upcie_rs_events_stop(struct upcie_rs_events *events)
{
	if (!events)
		return;
	signal_fd(events->stop);
	pthread_join(events->thread, NULL);
	release(events);
}
