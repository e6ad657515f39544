/* SPDX-License-Identifier: MIT */
/* Names, files and the log: A15, A16, A27, A28. */
#include "tests/hostile/hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"
#include "common/printable.h"
#include "tests/hostile/wire.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include <lockkeeper/lockkeeper.h>

/* --- A15: the design has no paths in it. Who may offer files opens them itself, so what is left is a
 * descriptor of something strange. --- */

static void refuse_offer(const struct hostile_context *context, const char *what, int taken_fd)
{
    struct hostile_reply reply = {.fd_count = 0};
    struct lki_message list = hostile_list(2, LKI_LIST_BROKER);
    struct lki_message open = hostile_open(3, "offered", LK_CREATE, 4096);
    test_check(taken_fd >= 0, "%s: %s", what, strerror(errno));
    int fd = hostile_greet(context->socket_path);
    test_check(hostile_call(fd, &list, &reply) == 0, "accepted");
    open.as.open.offered = true;
    test_check(lki_channel_send(fd, &open, &taken_fd, 1, LKI_CHANNEL_WAIT) == 0, "send %s", what);
    close(taken_fd);
    test_check(hostile_receive(fd, &reply) == 1, "%s is not answered", what);
    test_check(reply.message.type == LKI_REPLY_RESULT &&
                   reply.message.as.result.status == LKI_STATUS_BAD_FD,
               "%s is taken", what);
    close(fd);
}

static void attack_a15(const struct hostile_context *context)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/fifo", context->directory);
    test_check(mkfifo(path, 0600) == 0, "mkfifo");
    for (int i = 0; i < 10; i++) {
        refuse_offer(context, "a FIFO", open(path, O_RDWR | O_CLOEXEC));
        refuse_offer(context, "a device", open("/dev/zero", O_RDWR | O_CLOEXEC));
        refuse_offer(context, "a directory", open("/", O_RDONLY | O_CLOEXEC));
        refuse_offer(context, "a socket", socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        refuse_offer(context, "a file of /proc", open("/proc/self/status", O_RDONLY | O_CLOEXEC));
        refuse_offer(context, "a file that cannot be written",
                     open(context->log_path, O_RDONLY | O_CLOEXEC));
        refuse_offer(context, "a path", open(context->log_path, O_PATH | O_CLOEXEC));
    }
    unlink(path);
}

/* --- A16 --- */

static void attack_a16(const struct hostile_context *context)
{
    enum { BYTES = 1 << 20 };
    char path[128];
    snprintf(path, sizeof(path), "%s/file", context->directory);
    for (int i = 0; i < 20; i++) {
        struct lk_segment *segment = NULL;
        struct lk_session *session = test_session(context->socket_path);
        LKI_CLEANUP(lki_close_p) int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        test_check(fd >= 0 && ftruncate(fd, BYTES) == 0, "%s", path);
        int r = lk_segment_offer(session, "file", fd, NULL, &segment);
        test_check(r == 0 || r == LK_CREATED, "offer: %d, %s", r, lk_last_error());
        /* Under everybody's maps: the broker has none of it. */
        test_check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BYTES) == 0 &&
                       ftruncate(fd, 0) == 0,
                   "truncate");
        r = lk_segment_grow(segment, 2 * BYTES);
        test_check(r == 0 || r == -EFBIG, "grow: %d, %s", r, lk_last_error());
        lk_session_close(session);
    }
    unlink(path);
}

/* --- A27 --- */

struct wrong_name {
    const char *what;
    const char *bytes;
    size_t length_bytes;
    enum lki_status status;
};

static void try_name(int fd, uint64_t id, const struct wrong_name *name)
{
    struct hostile_reply reply;
    struct lki_message open = hostile_open(id, "", LK_CREATE, 0);
    open.as.open.name = (struct lki_bytes){.data = (const uint8_t *)name->bytes,
                                           .length_bytes = name->length_bytes};
    int r = hostile_call(fd, &open, &reply);
    hostile_reply_close(&reply);
    test_check(r == (int)name->status, "%s is answered by %d", name->what, r);
}

static void collide(int fd, uint64_t id)
{
    /* Names alike but for bits that a weak hash loses. The hash is seeded; here they only have to
     * work. */
    char name[64];
    for (uint64_t i = 0; i < 500; i++) {
        struct hostile_reply reply;
        snprintf(name, sizeof(name), "%016llx%016llx", (unsigned long long)(i << 48),
                 (unsigned long long)~i);
        struct lki_message open = hostile_open(id + 2 * i, name, LK_CREATE, 0);
        struct lki_message remove = {
            .type = LKI_REQUEST_REMOVE, .id = id + 2 * i + 1, .as.remove.name = open.as.open.name};
        test_check(hostile_call(fd, &open, &reply) == 0, "%s", name);
        hostile_reply_close(&reply);
        if (i % 2)
            test_check(hostile_call(fd, &remove, &reply) == 0, "%s", name);
    }
}

static void attack_a27(const struct hostile_context *context)
{
    static char huge[1 << 20];
    static char most[LKI_NAME_BYTES_MAX + 1];
    static char filled[LKI_REQUEST_BYTES_MAX - 64];
    const struct wrong_name names[] = {
        {"no name", "", 0, LKI_STATUS_INVALID},
        {"256 bytes", most, LKI_NAME_BYTES_MAX + 1, LKI_STATUS_INVALID},
        {"255 bytes", most, LKI_NAME_BYTES_MAX, LKI_STATUS_OK},
        {"a record full", filled, sizeof(filled), LKI_STATUS_INVALID},
        {"a zero byte", "a\0b", 3, LKI_STATUS_INVALID},
        {"a slash", "a/b", 3, LKI_STATUS_INVALID},
        {"a path", "../../etc/passwd", 16, LKI_STATUS_INVALID},
        {"a control byte", "a\x1b[2J", 5, LKI_STATUS_INVALID},
        {"U+009B", "a\xc2\x9b", 3, LKI_STATUS_INVALID},
        {"no UTF-8", "a\xff", 2, LKI_STATUS_INVALID},
        {"overlong UTF-8", "a\xc0\xaf", 3, LKI_STATUS_INVALID},
        {"a lock's name", "a#b", 3, LKI_STATUS_INVALID},
        {"the prober's", "~20001/squat", 12, LKI_STATUS_DENIED},
        {"root's", "~0/squat", 8, LKI_STATUS_DENIED},
        {"a foreign group's", "@0/squat", 8, LKI_STATUS_DENIED},
        {"nobody's", "~99999999999999999999/x", 23, LKI_STATUS_INVALID},
        {"format directives", "%n%s%n%s", 8, LKI_STATUS_OK},
    };
    memset(most, 'n', sizeof(most));
    memset(filled, 'n', sizeof(filled));
    int fd = hostile_connect(context->socket_path);
    (void)hostile_send_bytes(fd, huge, sizeof(huge), NULL, 0);
    close(fd);
    fd = hostile_greet(context->socket_path);
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(names); i++)
        try_name(fd, 2 + i, &names[i]);
    collide(fd, 1000);
    close(fd);
}

/* --- A28 --- */

static const struct hostile_context *target;

/* What can be in a line comes from us: names of segments and of processes, and reasons. A ring of
 * two of our sessions is reported with the commands in it. */
static int close_ring(void *arg)
{
    static const char *const commands[] = {"\x1b]0;owned\a",
                                           "\x1b[31m",
                                           "\n<0>forged",
                                           "\x9b"
                                           "31m",
                                           "\xc2\x9b"
                                           "31m",
                                           "%n%n%n%n"};
    unsigned number = (unsigned)(uintptr_t)arg;
    char name[32];
    snprintf(name, sizeof(name), "ring-%u", number);
    test_check(prctl(PR_SET_NAME, commands[number % LKI_ARRAY_LENGTH(commands)]) == 0, "prctl");

    struct hostile_reply reply;
    struct lki_message open = hostile_open(2, name, LK_CREATE | LK_STRICT, 0);
    int one = hostile_greet(target->socket_path);
    int two = hostile_greet(target->socket_path);
    uint32_t segment = hostile_open_segment(one, &open);
    (void)hostile_open_segment(two, &open);
    struct lki_message first = hostile_acquire(3, segment, 0, LKI_TIME_NEVER);
    struct lki_message second = hostile_acquire(3, segment, 1, LKI_TIME_NEVER);
    test_check(hostile_call(one, &first, &reply) == 0, "free");
    test_check(hostile_call(two, &second, &reply) == 0, "free");
    second.id = first.id = 4;
    test_check(hostile_send(one, &second) == 0 && hostile_send(two, &first) == 0, "send");
    /* One of the two is refused; then both end badly. */
    struct lki_message list = hostile_list(5, LKI_LIST_BROKER);
    test_check(hostile_call(one, &list, &reply) == 0 && hostile_call(two, &list, &reply) == 0,
               "served");
    (void)hostile_send_bytes(one, "\xff\xff", 2, NULL, 0);
    (void)hostile_send_bytes(two, "\xff\xff", 2, NULL, 0);
    return 0;
}

static void attack_a28(const struct hostile_context *context)
{
    uint64_t end_ns = lki_clock_now_ns() + 1500 * LKI_NS_PER_MS;
    target = context;
    for (uintptr_t i = 0; lki_clock_now_ns() < end_ns; i++)
        test_reap_success(test_spawn(close_ring, (void *)i));
}

/* No byte in the log moves a cursor, and no second has more than its lines. */
static void verify_a28(const struct hostile_context *context)
{
    char line[4096];
    char when[21] = "";
    unsigned in_second = 0;
    unsigned lines = 0;
    bool named = false;
    FILE *log = fopen(context->log_path, "re");
    test_check(log != NULL, "%s", context->log_path);
    while (fgets(line, sizeof(line), log)) {
        size_t length = strcspn(line, "\n");
        test_check(line[length] == '\n', "a line of %zu bytes", length);
        line[length] = '\0';
        for (const char *p = line; *p; p += lki_printable_bytes(p))
            test_check(lki_printable_bytes(p) > 0, "byte %#x in the log", (unsigned char)*p);
        in_second = strncmp(line, when, 20) == 0 ? in_second + 1 : 1;
        memcpy(when, line, 20);
        test_check(in_second <= 110, "%u lines in a second",
                   in_second); /* of two windows, and one */
        named |= strstr(line, "\\x1b]0;owned\\x07") != NULL;
        lines++;
    }
    fclose(log);
    test_check(named && lines > 50, "%u lines, and no ring in them", lines);
}

static const struct hostile_row rows[] = {
    {.id = "A15",
     .title = "what is no file, offered as one",
     .attack = attack_a15,
     .flags = HOSTILE_AS_BROKER},
    {.id = "A16",
     .title = "files truncated and punched under the map",
     .attack = attack_a16,
     .flags = HOSTILE_AS_BROKER},
    {.id = "A27", .title = "names that cannot be, or are somebody else's", .attack = attack_a27},
    {.id = "A28",
     .title = "lines for the log, with escape sequences",
     .attack = attack_a28,
     .verify = verify_a28},
};

int main(int argc, char **argv)
{
    return hostile_main(argc, argv, rows, LKI_ARRAY_LENGTH(rows));
}
