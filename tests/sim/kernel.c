/* SPDX-License-Identifier: MIT */
#include "tests/sim/kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "proto/codec.h"
#include "tests/sim/kernel_fds.h"

#define PAGE_BYTES 4096u

struct sim_kernel kernel;

struct sim_record {
    struct sim_record *next;
    uint64_t visible_ns;
    struct sim_area *area; /* goes along; NULL */
    enum lki_message_type type;
    bool one_way; /* a release, and of what: */
    uint32_t segment;
    uint32_t attachment;
    uint32_t lock;
    size_t size_bytes;
    uint8_t bytes[];
};

/* What is known of a request id: its type, and these bits. */
#define ID_ANSWERED 0x80u
#define ID_ONE_WAY 0x40u /* a release that is not answered */

void kernel_init(void)
{
    memset(&kernel, 0, sizeof(kernel));
    fds_init();
}

/* --- Queues --- */

static uint64_t record_delay_ns(void)
{
    if (!sim_chance(sim.plan.slow_record))
        return sim_between(0, 20 * LKI_NS_PER_US);
    return sim_between(0, sim_faults() ? 8 * LKI_NS_PER_MS : LKI_NS_PER_MS);
}

/* A broker that is so busy that the client has given the barrier up when it comes. */
static uint64_t slow_request_ns(enum lki_message_type type)
{
    if (type != LKI_REQUEST_BARRIER)
        return 0;
    sim_seen.barriers_asked++;
    return sim_faults() && sim_chance(sim.plan.slow_barrier)
               ? sim_between(500 * LKI_NS_PER_MS, 1500 * LKI_NS_PER_MS)
               : 0;
}

static void append(struct sim_queue *queue, struct sim_record *record, uint64_t extra_ns)
{
    uint64_t visible_ns = sim.now_ns + record_delay_ns() + extra_ns;
    record->visible_ns = visible_ns > queue->visible_ns ? visible_ns : queue->visible_ns;
    queue->visible_ns = record->visible_ns;
    if (queue->last)
        queue->last->next = record;
    else
        queue->first = record;
    queue->last = record;
}

static struct sim_record *take(struct sim_queue *queue)
{
    struct sim_record *record = queue->first;
    queue->first = record->next;
    if (!queue->first)
        queue->last = NULL;
    return record;
}

static void clear(struct sim_queue *queue)
{
    while (queue->first)
        free(take(queue));
}

static struct sim_record *make_record(const struct lki_message *message)
{
    static uint8_t buffer[LKI_REPLY_BYTES_MAX];
    size_t size_bytes = 0;
    int r = lki_message_encode(message, buffer, sizeof(buffer), &size_bytes);
    if (r < 0)
        sim_fail("a message of type %s cannot be encoded", lki_message_type_name(message->type));
    struct sim_record *record = memory_take(MEMORY_WORLD, sizeof(*record) + size_bytes);
    record->type = message->type;
    record->one_way = message->type == LKI_REQUEST_RELEASE && message->as.hold_ref.one_way;
    if (record->one_way) {
        record->segment = message->as.hold_ref.segment;
        record->attachment = message->as.hold_ref.attachment;
        record->lock = message->as.hold_ref.lock;
    }
    record->size_bytes = size_bytes;
    memcpy(record->bytes, buffer, size_bytes);
    return record;
}

static bool is_visible(const struct sim_queue *queue)
{
    return queue->first && queue->first->visible_ns <= sim.now_ns;
}

/* --- What was asked and answered --- */

static uint8_t *state_of(struct sim_socket *socket, uint64_t id)
{
    if (id >= socket->ids_count) {
        uint64_t count = id * 2 + 64;
        uint8_t *ids = memory_take(MEMORY_WORLD, count);
        if (socket->ids_count > 0)
            memcpy(ids, socket->ids, socket->ids_count);
        free(socket->ids);
        socket->ids = ids;
        socket->ids_count = count;
    }
    return &socket->ids[id];
}

static bool is_one_way(enum lki_message_type type)
{
    return type == LKI_REQUEST_ASK || type == LKI_REQUEST_NUDGE || type == LKI_REQUEST_RESUME;
}

static void note_asked(struct sim_socket *socket, const struct lki_message *message)
{
    uint8_t *state = state_of(socket, message->id);
    bool one_way = message->type == LKI_REQUEST_RELEASE && message->as.hold_ref.one_way;
    sim_seen.one_way += one_way;
    if (*state == 0)
        *state = (uint8_t)(message->type | (one_way ? ID_ONE_WAY : 0));
}

static void note_answered(struct sim_socket *socket, const struct lki_message *message)
{
    if (message->id == 0)
        return;
    uint8_t *state = state_of(socket, message->id);
    if (*state & ID_ANSWERED)
        sim_fail("request %llu of connection %d is answered twice, with %s",
                 (unsigned long long)message->id, socket->index,
                 lki_message_type_name(message->type));
    if (*state == 0 || *state & ID_ONE_WAY || is_one_way((enum lki_message_type) * state))
        sim_fail("connection %d gets %s for request %llu, which it did not ask", socket->index,
                 lki_message_type_name(message->type), (unsigned long long)message->id);
    *state |= ID_ANSWERED;
}

enum lki_message_type kernel_type_asked(struct sim_socket *socket, uint64_t id)
{
    return (enum lki_message_type)(*state_of(socket, id) & ~(ID_ANSWERED | ID_ONE_WAY));
}

/* --- The broker's side --- */

bool kernel_send_reply(struct sim_socket *socket, const struct lki_message *message,
                       struct sim_area *area)
{
    if (!socket->client_open)
        return false;
    note_answered(socket, message);
    struct sim_record *record = make_record(message);
    record->area = area;
    append(&socket->to_client, record, 0);
    sim_mix((uint64_t)message->type << 32 | (uint64_t)socket->index);
    sim_mix(message->id);
    for (uint32_t i = 0; i < SIM_TASKS; i++)
        if (sim.tasks[i].live && sim.tasks[i].reads == socket)
            sim_wake(&sim.tasks[i], record->visible_ns);
    return true;
}

static struct lki_arena *request_arena(void)
{
    static struct lki_arena arena;
    lki_arena_reset(&arena);
    return &arena;
}

static void decode_request(const struct sim_socket *socket, const struct sim_record *record,
                           struct lki_message *out)
{
    const char *reason = "";
    int r = lki_message_decode(request_arena(), record->bytes, record->size_bytes,
                               LKI_DIRECTION_REQUEST, out, &reason);
    if (r < 0)
        sim_fail("the broker cannot read what connection %d has sent: %s", socket->index, reason);
}

static bool has_ended(const struct sim_socket *socket)
{
    return !socket->client_open && socket->end_ns <= sim.now_ns;
}

int kernel_receive_request(struct sim_socket *socket, struct lki_message *out)
{
    bool ended = has_ended(socket);
    if (ended && socket->reset)
        return 0;
    if (!is_visible(&socket->to_broker))
        return ended && !socket->to_broker.first ? 0 : -EAGAIN;
    struct sim_record *record = take(&socket->to_broker);
    decode_request(socket, record, out);
    free(record);
    return 1;
}

int kernel_peek_one_way(struct sim_socket *socket, bool last, struct lki_message *out)
{
    struct sim_queue *queue = &socket->to_broker;
    last = last || (has_ended(socket) && socket->reset);
    while (last && queue->first && !queue->first->one_way)
        free(take(queue));
    if (!queue->first || !queue->first->one_way || (!last && !is_visible(queue)))
        return 0;
    decode_request(socket, queue->first, out);
    return 1;
}

bool kernel_has_requests(const struct sim_socket *socket)
{
    return socket->to_broker.first || !socket->client_open;
}

bool kernel_has_released(uint32_t segment, uint32_t attachment, uint32_t lock)
{
    for (int i = kernel.first_open; i < kernel.socket_count; i++)
        for (const struct sim_record *record = kernel.sockets[i].to_broker.first; record;
             record = record->next)
            if (record->one_way && record->segment == segment && record->attachment == attachment &&
                record->lock == lock)
                return true;
    return false;
}

void kernel_skip_request(struct sim_socket *socket)
{
    free(take(&socket->to_broker));
}

uint64_t kernel_request_due_ns(const struct sim_socket *socket)
{
    if (!socket->accepted || !socket->broker_open)
        return LKI_TIME_NEVER;
    uint64_t end_ns = socket->client_open ? LKI_TIME_NEVER : socket->end_ns;
    if (socket->to_broker.first && !(socket->reset && end_ns <= sim.now_ns))
        return socket->to_broker.first->visible_ns;
    return end_ns;
}

void kernel_close_broker_side(struct sim_socket *socket)
{
    socket->broker_open = false;
    clear(&socket->to_broker);
    for (uint32_t i = 0; i < SIM_TASKS; i++)
        if (sim.tasks[i].live && sim.tasks[i].reads == socket)
            sim_wake(&sim.tasks[i], sim.now_ns);
}

/* --- The client's side --- */

int kernel_connect(int process)
{
    LKI_ASSERT(kernel.socket_count < SIM_SOCKETS_MAX);
    int index = kernel.socket_count++;
    struct sim_socket *socket = &kernel.sockets[index];
    *socket = (struct sim_socket){
        .index = index, .process = process, .client_open = true, .broker_open = true};
    sim_wake_worker(sim.now_ns);
    return fds_take(FD_SOCKET, index, process);
}

struct sim_socket *kernel_socket_of(int fd)
{
    const struct sim_fd *entry = fds_get(fd);
    LKI_ASSERT(entry && entry->kind == FD_SOCKET);
    return &kernel.sockets[entry->index];
}

int kernel_send_request(int fd, const struct lki_message *message)
{
    struct sim_socket *socket = kernel_socket_of(fd);
    if (!socket->broker_open)
        return -ECONNRESET;
    note_asked(socket, message);
    struct sim_record *record = make_record(message);
    append(&socket->to_broker, record, slow_request_ns(message->type));
    sim_mix((uint64_t)message->type << 32 | (uint64_t)socket->index);
    sim_mix(message->id);
    sim_wake_worker(record->visible_ns);
    return 0;
}

bool kernel_reply_is_there(int fd)
{
    const struct sim_socket *socket = kernel_socket_of(fd);
    return is_visible(&socket->to_client) || (!socket->broker_open && !socket->to_client.first);
}

void kernel_await_reply(int fd, uint64_t until_ns)
{
    const struct sim_socket *socket = kernel_socket_of(fd);
    struct sim_task *self = sim.current;
    self->reads = socket;
    while (!kernel_reply_is_there(fd) && sim.now_ns < until_ns) {
        const struct sim_record *first = socket->to_client.first;
        uint64_t next_ns = first ? first->visible_ns : LKI_TIME_NEVER;
        sim_block(next_ns < until_ns ? next_ns : until_ns);
    }
    self->reads = NULL;
}

int kernel_receive_reply(int fd, struct lki_arena *arena, struct lki_message *out,
                         struct sim_area **out_area)
{
    struct sim_socket *socket = kernel_socket_of(fd);
    if (!is_visible(&socket->to_client))
        return !socket->broker_open && !socket->to_client.first ? 0 : -EAGAIN;
    struct sim_record *record = take(&socket->to_client);
    const char *reason = "";
    int r = lki_message_decode(arena, record->bytes, record->size_bytes, LKI_DIRECTION_REPLY, out,
                               &reason);
    *out_area = record->area;
    free(record);
    if (r < 0)
        sim_fail("connection %d cannot read what the broker has sent: %s", socket->index, reason);
    return 1;
}

void kernel_close_client_side(struct sim_socket *socket, bool cut)
{
    socket->client_open = false;
    socket->end_ns = sim.now_ns + record_delay_ns();
    if (socket->end_ns < socket->to_broker.visible_ns)
        socket->end_ns = socket->to_broker.visible_ns;
    /* As the kernel has it: with replies unread, the other side gets an error before the rest. */
    socket->reset = cut && socket->to_client.first;
    clear(&socket->to_client);
    sim_wake_worker(socket->end_ns);
}

void kernel_end_process(int process)
{
    fds_close_all(process);
}

/* --- Memory --- */

struct sim_area *kernel_make_area(uint32_t number, uint64_t bytes)
{
    LKI_ASSERT(kernel.area_count < SIM_AREAS_MAX);
    struct sim_area *area = memory_take(MEMORY_WORLD, sizeof(*area));
    char *raw = memory_take(MEMORY_WORLD, bytes + PAGE_BYTES);
    area->base = raw + (PAGE_BYTES - (uintptr_t)raw % PAGE_BYTES) % PAGE_BYTES;
    area->number = number;
    area->bytes = bytes;
    area->made = true;
    for (uint32_t lock = 0; lock < SIM_LOCKS_MAX; lock++)
        area->locks[lock].writer = area->locks[lock].updater = SIM_NOBODY;
    kernel.areas[kernel.area_count++] = area;
    return area;
}

struct sim_area *kernel_find_area(uint32_t number)
{
    for (uint32_t i = kernel.area_count; i-- > 0;)
        if (kernel.areas[i]->made && kernel.areas[i]->number == number)
            return kernel.areas[i];
    return NULL;
}

struct sim_area *kernel_area_at(const void *base)
{
    for (uint32_t i = kernel.area_count; i-- > 0;)
        if (kernel.areas[i]->base == base)
            return kernel.areas[i];
    return NULL;
}

void kernel_drop_area(struct sim_area *area)
{
    if (area->maps > 0)
        sim_fail("the memory of segment %u is dropped while a living client has it mapped",
                 area->number);
    area->made = false;
}

/* --- Futexes --- */

void kernel_wake_futex(const _Atomic uint32_t *futex)
{
    for (uint32_t i = 0; i < SIM_TASKS; i++) {
        struct sim_task *task = &sim.tasks[i];
        if (!task->live || task->futex != futex)
            continue;
        uint64_t delay_ns = 0;
        if (sim_chance(sim.plan.slow_wake))
            delay_ns = sim_between(0, sim_faults() ? 3 * LKI_NS_PER_MS : 200 * LKI_NS_PER_US);
        task->futex = NULL;
        sim_seen.wakes++;
        sim_wake(task, sim.now_ns + delay_ns);
    }
}

bool kernel_is_quiet(void)
{
    for (int i = kernel.first_open; i < kernel.socket_count; i++) {
        const struct sim_socket *socket = &kernel.sockets[i];
        if (!socket->broker_open)
            continue;
        if (!socket->accepted || socket->to_broker.first || !socket->client_open)
            return false;
    }
    return true;
}
