/*
 * A submission and completion path the way a header-only C driver has it: what the Rust one is measured against.
 *
 * Command ids come from a LIFO stack, one fewer than the ring has entries, so that the ring can't overrun; each id keeps
 * its user's pointer. The device address of a buffer is arithmetic on its region's. A command is built on the stack and
 * copied into the ring as 64 bytes. The depth of the ring is known at run time only. Each completion is a volatile load of
 * the status, a read barrier and an indirect call; each doorbell is written once per pass.
 */
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OPCODE_READ = 2, PAGE = 4096 };

struct command {
    uint8_t opcode;
    uint8_t flags;
    uint16_t cid;
    uint32_t nsid;
    uint64_t reserved;
    uint64_t metadata;
    uint64_t prp1;
    uint64_t prp2;
    uint32_t cdw10;
    uint32_t cdw11;
    uint32_t cdw12;
    uint32_t cdw13;
    uint32_t cdw14;
    uint32_t cdw15;
};
_Static_assert(sizeof(struct command) == 64, "a submission entry");

struct completion {
    uint32_t result;
    uint32_t reserved;
    uint16_t sq_head;
    uint16_t sqid;
    uint16_t cid;
    uint16_t status;
};
_Static_assert(sizeof(struct completion) == 16, "a completion entry");

/* DMA memory: where this process and where the device sees it. */
struct region {
    uint8_t *base;
    uint64_t iova;
    size_t len;
};

struct request {
    void *user;
};

struct queue {
    struct command *sq;
    struct completion *cq;
    volatile uint32_t *sq_doorbell;
    volatile uint32_t *cq_doorbell;
    struct request *requests;
    uint16_t *free;
    uint32_t free_count;
    uint32_t depth;
    uint32_t tail;
    /* The tail that the device has been told of. */
    uint32_t told;
    uint32_t head;
    uint16_t phase;
};

typedef void (*on_completion)(void *user, const struct completion *entry);

static int queue_init(struct queue *queue, void *sq, void *cq, volatile uint32_t *doorbells, uint32_t depth)
{
    queue->sq = sq;
    queue->cq = cq;
    queue->sq_doorbell = doorbells;
    queue->cq_doorbell = doorbells + 1;
    queue->depth = depth;
    queue->phase = 1;
    queue->requests = calloc(depth, sizeof(*queue->requests));
    queue->free = calloc(depth, sizeof(*queue->free));
    if (!queue->requests || !queue->free)
        return -1;
    for (uint32_t id = depth - 1; id > 0; id--)
        queue->free[queue->free_count++] = (uint16_t)(id - 1);
    return 0;
}

/* The data pointer of a buffer in one piece; a list of pages is of no use to this bench, and refused. */
static inline int set_prps(struct command *command, const struct region *region, const void *data, size_t len)
{
    size_t offset = (size_t)((const uint8_t *)data - region->base);
    if (offset > region->len || len > region->len - offset)
        return -1;
    uint64_t iova = region->iova + offset;
    size_t pages = ((iova & (PAGE - 1)) + len + PAGE - 1) / PAGE;
    command->prp1 = iova;
    if (pages == 2)
        command->prp2 = (iova & ~(uint64_t)(PAGE - 1)) + PAGE;
    else if (pages > 2)
        return -1;
    return 0;
}

static inline int queue_submit(struct queue *queue, struct command *command, const struct region *region,
                               const void *data, size_t len, void *user)
{
    if (queue->free_count == 0)
        return -1;
    uint16_t cid = queue->free[--queue->free_count];
    queue->requests[cid].user = user;
    command->cid = cid;
    if (set_prps(command, region, data, len)) {
        queue->free[queue->free_count++] = cid;
        return -1;
    }
    memcpy(&queue->sq[queue->tail], command, sizeof(*command));
    queue->tail = (queue->tail + 1) % queue->depth;
    return 0;
}

static inline void queue_ring(struct queue *queue)
{
    if (queue->told == queue->tail)
        return;
    atomic_thread_fence(memory_order_release);
    *queue->sq_doorbell = queue->tail;
    queue->told = queue->tail;
}

/* Hands at most `max` completions to `call`. */
static inline uint32_t queue_poll(struct queue *queue, uint32_t max, on_completion call)
{
    uint32_t reaped = 0;
    while (reaped < max) {
        const struct completion *entry = &queue->cq[queue->head];
        uint16_t status = *(const volatile uint16_t *)&entry->status;
        if ((status & 1) != queue->phase)
            break;
        atomic_thread_fence(memory_order_acquire);
        uint16_t cid = entry->cid;
        if (cid >= queue->depth)
            abort();
        void *user = queue->requests[cid].user;
        queue->free[queue->free_count++] = cid;
        call(user, entry);
        if (++queue->head == queue->depth) {
            queue->head = 0;
            queue->phase ^= 1;
        }
        reaped++;
    }
    if (reaped > 0)
        *queue->cq_doorbell = queue->head;
    return reaped;
}

/* The bench: random reads of 4 KiB, each completion submits the next. */

struct bench;

struct io {
    struct bench *bench;
    void *data;
    uint64_t tag;
};

struct bench {
    struct queue queue;
    struct region region;
    struct io *ios;
    on_completion call;
    uint64_t random;
    uint64_t sum;
};

static inline uint64_t next_random(struct bench *bench)
{
    uint64_t x = bench->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return bench->random = x;
}

static inline void read_again(struct bench *bench, struct io *io)
{
    uint64_t slba = next_random(bench) & 0xfffff8;
    struct command command = {
        .opcode = OPCODE_READ,
        .nsid = 1,
        .cdw10 = (uint32_t)slba,
        .cdw11 = (uint32_t)(slba >> 32),
        .cdw12 = PAGE / 512 - 1,
    };
    if (queue_submit(&bench->queue, &command, &bench->region, io->data, PAGE, io))
        abort();
}

/* What the driver calls for each completion. */
void c_path_completed(void *user, const struct completion *entry)
{
    struct io *io = user;
    if (entry->status >> 1)
        abort();
    io->bench->sum += io->tag;
    read_again(io->bench, io);
}

/* A queue over rings of the caller's, with `in_flight` reads submitted. Nothing is freed: a bench makes it once. */
struct bench *c_path_new(void *sq, void *cq, volatile uint32_t *doorbells, uint32_t depth, uint32_t in_flight,
                         on_completion call)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    if (!bench || queue_init(&bench->queue, sq, cq, doorbells, depth))
        return NULL;
    /* Nobody reads or writes the data: only its address matters. */
    bench->region = (struct region){ .base = (uint8_t *)0x7f0000000000, .iova = 0x100000, .len = (size_t)depth * PAGE };
    bench->random = 88172645463325252;
    bench->call = call;
    bench->ios = calloc(in_flight, sizeof(*bench->ios));
    if (!bench->ios)
        return NULL;
    for (uint32_t i = 0; i < in_flight; i++) {
        bench->ios[i] = (struct io){ .bench = bench, .data = bench->region.base + (size_t)i * PAGE, .tag = i };
        read_again(bench, &bench->ios[i]);
    }
    queue_ring(&bench->queue);
    return bench;
}

/* Runs at least `count` I/Os and returns how many: the device's turn, then the driver's. */
uint64_t c_path_run(struct bench *bench, uint64_t count, uint32_t max, void (*step)(void *device), void *device)
{
    uint64_t done = 0;
    while (done < count) {
        step(device);
        done += queue_poll(&bench->queue, max, bench->call);
        queue_ring(&bench->queue);
    }
    return done;
}
