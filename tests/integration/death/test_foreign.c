/* SPDX-License-Identifier: MIT */
/* A client of another user: names, rights, and its death. Needs root, to become somebody else. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

static struct test_broker broker;
static struct test_client client;
static char ours[64]; /* ~USER/closed, as others call it */
static char open_to_all[64];
static int held;

static void create(const char *name, uint32_t mode)
{
    struct lk_segment_options options = test_options(4096, 1);
    struct lk_segment *segment;
    options.mode = mode;
    cr_assert(eq(int, lk_segment_open(client.session, name, &options, &segment), LK_CREATED), "%s",
              lk_last_error());
}

static void setup(void)
{
    if (getuid() != 0)
        return;
    held = test_event();
    test_broker_start(&broker);
    /* The way to the socket is open to everybody, as it is to a system's broker. */
    cr_assert(eq(int, chmod(broker.directory, 0755), 0));
    cr_assert(eq(int, chmod(broker.socket_path, 0666), 0));
    client.session = test_session(broker.socket_path);
    create("closed", 0600);
    create("open", 0666);
    create("readable", 0644);
    snprintf(ours, sizeof(ours), "~%s/closed", getpwuid(0)->pw_name);
    snprintf(open_to_all, sizeof(open_to_all), "~%s/open", getpwuid(0)->pw_name);
}

static void teardown(void)
{
    if (getuid() != 0)
        return;
    lk_session_close(client.session);
    test_broker_stop(&broker);
}

TestSuite(foreign, .init = setup, .fini = teardown, .timeout = 60);

#define NEEDS_ROOT()                                                                               \
    do {                                                                                           \
        if (getuid() != 0)                                                                         \
            cr_skip_test("only root can become another user");                                     \
    } while (0)

static void become_nobody(void)
{
    const struct passwd *nobody = getpwnam("nobody");
    test_check(nobody != NULL, "there is no user 'nobody'");
    test_check(setgroups(0, NULL) == 0 && setgid(nobody->pw_gid) == 0 &&
                   setuid(nobody->pw_uid) == 0,
               "cannot become nobody");
}

static int try_names(void *arg)
{
    struct lk_segment *segment = NULL;
    struct lk_segment_options options = test_options(4096, 1);
    struct lk_segment_options read_only = {.size = sizeof(read_only), .flags = LK_READ_ONLY};
    (void)arg;
    become_nobody();
    struct lk_session *session = test_session(broker.socket_path);

    test_check(lk_segment_open(session, "closed", NULL, &segment) == -ENOENT,
               "a bare name is the caller's own: %s", lk_last_error());
    int r = lk_segment_open(session, ours, NULL, &segment);
    test_check(r == -EACCES, "%s of mode 0600 gives %d", ours, r);
    r = lk_segment_open(session, "~root/readable", NULL, &segment);
    test_check(r == -EACCES, "0644 for writing gives %d", r);
    r = lk_segment_open(session, "~root/readable", &read_only, &segment);
    test_check(r == 0, "0644 read-only gives %d: %s", r, lk_last_error());
    r = lk_segment_remove(session, "~root/open");
    test_check(r == -EACCES, "removing somebody's segment gives %d", r);
    options.flags = LK_CREATE_NEW;
    r = lk_segment_open(session, "~root/squatted", &options, &segment);
    test_check(r == -EACCES, "creating in somebody's names gives %d", r);
    r = lk_segment_open(session, "closed", &options, &segment);
    test_check(r == LK_CREATED, "its own 'closed' gives %d: %s", r, lk_last_error());
    lk_session_close(session);
    return 0;
}

Test(foreign, names_and_mode_bits_keep_users_apart)
{
    NEEDS_ROOT();
    test_reap_success(test_spawn(try_names, NULL));
}

static int offer_a_file(void *arg)
{
    struct lk_segment *segment = NULL;
    char path[96];
    (void)arg;
    become_nobody();
    snprintf(path, sizeof(path), "/tmp/lk-test-foreign-%d", (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    test_check(fd >= 0 && write(fd, "text", 4) == 4, "%s", path);
    unlink(path);
    struct lk_session *session = test_session(broker.socket_path);
    int r = lk_segment_offer(session, "offered", fd, NULL, &segment);
    test_check(r == -EACCES, "a stranger's descriptor gives %d: %s", r, lk_last_error());
    lk_session_close(session);
    return 0;
}

Test(foreign, descriptors_of_strangers_are_refused)
{
    NEEDS_ROOT();
    test_reap_success(test_spawn(offer_a_file, NULL));
}

static int hold_as_nobody(void *arg)
{
    struct test_client own;
    (void)arg;
    become_nobody();
    test_client_open(&own, broker.socket_path, open_to_all, NULL);
    own.data[0] = 7;
    test_acquire(test_lock(&own, 0), LK_EXCLUSIVE);
    test_event_post(held);
    return test_stay();
}

Test(foreign, strangers_death_is_told_with_its_uid)
{
    NEEDS_ROOT();
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    struct lk_segment *segment;
    struct lk_lock *lock;
    cr_assert(eq(int, lk_segment_open(client.session, "open", NULL, &segment), 0));
    cr_assert(eq(int, lk_lock_at(segment, 0, &lock), 0));
    pid_t pid = test_spawn(hold_as_nobody, NULL);
    test_event_wait(held);
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), -EBUSY));

    test_kill(pid);

    cr_assert(
        eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED_OWNER_DIED));
    cr_assert(eq(int, lk_lock_recovery(lock, &recovery), 0));
    cr_expect(eq(int, recovery.pid, pid));
    cr_expect(eq(u32, recovery.uid, getpwnam("nobody")->pw_uid));
}
