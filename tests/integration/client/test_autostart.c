/* SPDX-License-Identifier: MIT */
/* Finding a broker, and starting one. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define START_TEST(name)                                                                           \
    Test(autostart, name, .init = fixture_start_without_daemon, .fini = fixture_stop)

static int open_result(const char *path, uint32_t flags)
{
    const struct lk_session_options options = {.size = sizeof(options), .flags = flags};
    struct lk_session *session = NULL;
    int r = lk_session_open(path, &options, &session);
    lk_session_close(session);
    return r;
}

START_TEST(first_client_starts_a_broker_and_the_second_finds_it)
{
    struct lk_session *session = open_session(), *other = open_session();
    open_segment(session, "a", 4096, LK_CREATE);
    open_segment(other, "a", 0, 0);
    cr_expect(eq(int, waitpid(-1, NULL, WNOHANG), -1), "no child, so no zombie");
    cr_expect(eq(int, errno, ECHILD));
    lk_session_close(session);
    lk_session_close(other);
}

static int open_when_told(struct child *side, void *user)
{
    struct lk_session *session = NULL;
    struct lk_segment *segment = NULL;
    const struct lk_segment_options options = {.size = sizeof(options), .flags = LK_CREATE};
    (void)user;
    child_tell(side);
    child_await(side);
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &session) == 0);
    CHILD_CHECK(lk_segment_open(session, "a", &options, &segment) >= 0);
    child_tell(side);
    child_await(side); /* all are connected now: to one broker, if each sees the others */
    struct lk_lock *lock = NULL;
    CHILD_CHECK(lk_lock_at(segment, 0, &lock) == 0);
    CHILD_CHECK(lk_lock_acquire(lock, LK_EXCLUSIVE, 0) == -EBUSY);
    lk_session_close(session);
    return 0;
}

START_TEST(clients_that_start_at_once_meet_at_one_broker)
{
    struct child children[6];
    for (int i = 0; i < 6; i++)
        children[i] = child_start(open_when_told, NULL);
    for (int i = 0; i < 6; i++)
        child_await(&children[i]);
    for (int i = 0; i < 6; i++)
        child_tell(&children[i]);
    struct lk_session *session = open_session();
    struct lk_lock *lock = open_lock(open_segment(session, "a", 0, LK_CREATE), 0);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    for (int i = 0; i < 6; i++)
        child_await(&children[i]);
    for (int i = 0; i < 6; i++)
        child_tell(&children[i]);
    for (int i = 0; i < 6; i++)
        child_join(&children[i]);
    lk_session_close(session);
}

/* The next broker knows nothing of what the session has open. */
START_TEST(a_session_in_use_does_not_move_to_another_broker)
{
    struct lk_session *session = open_session();
    struct lk_segment *other = NULL;
    const struct lk_segment_options options = {.size = sizeof(options), .flags = LK_CREATE};
    open_segment(session, "a", 4096, LK_CREATE);
    fixture_end_autostarted();
    cr_expect(eq(int, lk_segment_open(session, "b", &options, &other), -ECONNRESET));
    lk_session_close(session);
}

START_TEST(dead_socket_file_is_replaced)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, fixture.socket_path);
    int dead = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    cr_assert(eq(int, bind(dead, (struct sockaddr *)&address, sizeof(address)), 0));
    close(dead);
    cr_assert(eq(int, open_result(fixture.socket_path, LK_NO_AUTOSTART), -ECONNREFUSED));
    lk_session_close(open_session());
}

START_TEST(autostart_can_be_switched_off_and_the_text_says_what_to_start)
{
    cr_expect(eq(int, open_result(fixture.socket_path, LK_NO_AUTOSTART), -ECONNREFUSED));
    cr_expect(error_has("lockkeeperd --socket") && error_has(fixture.socket_path), "%s",
              lk_last_error());
    setenv("LOCKKEEPER_AUTOSTART", "0", 1);
    cr_expect(eq(int, open_result(fixture.socket_path, 0), -ECONNREFUSED));
}

START_TEST(broker_that_cannot_be_run_is_named)
{
    setenv("LOCKKEEPERD", "/nowhere/lockkeeperd", 1);
    cr_expect(eq(int, open_result(fixture.socket_path, 0), -ECONNREFUSED));
    cr_expect(error_has("/nowhere/lockkeeperd"), "%s", lk_last_error());
}

START_TEST(path_in_no_directory_is_refused_with_a_reason)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/missing/broker.sock", fixture.directory);
    cr_expect(eq(int, open_result(path, 0), -ECONNREFUSED));
    cr_expect(error_has(path), "%s", lk_last_error());
}

START_TEST(path_that_is_too_long_says_so)
{
    char path[200];
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    cr_expect(eq(int, open_result(path, 0), -ENAMETOOLONG));
    cr_expect(error_has("107"), "%s", lk_last_error());
}

START_TEST(socket_of_another_kind_is_no_broker)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, fixture.socket_path);
    int stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(eq(int, bind(stream, (struct sockaddr *)&address, sizeof(address)), 0));
    cr_assert(eq(int, listen(stream, 1), 0));
    cr_expect(eq(int, open_result(fixture.socket_path, 0), -EPROTO));
    close(stream);
    cr_assert(eq(int, unlink(fixture.socket_path), 0));
}

/* Somebody without rights sits where a broker had been: root's client must not talk to him. */
START_TEST(stranger_at_the_socket_is_refused)
{
    if (geteuid() != 0)
        cr_skip_test("needs root to be two users");
    cr_assert(eq(int, chmod(fixture.directory, 0777), 0));
    int ready[2];
    cr_assert(eq(int, pipe2(ready, O_CLOEXEC), 0));
    pid_t stranger = fork();
    if (stranger == 0) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strcpy(address.sun_path, fixture.socket_path);
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        bool ok = setresuid(65534, 65534, 65534) == 0 &&
                  bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 4) == 0;
        (void)!write(ready[1], ok ? "x" : "-", 1);
        for (;;)
            pause();
    }
    char byte = 0;
    cr_assert(eq(int, (int)read(ready[0], &byte, 1), 1));
    cr_assert(eq(chr, byte, 'x'));
    cr_assert(eq(int, chown(fixture.socket_path, 0, 0), 0)); /* not his own place */
    cr_expect(eq(int, open_result(fixture.socket_path, 0), -EACCES));
    cr_expect(error_has("stranger"), "%s", lk_last_error());
    kill(stranger, SIGKILL);
    cr_assert(eq(int, waitpid(stranger, NULL, 0), stranger));
    close(ready[0]);
    close(ready[1]);
    cr_assert(eq(int, unlink(fixture.socket_path), 0));
}

START_TEST(wrong_arguments_are_refused)
{
    const struct lk_session_options unsized = {.flags = 0};
    const struct lk_session_options unknown = {.size = sizeof(unknown), .flags = 1u << 20};
    struct lk_session *session = NULL;
    cr_expect(eq(int, lk_session_open(fixture.socket_path, &unsized, &session), -EINVAL));
    cr_expect(eq(int, lk_session_open(fixture.socket_path, &unknown, &session), -EINVAL));
    cr_expect(eq(int, lk_session_open(fixture.socket_path, NULL, NULL), -EINVAL));
    cr_expect(eq(int, lk_session_open("", NULL, &session), -EINVAL));
    cr_expect(eq(ptr, session, NULL));
    cr_expect(eq(ptr, lk_session_close(NULL), NULL));
}

/* A broker that nobody used ends by itself; this one at the worst moment for a client that has just
 * connected. */
START_TEST(a_broker_that_ends_before_the_first_request_is_replaced)
{
    struct lk_session *session = open_session();
    fixture_end_autostarted();
    open_segment(session, "a", 4096, LK_CREATE);
    fixture_end_autostarted();
    struct lk_segment *segment = NULL;
    const struct lk_segment_options options = {.size = sizeof(options), .flags = LK_CREATE};
    cr_expect(eq(int, lk_segment_open(session, "b", &options, &segment), -ECONNRESET),
              "but one that has answered may hold something of ours");
    lk_session_close(session);
}
