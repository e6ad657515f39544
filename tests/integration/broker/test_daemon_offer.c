/* SPDX-License-Identifier: MIT */
/* Files offered as segments, and the descriptors that clients get. */
#include "daemon_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <lockkeeper/lockkeeper.h>

static int session;
static size_t fds_before;

static void setup(void)
{
    fixture_open();
    start_daemon(NULL);
    session = connect_raw();
    send_hello(session);
    expect_serves();
    fds_before = count_fds_at_rest();
}

static void teardown(void)
{
    close(session);
    fixture_close();
}

TestSuite(daemon_offer, .init = setup, .fini = teardown, .timeout = 60);

static const char *file_path(const char *name)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", broker.directory, name);
    return path;
}

static int make_file(const char *name, off_t size_bytes, int flags)
{
    int fd = open(file_path(name), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    cr_assert(ge(int, fd, 0));
    cr_assert(eq(int, ftruncate(fd, size_bytes), 0));
    close(fd);
    fd = open(file_path(name), flags | O_CLOEXEC);
    cr_assert(ge(int, fd, 0));
    return fd;
}

static struct reply offer(uint64_t id, int fd, uint64_t size_bytes, uint32_t flags)
{
    struct reply reply;
    struct lki_message request = open_request(id, "file", size_bytes);
    request.as.open.offered = true;
    request.as.open.flags |= flags;
    cr_assert(eq(int, send_request(session, &request, &fd, 1), 0));
    cr_assert(eq(int, receive_reply(session, &reply), 1), "%s", read_log());
    cr_assert(eq(u64, reply.message.id, id));
    return reply;
}

static struct reply open_segment(uint64_t id, const char *name, uint64_t size_bytes, uint32_t flags)
{
    struct reply reply;
    struct lki_message request = open_request(id, name, size_bytes);
    request.as.open.flags |= flags;
    cr_assert(eq(int, send_request(session, &request, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(session, &reply), 1), "%s", read_log());
    return reply;
}

static void expect_opened(const struct reply *reply)
{
    cr_assert(eq(int, reply->message.type, LKI_REPLY_OPENED), "status %d: %.*s",
              reply->message.as.result.status, (int)reply->message.as.result.detail.length_bytes,
              (const char *)reply->message.as.result.detail.data);
    cr_assert(eq(sz, reply->fd_count, 2));
}

static void close_reply(const struct reply *reply)
{
    for (size_t i = 0; i < reply->fd_count; i++)
        close(reply->fds[i]);
}

static off_t size_of(int fd)
{
    struct stat status;
    cr_assert(eq(int, fstat(fd, &status), 0));
    return status.st_size;
}

Test(daemon_offer, a_file_becomes_the_data_of_a_segment)
{
    struct stat given;
    struct stat got;
    int fd = make_file("data", 10000, O_RDWR);
    struct reply reply = offer(2, fd, 0, 0);
    expect_opened(&reply);
    cr_expect(reply.message.as.opened.file);
    cr_assert(eq(int, fstat(fd, &given), 0));
    cr_assert(eq(int, fstat(reply.fds[1], &got), 0));
    cr_expect(eq(ulong, given.st_ino, got.st_ino));
    close_reply(&reply);
    close(fd);
}

Test(daemon_offer, an_empty_file_is_extended)
{
    int fd = make_file("data", 0, O_RDWR);
    struct reply reply = offer(2, fd, 12345, 0);
    expect_opened(&reply);
    cr_expect(eq(long, size_of(fd), 12345));
    close_reply(&reply);
    close(fd);
}

Test(daemon_offer, what_is_no_writable_regular_file_is_refused_and_closed)
{
    int directory = open(broker.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int ends[2];
    cr_assert(eq(int, pipe2(ends, O_CLOEXEC), 0));
    struct {
        const char *name;
        int fd;
    } rows[] = {
        {"read-only file", make_file("data", 4096, O_RDONLY)},
        {"write-only file", make_file("data", 4096, O_WRONLY)},
        {"file by path alone", make_file("data", 4096, O_PATH)},
        {"directory", directory},
        {"pipe", ends[0]},
        {"the socket itself", session},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct reply reply = offer(2 + i, rows[i].fd, 4096, 0);
        cr_expect(eq(int, reply.message.type, LKI_REPLY_RESULT), "%s", rows[i].name);
        cr_expect(eq(int, reply.message.as.result.status, LKI_STATUS_BAD_FD), "%s", rows[i].name);
        close_reply(&reply);
    }
    expect_fds(fds_before);
}

Test(daemon_offer, another_file_under_the_same_name_is_refused)
{
    int fd = make_file("data", 4096, O_RDWR);
    int other = make_file("other", 4096, O_RDWR);
    struct reply reply = offer(2, fd, 0, 0);
    expect_opened(&reply);
    close_reply(&reply);
    size_t fds_now = count_fds_at_rest();
    reply = offer(3, other, 0, 0);
    cr_expect(eq(int, reply.message.type, LKI_REPLY_RESULT));
    cr_expect(eq(int, reply.message.as.result.status, LKI_STATUS_STALE));
    expect_fds(fds_now);
    close(fd);
    close(other);
}

Test(daemon_offer, requests_behind_an_offer_are_answered_behind_it)
{
    struct reply reply;
    int fd = make_file("data", 4096, O_RDWR);
    struct lki_message first = open_request(2, "file", 0);
    first.as.open.offered = true;
    cr_assert(eq(int, send_request(session, &first, &fd, 1), 0));
    for (uint64_t id = 3; id < 20; id++) {
        struct lki_message next = open_request(id, "other", 4096);
        cr_assert(eq(int, send_request(session, &next, NULL, 0), 0));
    }
    for (uint64_t id = 2; id < 20; id++) {
        cr_assert(eq(int, receive_reply(session, &reply), 1));
        cr_expect(eq(u64, reply.message.id, id));
        close_reply(&reply);
    }
    close(fd);
}

Test(daemon_offer, memory_is_sealed_and_of_its_full_size_from_birth)
{
    struct reply reply;
    struct lki_message request = open_request(2, "anonymous", 4096);
    request.as.open.size_max_bytes = UINT64_C(8) << 30;
    cr_assert(eq(int, send_request(session, &request, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(session, &reply), 1));
    expect_opened(&reply);
    struct stat status;
    int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    for (int i = 0; i < 2; i++) {
        cr_expect(eq(int, fcntl(reply.fds[i], F_GET_SEALS) & sealed, sealed));
        cr_assert(eq(int, fstat(reply.fds[i], &status), 0));
        cr_expect(eq(u32, status.st_mode & 0777, 0600));
    }
    cr_expect(eq(u64, (uint64_t)size_of(reply.fds[1]), UINT64_C(8) << 30));
    cr_assert(eq(int, fstat(reply.fds[1], &status), 0));
    cr_expect(lt(long, status.st_blocks, 1024), "sparse");
    close_reply(&reply);
}

Test(daemon_offer, reserved_memory_is_allocated_at_once)
{
    struct stat status;
    struct reply reply = open_segment(2, "reserved", 4 << 20, LK_RESERVE);
    expect_opened(&reply);
    cr_assert(eq(int, fstat(reply.fds[1], &status), 0));
    cr_expect(ge(long, status.st_blocks, (4 << 20) / 512));
    close_reply(&reply);
}

Test(daemon_offer, more_than_the_machine_has_is_refused_when_reserved)
{
    struct reply reply = open_segment(2, "huge", UINT64_C(1) << 45, LK_RESERVE);
    cr_expect(eq(int, reply.message.type, LKI_REPLY_RESULT));
    enum lki_status status = reply.message.as.result.status;
    cr_expect(status == LKI_STATUS_NO_SPACE || status == LKI_STATUS_NO_MEMORY, "status %d", status);
    close_reply(&reply);
    expect_fds(fds_before);
}

Test(daemon_offer, a_reader_gets_descriptors_that_cannot_write)
{
    struct reply reply = open_segment(2, "watched", 4096, 0);
    expect_opened(&reply);
    close_reply(&reply);

    int reader = connect_raw();
    struct lki_message request = open_request(2, "watched", 0);
    request.as.open.flags = LK_READ_ONLY;
    send_hello(reader);
    cr_assert(eq(int, send_request(reader, &request, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(reader, &reply), 1));
    expect_opened(&reply);
    for (int i = 0; i < 2; i++) {
        cr_expect(eq(int, fcntl(reply.fds[i], F_GETFL) & O_ACCMODE, O_RDONLY));
        void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, reply.fds[i], 0);
        cr_expect(eq(ptr, map, MAP_FAILED));
    }
    close_reply(&reply);
    close(reader);
}

Test(daemon_offer, a_file_grows_and_never_shrinks)
{
    struct reply reply;
    int fd = make_file("data", 4096, O_RDWR);
    struct lki_message request = open_request(2, "file", 0);
    request.as.open.offered = true;
    request.as.open.size_max_bytes = 1 << 20;
    cr_assert(eq(int, send_request(session, &request, &fd, 1), 0));
    cr_assert(eq(int, receive_reply(session, &reply), 1));
    expect_opened(&reply);
    close_reply(&reply);

    struct lki_message grow = {
        .type = LKI_REQUEST_GROW,
        .id = 3,
        .as.grow = {.segment = reply.message.as.opened.segment, .size_bytes = 65536}};
    cr_assert(eq(int, send_request(session, &grow, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(session, &reply), 1));
    cr_expect(eq(int, reply.message.as.result.status, LKI_STATUS_OK));
    cr_expect(eq(long, size_of(fd), 65536));

    /* Somebody else made it longer meanwhile: growing to less must not cut that off. */
    cr_assert(eq(int, ftruncate(fd, 200000), 0));
    grow.id = 4;
    grow.as.grow.size_bytes = 100000;
    cr_assert(eq(int, send_request(session, &grow, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(session, &reply), 1));
    cr_expect(eq(int, reply.message.as.result.status, LKI_STATUS_OK));
    cr_expect(eq(long, size_of(fd), 200000));
    close(fd);
}

Test(daemon_offer, an_offer_that_a_dead_worker_did_not_hear_is_repeated)
{
    struct reply reply = open_segment(2, "first", 4096, 0); /* so that the hello was answered */
    expect_opened(&reply);
    close_reply(&reply);
    int fd = make_file("data", 10000, O_RDWR);
    struct lki_message request = open_request(3, "file", 0);
    request.as.open.offered = true;

    broker.restarts = true;
    pid_t worker = worker_pid();
    cr_assert(eq(int, kill(worker, SIGSTOP), 0));
    cr_assert(eq(int, send_request(session, &request, &fd, 1), 0)); /* lies in the socket */
    cr_assert(eq(int, kill(worker, SIGKILL), 0));
    cr_assert(eq(int, receive_reply(session, &reply), 1));
    cr_assert(eq(int, reply.message.type, LKI_REPLY_RESUMED));
    struct lki_message resume = {.type = LKI_REQUEST_RESUME};
    resume.as.resume.number = reply.message.as.resumed.number;
    cr_assert(eq(int, send_request(session, &resume, NULL, 0), 0));
    cr_assert(eq(int, send_request(session, &request, &fd, 1), 0));
    cr_assert(eq(int, receive_reply(session, &reply), 1), "the session is not read any more: %s",
              read_log());
    cr_expect(eq(u64, reply.message.id, 3));
    expect_opened(&reply);
    close_reply(&reply);
    close(fd);
}
