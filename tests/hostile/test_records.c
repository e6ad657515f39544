/* SPDX-License-Identifier: MIT */
/* Records that are wrong, and connections that are used wrongly: A1 to A4, A10, A11. */
#include "tests/hostile/hostile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "proto/codec.h"
#include "tests/hostile/wire.h"
#include "tests/support/process.h"
#include <lockkeeper/lockkeeper.h>

#define ROUNDS 300
#define RECORD_BYTES_MAX 65536u

/* --- A1 --- */

/* Any length, the borders too. */
static size_t random_length(struct test_random *random)
{
    static const size_t borders[] = {1,
                                     2,
                                     LKI_REQUEST_BYTES_MAX - 1,
                                     LKI_REQUEST_BYTES_MAX,
                                     LKI_REQUEST_BYTES_MAX + 1,
                                     RECORD_BYTES_MAX};
    if (test_random_below(random, 2) == 0)
        return borders[test_random_below(random, LKI_ARRAY_LENGTH(borders))];
    return 1 + test_random_below(random, 64);
}

/* Whether it happens to be right, and asks for a segment that stays: the broker would do well to obey, and
 * would not be afterwards what it was before. */
static bool asks_to_keep(const uint8_t *bytes, size_t length)
{
    static struct lki_arena arena;
    struct lki_message message;
    const char *reason;
    return lki_message_decode(&arena, bytes, length, LKI_DIRECTION_REQUEST, &message, &reason) ==
               0 &&
           message.type == LKI_REQUEST_OPEN && message.as.open.flags & LK_KEEP;
}

/* Half of the time a valid record with some bytes changed, which gets further. */
static size_t random_record(struct test_random *random, uint8_t *bytes)
{
    size_t length = random_length(random);
    struct lki_message open = hostile_open(2, "any", LK_CREATE, 4096);
    if (test_random_below(random, 2) == 0) {
        test_check(lki_message_encode(&open, bytes, RECORD_BYTES_MAX, &length) == 0, "encode");
        for (int i = 0; i < 3; i++)
            bytes[test_random_below(random, length)] = (uint8_t)test_random_next(random);
        return asks_to_keep(bytes, length) ? random_record(random, bytes) : length;
    }
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)test_random_next(random);
    return length;
}

static void random_bytes(const struct hostile_context *context)
{
    static uint8_t bytes[RECORD_BYTES_MAX];
    struct test_random random = {.state = context->seed};
    for (int i = 0; i < ROUNDS; i++) {
        int fd =
            i % 2 ? hostile_greet(context->socket_path) : hostile_connect(context->socket_path);
        size_t length = random_record(&random, bytes);
        (void)hostile_send_bytes(fd, bytes, length, NULL, 0);
        /* A record that happens to be right is answered. So is this one, unless it was wrong. */
        struct hostile_reply reply;
        struct lki_message list = hostile_list(UINT64_MAX, LKI_LIST_BROKER);
        int r = hostile_call(fd, &list, &reply);
        test_check(r >= 0 || r == -ECONNRESET || r == -EPIPE, "round %d: %d", i, r);
        close(fd);
    }
}

static void wrong_versions(const struct hostile_context *context)
{
    struct hostile_reply reply;
    for (unsigned i = 0; i < 4; i++) {
        struct lki_message hello = hostile_hello();
        if (i & 1)
            hello.as.hello.protocol_major = i & 2 ? 0 : UINT32_MAX;
        else
            hello.as.hello.layout_major = i & 2 ? 0 : UINT32_MAX;
        int fd = hostile_connect(context->socket_path);
        int r = hostile_call(fd, &hello, &reply);
        test_check(r == (int)LKI_STATUS_VERSION, "another version is answered by %d", r);
        test_check(hostile_is_dropped(fd), "it may stay");
        close(fd);
    }
}

static void attack_a1(const struct hostile_context *context)
{
    static const uint8_t too_long[LKI_REQUEST_BYTES_MAX + 1];
    static const size_t lengths[] = {0, 1, sizeof(too_long)};
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(lengths); i++) {
        int fd = hostile_connect(context->socket_path);
        (void)hostile_send_bytes(fd, too_long, lengths[i], NULL, 0);
        test_check(hostile_is_dropped(fd), "%zu bytes are taken", lengths[i]);
        close(fd);
    }
    wrong_versions(context);
    random_bytes(context);
}

/* --- A2 --- */

struct bomb {
    const char *name;
    void (*make)(uint8_t *bytes, size_t *size_bytes);
};

/* Repeats a pattern up to the most that a record may have. */
static void repeat(const uint8_t *pattern, size_t pattern_bytes, uint8_t *bytes, size_t *size_bytes)
{
    *size_bytes = LKI_REQUEST_BYTES_MAX / pattern_bytes * pattern_bytes;
    for (size_t i = 0; i < *size_bytes; i++)
        bytes[i] = pattern[i % pattern_bytes];
}

/* Field 136 (list_page) with an empty page, whose entries are field 2: two bytes each. */
static void make_items(uint8_t *bytes, size_t *size_bytes)
{
    static const uint8_t entry[] = {0x12, 0x00};
    const uint8_t head[] = {0xc2, 0x08, 0xf8, 0x7f}; /* 16376 bytes follow */
    repeat(entry, sizeof(entry), bytes, size_bytes);
    memmove(bytes + sizeof(head), bytes, 16376);
    memcpy(bytes, head, sizeof(head));
    *size_bytes = sizeof(head) + 16376;
}

static void make_varints(uint8_t *bytes, size_t *size_bytes)
{
    static const uint8_t id[] = {0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    repeat(id, sizeof(id), bytes, size_bytes);
}

static void make_unknown(uint8_t *bytes, size_t *size_bytes)
{
    static const uint8_t field[] = {0xa2, 0x38, 0x00}; /* field 900, empty */
    repeat(field, sizeof(field), bytes, size_bytes);
}

static void make_duplicates(uint8_t *bytes, size_t *size_bytes)
{
    static const uint8_t open[] = {0xb2, 0x06, 0x00}; /* field 102, empty: once is a message */
    repeat(open, sizeof(open), bytes, size_bytes);
}

static void make_truncated(uint8_t *bytes, size_t *size_bytes)
{
    memset(bytes, 0xff, 9); /* a tag that goes on */
    *size_bytes = 9;
}

static void make_too_long(uint8_t *bytes, size_t *size_bytes)
{
    static const uint8_t name[] = {0x08, 0x02, 0xb2, 0x06, 0x06, 0x0a,
                                   0xff, 0xff, 0xff, 0xff, 0x0f};
    memcpy(bytes, name, sizeof(name)); /* a name of 4 GiB in a message of 6 bytes */
    *size_bytes = sizeof(name);
}

static void make_nested(uint8_t *bytes, size_t *size_bytes)
{
    static const uint8_t group[] = {0x0b}; /* begins a group in a group, and never ends one */
    repeat(group, sizeof(group), bytes, size_bytes);
}

static void attack_a2(const struct hostile_context *context)
{
    static const struct bomb bombs[] = {
        {"8,000 items", make_items},         {"10-byte varints", make_varints},
        {"unknown fields", make_unknown},    {"one message many times", make_duplicates},
        {"a truncated tag", make_truncated}, {"a length beyond the end", make_too_long},
        {"nested groups", make_nested},
    };
    static uint8_t bytes[LKI_REQUEST_BYTES_MAX];
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < LKI_ARRAY_LENGTH(bombs); i++) {
            size_t size_bytes;
            bombs[i].make(bytes, &size_bytes);
            int fd = hostile_greet(context->socket_path);
            (void)hostile_send_bytes(fd, bytes, size_bytes, NULL, 0);
            test_check(hostile_is_dropped(fd), "%s are taken", bombs[i].name);
            close(fd);
        }
    }
}

/* --- A3 --- */

static void attack_a3(const struct hostile_context *context)
{
    enum { CONNECTIONS = 40 };
    static const uint8_t too_long[RECORD_BYTES_MAX];
    int fds[CONNECTIONS];
    int holder = hostile_greet(context->socket_path);
    struct lki_message open = hostile_open(2, "held", LK_CREATE | LK_STRICT, 0);
    uint32_t segment = hostile_open_segment(holder, &open);
    struct lki_message acquire = hostile_acquire(3, segment, 0, LKI_TIME_NEVER);
    struct hostile_reply reply;
    test_check(hostile_call(holder, &acquire, &reply) == 0, "a free lock");

    for (int i = 0; i < CONNECTIONS; i++) {
        fds[i] = hostile_greet(context->socket_path);
        segment = hostile_open_segment(fds[i], &open);
        acquire = hostile_acquire(3, segment, 0, LKI_TIME_NEVER);
        test_check(hostile_send(fds[i], &acquire) == 0, "send");
        switch (i % 4) {
        case 0: /* what is outstanding is answered or dropped, and nothing is asked for ever */
        case 1:
            shutdown(fds[i], i % 4 ? SHUT_RDWR : SHUT_WR);
            break;
        case 2:
            (void)hostile_send_bytes(fds[i], "", 0, NULL, 0);
            break;
        case 3:
            (void)hostile_send_bytes(fds[i], too_long, sizeof(too_long), NULL, 0);
            break;
        }
    }
    hostile_hold();
    for (int i = 0; i < CONNECTIONS; i++) {
        test_check(hostile_is_dropped(fds[i]), "connection %d lives", i);
        close(fds[i]);
    }
    close(holder);
}

/* --- A4 --- */

static void attack_a4(const struct hostile_context *context)
{
    enum { SILENT = 300, DRIPS = 100 };
    int fds[SILENT];
    for (int i = 0; i < SILENT; i++) {
        fds[i] = hostile_connect(context->socket_path);
        test_check(fds[i] >= 0, "connection %d: %s", i, strerror(-fds[i]));
    }
    hostile_hold(); /* no timer runs for them */

    /* One record now and then, on a connection in use and by saying hello late. */
    int slow = hostile_greet(context->socket_path);
    struct hostile_reply reply;
    for (uint64_t i = 0; i < DRIPS; i++) {
        struct lki_message list = hostile_list(2 + i, LKI_LIST_BROKER);
        struct lki_message hello = hostile_hello();
        test_check(hostile_call(slow, &list, &reply) == 0, "a slow client is a client");
        (void)hostile_send(fds[i], &hello); /* may have been parted with after 2 s */
        test_sleep_ns(5 * LKI_NS_PER_MS);
    }
    for (int i = 0; i < SILENT; i++)
        close(fds[i]);
    close(slow);
}

/* --- A10 --- */

/* Sends a record that says who we are. Returns as sendmsg(2). */
static ssize_t send_as(int fd, const struct lki_message *request, const struct ucred *who)
{
    uint8_t bytes[1024];
    size_t size_bytes;
    test_check(lki_message_encode(request, bytes, sizeof(bytes), &size_bytes) == 0, "encode");
    struct iovec io = {.iov_base = bytes, .iov_len = size_bytes};
    union {
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    struct msghdr message = {.msg_iov = &io,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_CREDENTIALS;
    header->cmsg_len = CMSG_LEN(sizeof(*who));
    memcpy(CMSG_DATA(header), who, sizeof(*who));
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

/* Without the rights of root, who may forge anything, and could as well end the broker. */
static void attack_a10(const struct hostile_context *context)
{
    struct hostile_reply reply;
    int fd = hostile_greet(context->socket_path);
    struct ucred root = {.pid = context->broker_pid, .uid = 0, .gid = 0};
    struct ucred own = {.pid = getpid(), .uid = getuid(), .gid = getgid()};
    struct lki_message list = hostile_list(2, LKI_LIST_BROKER);
    test_check(send_as(fd, &list, &root) < 0 && errno == EPERM, "the kernel took a forgery");
    test_check(send_as(fd, &list, &own) > 0, "own credentials");
    test_check(hostile_receive(fd, &reply) == 1, "what nobody asked for is ignored");
    test_check(send(fd, "!", 1, MSG_OOB | MSG_NOSIGNAL) < 0 && errno == EOPNOTSUPP, "MSG_OOB");

    /* Nor do effective ids matter that are not ours. */
    struct lki_message open = hostile_open(3, "~0/forged", LK_CREATE, 0);
    int r = hostile_call(fd, &open, &reply);
    test_check(r == (int)LKI_STATUS_DENIED, "a segment of root's: %d", r);
    open = hostile_open(4, "~20001/native", 0, 0);
    r = hostile_call(fd, &open, &reply);
    test_check(r == (int)LKI_STATUS_DENIED, "a segment of the prober's: %d", r);
    close(fd);
}

/* --- A11 --- */

static void attack_a11(const struct hostile_context *context)
{
    enum { CONNECTIONS = 8 };
    struct lki_message list = hostile_list(0, LKI_LIST_SEGMENTS);
    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = hostile_greet(context->socket_path);
        int r = 0;
        uint64_t deadline_ns = lki_clock_now_ns() + 10 * LKI_NS_PER_S;
        for (list.id = 2; r == 0 || r == -EAGAIN; list.id += r == 0) {
            r = lki_channel_send(fd, &list, NULL, 0, LKI_CHANNEL_NO_WAIT);
            test_check(lki_clock_now_ns() < deadline_ns, "it may queue for ever");
        }
        test_check(hostile_is_dropped(fd), "it was not dropped: %s", strerror(-r));
        close(fd);
    }
}

static const struct hostile_row rows[] = {
    {.id = "A1", .title = "random bytes, wrong lengths, wrong versions", .attack = attack_a1},
    {.id = "A2", .title = "records that unpack to much more", .attack = attack_a2},
    {.id = "A3",
     .title = "empty and cut records, and an end with requests under way",
     .attack = attack_a3},
    {.id = "A4", .title = "connections that are silent or slow", .attack = attack_a4},
    {.id = "A10", .title = "forged credentials and urgent bytes", .attack = attack_a10},
    {.id = "A11", .title = "a client that never reads", .attack = attack_a11},
};

int main(int argc, char **argv)
{
    return hostile_main(argc, argv, rows, LKI_ARRAY_LENGTH(rows));
}
