/* SPDX-License-Identifier: MIT */
/* Against a socket that plays the manager: exact datagrams, and what the environment may say. */
#include "broker/keeper/service_manager.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"

static const char *const variables[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                        "LISTEN_FDS",    "LISTEN_PID",    "LISTEN_FDNAMES"};

static struct lkd_service service = {.socket_fd = -1};
static char directory[64];
static char manager_path[96];
static int manager_fd = -1;

static char problem[512]; /* the last one */
static int problem_count;

static void on_problem(const char *text, void *user)
{
    (void)user;
    snprintf(problem, sizeof(problem), "%s", text);
    problem_count++;
}

static void reopen(void)
{
    lkd_service_close(&service);
    problem_count = 0;
    problem[0] = '\0';
    lkd_service_open(&service, on_problem, NULL);
}

/* A manager that listens at this address; abstract when it begins with '@'. */
static void listen_as_manager(const char *text)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int credentials = 1;
    size_t length = strlen(text);
    memcpy(address.sun_path, text, length);
    if (text[0] == '@')
        address.sun_path[0] = '\0';
    manager_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    cr_assert(ge(int, manager_fd, 0));
    cr_assert(eq(int,
                 bind(manager_fd, (struct sockaddr *)&address,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)),
                 0));
    setsockopt(manager_fd, SOL_SOCKET, SO_PASSCRED, &credentials, sizeof(credentials));
    setenv("NOTIFY_SOCKET", text, 1);
}

static void setup(void)
{
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(variables); i++)
        unsetenv(variables[i]);
    snprintf(directory, sizeof(directory), "/tmp/lk-service-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(directory), NULL));
    snprintf(manager_path, sizeof(manager_path), "%s/notify", directory);
}

static void setup_managed(void)
{
    setup();
    listen_as_manager(manager_path);
    reopen();
    cr_assert(eq(int, problem_count, 0), "%s", problem);
}

static void teardown(void)
{
    lkd_service_close(&service);
    manager_fd = lki_close(manager_fd);
    (void)unlink(manager_path);
    cr_expect(eq(int, rmdir(directory), 0));
}

TestSuite(service_told, .init = setup_managed, .fini = teardown, .timeout = 20);
TestSuite(service_read, .init = setup, .fini = teardown, .timeout = 20);
TestSuite(service_fds, .init = setup, .fini = teardown, .timeout = 20);

/* What the manager receives next, with at most one descriptor (-1: none). */
static const char *receive(int *out_fd)
{
    static char text[8192];
    union {
        struct cmsghdr header;
        char bytes[512];
    } control;
    struct iovec body = {.iov_base = text, .iov_len = sizeof(text) - 1};
    struct msghdr message = {.msg_iov = &body,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    pid_t sender = 0;
    *out_fd = -1;
    ssize_t length = recvmsg(manager_fd, &message, MSG_CMSG_CLOEXEC);
    if (length < 0)
        return NULL;
    text[length] = '\0';
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_type == SCM_CREDENTIALS) {
            struct ucred credentials;
            memcpy(&credentials, CMSG_DATA(part), sizeof(credentials));
            sender = credentials.pid;
        } else if (part->cmsg_type == SCM_RIGHTS) {
            cr_assert(eq(sz, part->cmsg_len, CMSG_LEN(sizeof(int))));
            memcpy(out_fd, CMSG_DATA(part), sizeof(int));
        }
    }
    cr_expect(eq(int, sender, getpid()), "the manager sees who speaks");
    return text;
}

static void expect_told(const char *text)
{
    int fd;
    const char *received = receive(&fd);
    cr_assert(ne(ptr, (void *)received, NULL), "nothing was sent, expected '%s'", text);
    cr_expect(eq(str, (char *)received, (char *)text));
    cr_expect(eq(int, fd, -1));
}

static void expect_silence(void)
{
    int fd;
    const char *received = receive(&fd);
    cr_expect(eq(ptr, (void *)received, NULL), "told: %s", received);
}

/* --- Telling --- */

Test(service_told, an_assignment_is_one_datagram_as_it_is)
{
    cr_assert(eq(int, lkd_service_notify(&service, "READY=1\nMAINPID=12"), 0));
    cr_assert(eq(int, lkd_service_notify(&service, "STOPPING=1"), 0));
    expect_told("READY=1\nMAINPID=12");
    expect_told("STOPPING=1");
    expect_silence();
}

Test(service_told, a_status_cannot_smuggle_an_assignment_in)
{
    cr_assert(eq(int, lkd_service_status(&service, "%d at %s", 3, "a\nSTOPPING=1\x7f\xff\tz"), 0));
    expect_told("STATUS=3 at a?STOPPING=1???z");
}

Test(service_told, a_long_status_is_cut)
{
    char text[2000];
    int fd;
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    cr_assert(eq(int, lkd_service_status(&service, "%s", text), 0));
    const char *received = receive(&fd);
    cr_assert(ne(ptr, (void *)received, NULL));
    cr_expect(eq(int, strncmp(received, "STATUS=xxx", 10), 0));
    cr_expect(lt(sz, strlen(received), 600));
}

Test(service_told, what_the_manager_would_drop_is_not_sent)
{
    static char text[LKD_SERVICE_MESSAGE_BYTES_MAX + 2];
    int fd;
    memset(text, 'x', sizeof(text) - 1);
    cr_expect(eq(int, lkd_service_notify(&service, text), -EMSGSIZE));
    expect_silence();
    text[LKD_SERVICE_MESSAGE_BYTES_MAX] = '\0';
    cr_expect(eq(int, lkd_service_notify(&service, text), 0));
    const char *received = receive(&fd);
    cr_assert(ne(ptr, (void *)received, NULL));
    cr_expect(eq(sz, strlen(received), LKD_SERVICE_MESSAGE_BYTES_MAX));
}

Test(service_told, a_stored_descriptor_arrives_with_its_name)
{
    struct stat sent;
    struct stat stored;
    int fd;
    LKI_CLEANUP(lki_close_p) int memory_fd = memfd_create("area", MFD_CLOEXEC);
    cr_assert(ge(int, memory_fd, 0));
    cr_assert(eq(int, lkd_service_store(&service, "seg-7-area", memory_fd), 0));
    const char *received = receive(&fd);
    cr_assert(ne(ptr, (void *)received, NULL));
    cr_expect(eq(str, (char *)received, "FDSTORE=1\nFDNAME=seg-7-area\nFDPOLL=0"));
    cr_assert(ge(int, fd, 0));
    cr_assert(eq(int, fstat(memory_fd, &sent), 0), "the caller keeps its own");
    cr_assert(eq(int, fstat(fd, &stored), 0));
    cr_expect(eq(u64, stored.st_ino, sent.st_ino));
    close(fd);

    cr_assert(eq(int, lkd_service_forget(&service, "seg-7-area"), 0));
    expect_told("FDSTOREREMOVE=1\nFDNAME=seg-7-area");
}

Test(service_told, a_name_that_would_break_the_protocol_is_refused)
{
    static const struct {
        const char *why;
        const char *name;
    } rows[] = {
        {"empty", ""},       {"separator of names", "a:b"}, {"line feed", "a\nREADY=1"},
        {"delete", "a\x7f"}, {"not ASCII", "a\xc3\xa4"},
    };
    char longest[LKD_SERVICE_FD_NAME_BYTES_MAX + 2];
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(rows); i++) {
        cr_expect(eq(int, lkd_service_store(&service, rows[i].name, 0), -EINVAL), "%s",
                  rows[i].why);
        cr_expect(eq(int, lkd_service_forget(&service, rows[i].name), -EINVAL), "%s", rows[i].why);
    }
    memset(longest, 'n', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    cr_expect(eq(int, lkd_service_forget(&service, longest), -EINVAL), "256 bytes");
    cr_expect(eq(int, lkd_service_store(&service, "good", -1), -EINVAL), "no descriptor");
    expect_silence();
    longest[LKD_SERVICE_FD_NAME_BYTES_MAX] = '\0';
    cr_expect(eq(int, lkd_service_forget(&service, longest), 0), "255 bytes");
}

Test(service_told, a_manager_that_does_not_read_blocks_nobody)
{
    int r = 0;
    for (int i = 0; i < 100000 && r == 0; i++)
        r = lkd_service_notify(&service, "WATCHDOG=1");
    cr_assert(eq(int, r, -EAGAIN));
    expect_told("WATCHDOG=1");
    cr_expect(eq(int, lkd_service_notify(&service, "READY=1"), 0), "there is room again");
}

Test(service_told, a_manager_that_has_gone_is_an_error_and_one_that_came_back_is_heard)
{
    manager_fd = lki_close(manager_fd);
    cr_expect(eq(int, lkd_service_notify(&service, "READY=1"), -ECONNREFUSED));
    (void)unlink(manager_path);
    cr_expect(eq(int, lkd_service_notify(&service, "READY=1"), -ENOENT));
    listen_as_manager(manager_path);
    cr_expect(eq(int, lkd_service_notify(&service, "READY=1"), 0));
    expect_told("READY=1");
}

/* --- Reading --- */

Test(service_read, without_a_manager_every_call_is_nothing)
{
    reopen();
    cr_expect(eq(int, problem_count, 0), "%s", problem);
    cr_expect(not(lkd_service_is_managed(&service)));
    cr_expect(eq(int, lkd_service_notify(&service, "READY=1"), 0));
    cr_expect(eq(int, lkd_service_status(&service, "idle"), 0));
    cr_expect(eq(int, lkd_service_store(&service, "name", STDIN_FILENO), 0));
    cr_expect(eq(int, lkd_service_forget(&service, "name"), 0));
    cr_expect(eq(u64, lkd_service_ping_interval_ms(&service), 0));
    cr_expect(eq(ptr, lkd_service_find_listener(&service, false), NULL));
}

Test(service_read, an_abstract_address_is_spoken_to)
{
    char name[64];
    snprintf(name, sizeof(name), "@lk-service-test-%d", getpid());
    listen_as_manager(name);
    reopen();
    cr_assert(eq(int, problem_count, 0), "%s", problem);
    cr_expect(eq(int, lkd_service_notify(&service, "READY=1"), 0));
    expect_told("READY=1");
}

Test(service_read, an_address_that_cannot_be_is_named_and_ignored)
{
    char path[160];
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[108] = '\0';
    const char *const rows[] = {"relative", "/", "@", "vsock:2:1234", path};
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(rows); i++) {
        setenv("NOTIFY_SOCKET", rows[i], 1);
        reopen();
        cr_expect(eq(int, problem_count, 1), "%s", rows[i]);
        cr_expect(ne(ptr, strstr(problem, "NOTIFY_SOCKET"), NULL), "%s", problem);
        cr_expect(not(lkd_service_is_managed(&service)), "%s", rows[i]);
        cr_expect(eq(ptr, getenv("NOTIFY_SOCKET"), NULL));
    }
}

Test(service_read, the_watchdog_is_pinged_three_times_per_interval)
{
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", getpid());
    setenv("WATCHDOG_USEC", "30000000", 1);
    setenv("WATCHDOG_PID", pid, 1);
    reopen();
    cr_expect(eq(int, problem_count, 0), "%s", problem);
    cr_expect(eq(u64, service.watchdog_ns, 30 * LKI_NS_PER_S));
    cr_expect(eq(u64, lkd_service_ping_interval_ms(&service), 10000));
    cr_expect(eq(ptr, getenv("WATCHDOG_USEC"), NULL));
    cr_expect(eq(ptr, getenv("WATCHDOG_PID"), NULL));

    setenv("WATCHDOG_USEC", "1", 1);
    reopen();
    cr_expect(eq(u64, lkd_service_ping_interval_ms(&service), 1), "never 0: that means none");
}

Test(service_read, a_watchdog_that_is_not_ours_or_cannot_be_is_ignored)
{
    static const struct {
        const char *interval;
        const char *pid;
        int problems;
    } rows[] = {
        {"30000000", "1", 0}, /* a parent's */
        {"0", NULL, 1},
        {"-1", NULL, 1},
        {"", NULL, 1},
        {"30s", NULL, 1},
        {" 5", NULL, 1},
        {"18446744073709551615", NULL, 1},
        {"18446744073709551616", NULL, 1},
        {"30000000", "me", 1},
        {"30000000", "0", 1},
        {"30000000", "4294967296", 1},
    };
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(rows); i++) {
        setenv("WATCHDOG_USEC", rows[i].interval, 1);
        if (rows[i].pid != NULL)
            setenv("WATCHDOG_PID", rows[i].pid, 1);
        reopen();
        cr_expect(eq(int, problem_count, rows[i].problems), "'%s': %s", rows[i].interval, problem);
        cr_expect(eq(u64, service.watchdog_ns, 0), "'%s'", rows[i].interval);
    }
}

Test(service_read, what_belongs_to_a_client_is_unset_and_not_used)
{
    listen_as_manager(manager_path);
    setenv("WATCHDOG_USEC", "30000000", 1);
    setenv("LISTEN_FDS", "1", 1);
    lkd_service_open_none(&service);
    cr_expect(not(lkd_service_is_managed(&service)));
    cr_expect(eq(u64, service.watchdog_ns, 0));
    cr_expect(eq(int, lkd_service_notify(&service, "READY=1"), 0));
    expect_silence();
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(variables); i++)
        cr_expect(eq(ptr, getenv(variables[i]), NULL), "%s", variables[i]);
}

/* --- Inherited descriptors: in a child, which may use the numbers from 3 on --- */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s; %d problems, last: %s\n", __LINE__, #condition,          \
                    problem_count, problem);                                                       \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

#ifdef LKD_COUNTS_LINES
void __gcov_dump(void);
#else
#define __gcov_dump()
#endif

/* Runs body in a child that has the standard descriptors alone. */
static void expect_in_child(int (*body)(void))
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close_range(3, ~0U, 0);
        manager_fd = -1;
        int result = body();
        __gcov_dump(); /* else what ran here would not be counted */
        _exit(result);
    }
    cr_assert(gt(int, pid, 0));
    cr_assert(eq(int, waitpid(pid, &status, 0), pid));
    cr_expect(eq(int, status, 0), "see stderr");
}

static void set_fds(const char *count, const char *names)
{
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", count, 1);
    if (names != NULL)
        setenv("LISTEN_FDNAMES", names, 1);
}

/* Makes descriptor 3 a listener, 4 a memfd and 5 a listener; none is close-on-exec. */
static int make_fds(void)
{
    for (int fd = 3; fd <= 5; fd++) {
        int made = fd == 4 ? memfd_create("area", 0) : socket(AF_UNIX, SOCK_SEQPACKET, 0);
        CHECK(made == fd);
        struct sockaddr_un any = {.sun_family = AF_UNIX};
        if (fd != 4) /* an abstract name that the kernel chooses */
            CHECK(bind(made, (struct sockaddr *)&any, sizeof(any.sun_family)) == 0 &&
                  listen(made, 1) == 0);
    }
    return 0;
}

static int body_named(void)
{
    CHECK(make_fds() == 0);
    set_fds("3", "listener:seg-1-area:" LKD_SERVICE_OWN_LISTENER);
    reopen();
    CHECK(problem_count == 0);
    CHECK(service.inherited_count == 3);
    for (size_t i = 0; i < 3; i++) {
        CHECK(service.inherited[i].fd == (int)i + 3);
        CHECK(fcntl((int)i + 3, F_GETFD) == FD_CLOEXEC);
    }
    CHECK(strcmp(service.inherited[1].name, "seg-1-area") == 0);
    CHECK(!service.inherited[1].is_listener);
    CHECK(lkd_service_find_listener(&service, false) == &service.inherited[0]);
    CHECK(lkd_service_find_listener(&service, true) == &service.inherited[2]);
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(variables); i++)
        CHECK(getenv(variables[i]) == NULL);

    CHECK(lkd_inherited_take(&service.inherited[0]) == 3);
    CHECK(lkd_service_find_listener(&service, false) == NULL);
    lkd_service_close(&service);
    CHECK(fcntl(3, F_GETFD) >= 0);
    CHECK(fcntl(4, F_GETFD) < 0 && fcntl(5, F_GETFD) < 0);
    return 0;
}

Test(service_fds, are_named_told_apart_and_closed_unless_taken)
{
    expect_in_child(body_named);
}

static int body_unnamed(void)
{
    static const char *const names[] = {NULL, "a:b", "a:b:c:d", "", "::"};
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(names); i++) {
        unsetenv("LISTEN_FDNAMES");
        CHECK(make_fds() == 0);
        set_fds("3", names[i]);
        reopen();
        CHECK(problem_count == (i == 0 ? 0 : i == 4 ? 3 : 1));
        CHECK(service.inherited_count == 3);
        for (size_t k = 0; k < 3; k++)
            CHECK(strcmp(service.inherited[k].name, "unknown") == 0);
        CHECK(lkd_service_find_listener(&service, false) == &service.inherited[0]);
        lkd_service_close(&service);
    }
    return 0;
}

Test(service_fds, whose_names_do_not_fit_have_none)
{
    expect_in_child(body_unnamed);
}

static int body_bad_name(void)
{
    CHECK(make_fds() == 0);
    set_fds("3", "listener:a\nb:c");
    reopen();
    CHECK(problem_count == 1);
    CHECK(strcmp(service.inherited[1].name, "unknown") == 0);
    CHECK(strcmp(service.inherited[2].name, "c") == 0);
    lkd_service_close(&service);
    return 0;
}

Test(service_fds, one_wrong_name_takes_nothing_from_the_others)
{
    expect_in_child(body_bad_name);
}

static int body_absent(void)
{
    CHECK(make_fds() == 0);
    close(4);
    set_fds("3", "a:b:c");
    setenv("NOTIFY_SOCKET", manager_path, 1);
    reopen();
    CHECK(problem_count == 1);
    CHECK(service.inherited_count == 3);
    CHECK(service.inherited[1].fd == -1 && !service.inherited[1].is_listener);
    CHECK(strcmp(service.inherited[2].name, "c") == 0 && service.inherited[2].fd == 5);
    CHECK(service.socket_fd == 4); /* made later, so it is not taken for the one that is missing */
    lkd_service_close(&service);
    return 0;
}

Test(service_fds, one_that_is_not_open_is_left_out)
{
    expect_in_child(body_absent);
}

static int body_refused(void)
{
    static const struct {
        const char *count;
        const char *pid; /* NULL: ours */
        int problems;
    } rows[] = {
        {"3", "1", 1},      {"3", "", 1},
        {"3", "x", 1},      {"3", "4294967297", 1},
        {"0", NULL, 0},     {"-1", NULL, 1},
        {"", NULL, 1},      {"3 ", NULL, 1},
        {"65537", NULL, 1}, {"99999999999999999999", NULL, 1},
    };
    CHECK(make_fds() == 0);
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(rows); i++) {
        set_fds(rows[i].count, "listener");
        if (rows[i].pid != NULL)
            setenv("LISTEN_PID", rows[i].pid, 1);
        reopen();
        CHECK(problem_count == rows[i].problems);
        CHECK(service.inherited_count == 0);
        CHECK(fcntl(3, F_GETFD) == 0); /* not ours: not touched */
        CHECK(getenv("LISTEN_FDS") == NULL);
    }
    setenv("LISTEN_FDS", "3", 1);
    unsetenv("LISTEN_PID");
    reopen();
    CHECK(problem_count == 1 && service.inherited_count == 0);
    lkd_service_close(&service);
    return 0;
}

Test(service_fds, of_somebody_else_or_of_a_count_that_cannot_be_are_left_alone)
{
    expect_in_child(body_refused);
}
