/* SPDX-License-Identifier: MIT */
/* A lease is over: whose process ends, whose does not, and that nobody writes after the grant. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define NAME "lease"
#define LEASE_NS (20 * LKI_NS_PER_MS)
#define LONG_NS (30 * LKI_NS_PER_S) /* more than anything here takes */

static struct test_broker broker;
static struct test_client client;
static struct lk_lock *lock;
static int held; /* an event */

static void start(const char *option, const char *value)
{
    held = test_event();
    test_broker_start_with(&broker, &(struct test_broker_options){.arguments = {option, value}});
    cr_assert(eq(int, chmod(broker.directory, 0755), 0));
    cr_assert(eq(int, chmod(broker.socket_path, 0666), 0));
}

static void setup(void)
{
    start("--grace=50", NULL);
}

static void teardown(void)
{
    test_client_close(&client);
    test_broker_stop(&broker);
}

TestSuite(lease, .init = setup, .fini = teardown, .timeout = 90);

static void create(uint32_t on_expiry, uint32_t flags)
{
    struct lk_segment_options options = test_options(4096, 2);
    options.mode = 0666;
    options.flags |= flags;
    options.lease_ns = LEASE_NS;
    options.on_expiry = on_expiry;
    test_client_open(&client, broker.socket_path, NAME, &options);
    lock = test_lock(&client, 0);
}

static void become_nobody(void)
{
    const struct passwd *nobody = getpwnam("nobody");
    test_check(nobody != NULL, "there is no user 'nobody'");
    test_check(setgroups(0, NULL) == 0 && setgid(nobody->pw_gid) == 0 &&
                   setuid(nobody->pw_uid) == 0,
               "cannot become nobody");
}

struct holder {
    bool as_nobody;
    uint32_t flags;
    enum lk_mode mode;
    bool ignores_term;
};

static int hold(void *arg)
{
    const struct holder *how = arg;
    struct lk_segment_options options = {.size = sizeof(options), .flags = how->flags};
    struct test_client own;
    if (how->ignores_term)
        signal(SIGTERM, SIG_IGN);
    if (how->as_nobody)
        become_nobody();
    test_client_open(&own, broker.socket_path, how->as_nobody ? "~root/" NAME : NAME, &options);
    test_acquire(test_lock(&own, 0), how->mode);
    test_event_post(held);
    return test_stay();
}

static pid_t spawn_holder(struct holder how)
{
    pid_t pid = test_spawn(hold, &how);
    test_event_wait(held);
    return pid;
}

static int signal_that_ended(pid_t pid)
{
    int status = test_reap(pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void expect_cause(uint32_t cause, pid_t pid)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    cr_assert(eq(int, lk_lock_recovery(lock, &recovery), 0));
    cr_expect(eq(u32, recovery.cause, cause));
    cr_expect(eq(int, recovery.pid, pid));
}

Test(lease, a_stopped_holder_is_killed_and_the_lock_handed_on)
{
    create(LK_EXPIRY_KILL, 0);
    pid_t pid = spawn_holder((struct holder){.mode = LK_EXCLUSIVE});
    test_stop(pid);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LONG_NS), LK_ACQUIRED_OWNER_DIED), "%s",
              lk_last_error());
    expect_cause(LK_CAUSE_FORCED, pid);
    cr_expect(eq(int, signal_that_ended(pid), SIGKILL));
    cr_expect(test_broker_logged(&broker, "killed (SIGKILL)"));
}

Test(lease, a_holder_that_can_run_is_asked_first)
{
    create(LK_EXPIRY_KILL, 0);
    pid_t pid = spawn_holder((struct holder){.mode = LK_EXCLUSIVE});
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LONG_NS), LK_ACQUIRED_OWNER_DIED));
    cr_expect(eq(int, signal_that_ended(pid), SIGTERM));
}

Test(lease, one_that_ignores_that_is_killed)
{
    create(LK_EXPIRY_KILL, 0);
    pid_t pid = spawn_holder((struct holder){.mode = LK_EXCLUSIVE, .ignores_term = true});
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LONG_NS), LK_ACQUIRED_OWNER_DIED));
    cr_expect(eq(int, signal_that_ended(pid), SIGKILL));
}

Test(lease, a_reader_that_stays_is_ended_too)
{
    create(LK_EXPIRY_KILL, 0);
    pid_t pid = spawn_holder((struct holder){.mode = LK_SHARED});
    test_stop(pid);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LONG_NS), LK_ACQUIRED));
    cr_expect(eq(int, signal_that_ended(pid), SIGKILL));
}

Test(lease, nobody_is_ended_who_is_in_nobodys_way)
{
    create(LK_EXPIRY_KILL, 0);
    pid_t pid = spawn_holder((struct holder){.mode = LK_EXCLUSIVE});
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 5 * LKI_NS_PER_MS), -ETIMEDOUT));
    /* A lease that ran on would end it within a tenth of that. */
    int never = test_event();
    cr_assert(not(test_event_wait_for(never, 20 * LEASE_NS)));
    cr_expect(eq(int, kill(pid, 0), 0));
    cr_expect(not(test_broker_logged(&broker, "lease over")));
    test_kill(pid);
}

Test(lease, report_says_who_and_does_nothing)
{
    char who[96];
    create(LK_EXPIRY_REPORT, 0);
    pid_t pid = spawn_holder((struct holder){.mode = LK_EXCLUSIVE});
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 500 * LKI_NS_PER_MS), -ETIMEDOUT));
    snprintf(who, sizeof(who), "lease over: pid %d", (int)pid);
    test_broker_await_log(&broker, who);
    cr_expect(test_broker_logged(&broker, "only reported"));
    cr_expect(eq(int, kill(pid, 0), 0));
    test_kill(pid);
}

Test(lease, without_consent_another_users_process_lives)
{
    if (getuid() != 0)
        cr_skip_test("only root can become another user");
    create(LK_EXPIRY_KILL, 0);
    pid_t pid = spawn_holder((struct holder){.mode = LK_EXCLUSIVE, .as_nobody = true});
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 500 * LKI_NS_PER_MS), -ETIMEDOUT));
    test_broker_await_log(&broker, "not killed: no consent (LK_ACCEPT_KILL)");
    cr_expect(eq(int, kill(pid, 0), 0));
    test_kill(pid);
}

Test(lease, with_consent_another_users_process_ends)
{
    if (getuid() != 0)
        cr_skip_test("only root can become another user");
    create(LK_EXPIRY_KILL, 0);
    pid_t pid = spawn_holder(
        (struct holder){.mode = LK_EXCLUSIVE, .as_nobody = true, .flags = LK_ACCEPT_KILL});
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LONG_NS), LK_ACQUIRED_OWNER_DIED));
    cr_expect(eq(int, signal_that_ended(pid), SIGTERM));
}

/* --- Children of the holder --- */

static _Atomic uint32_t *attempts; /* of a child to write, in memory of its own */

static int hold_with_child(void *arg)
{
    struct test_client own;
    (void)arg;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    test_acquire(test_lock(&own, 0), LK_EXCLUSIVE);
    own.data[0] = 1;
    pid_t child = fork();
    test_check(child >= 0, "fork");
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* a sanitizer would report it */
        atomic_fetch_add(attempts, 1);
        for (;;)
            own.data[0] = 99; /* its map is absent: this is a SIGSEGV */
    }
    int status = test_reap(child);
    test_check(WIFSIGNALED(status), "the child wrote: status %#x", (unsigned)status);
    test_event_post(held);
    return test_stay();
}

Test(lease, a_child_of_the_holder_cannot_write)
{
    create(LK_EXPIRY_KILL, 0);
    attempts = test_shared(sizeof(*attempts));
    pid_t pid = test_spawn(hold_with_child, NULL);
    test_event_wait(held);
    test_stop(pid);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LONG_NS), LK_ACQUIRED_OWNER_DIED));
    cr_expect(eq(u32, atomic_load(attempts), 1));
    cr_expect(eq(u8, client.data[0], 1), "what the parent wrote");
    cr_expect(eq(int, signal_that_ended(pid), SIGKILL));
}

/* --- A debugger --- */

static void start_patient(void)
{
    start("--grace=1", NULL);
}

TestSuite(lease_debugger, .fini = teardown, .timeout = 90);

Test(lease_debugger, what_a_debugger_has_stopped_is_given_longer, .init = start_patient)
{
    create(LK_EXPIRY_KILL, 0);
    pid_t pid = spawn_holder((struct holder){.mode = LK_EXCLUSIVE});
    int status;
    cr_assert(eq(int, (int)ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0));
    cr_assert(eq(int, (int)ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0));
    cr_assert(eq(int, waitpid(pid, &status, 0), pid));

    /* Twenty times the grace and the lease. */
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 20 * LEASE_NS), -ETIMEDOUT));
    test_broker_await_log(&broker, "a debugger has stopped it");
    cr_expect(not(test_broker_logged(&broker, "killed (SIGKILL)")));

    /* Let go, it can be ended as any other. */
    cr_assert(eq(int, (int)ptrace(PTRACE_DETACH, pid, NULL, NULL), 0));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LONG_NS), LK_ACQUIRED_OWNER_DIED));
    cr_expect(ne(int, signal_that_ended(pid), 0));
}

static void start_impatient(void)
{
    start("--debugger-grace=100", "--grace=20");
}

Test(lease_debugger, a_debugger_is_not_waited_for_for_ever, .init = start_impatient)
{
    create(LK_EXPIRY_KILL, 0);
    pid_t pid = spawn_holder((struct holder){.mode = LK_EXCLUSIVE});
    int status;
    cr_assert(eq(int, (int)ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0));
    cr_assert(eq(int, (int)ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0));
    cr_assert(eq(int, waitpid(pid, &status, 0), pid));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LONG_NS), LK_ACQUIRED_OWNER_DIED));
    cr_expect(eq(int, signal_that_ended(pid), SIGKILL));
}

/* --- Fences --- */

static int hold_and_release_late(void *arg)
{
    const int *go = arg;
    struct test_client own;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    struct lk_lock *its = test_lock(&own, 0);
    test_acquire(its, LK_EXCLUSIVE);
    test_event_post(held);
    test_event_wait(*go);
    int r = lk_lock_release(its);
    test_check(r == -ESTALE, "the late release gives %d: %s", r, lk_last_error());
    test_check(strstr(lk_last_error(), "lease of lock 0 was over") != NULL, "%s", lk_last_error());
    /* It goes on as one who holds nothing. */
    r = lk_lock_release(its);
    test_check(r == -EPERM, "one more release gives %d", r);
    test_acquire(its, LK_EXCLUSIVE);
    test_release(its);
    test_client_close(&own);
    return 0;
}

Test(lease, a_fence_raises_the_token_and_refuses_the_old_holder)
{
    create(LK_EXPIRY_FENCE, LK_STRICT);
    int go = test_event();
    pid_t pid = test_spawn(hold_and_release_late, &go);
    test_event_wait(held);
    uint64_t old = lk_lock_token(lock);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LONG_NS), LK_ACQUIRED_OWNER_DIED), "%s",
              lk_last_error());
    cr_expect(lt(u64, old, lk_lock_token(lock)));
    expect_cause(LK_CAUSE_FENCED, pid);
    cr_expect(eq(int, kill(pid, 0), 0), "it lives");
    cr_assert(eq(int, lk_lock_mark_consistent(lock), 0));
    cr_assert(eq(int, lk_lock_release(lock), 0));
    test_event_post(go);
    test_reap_success(pid);
}

Test(lease, a_native_holder_is_not_fenced_and_releases_as_usual)
{
    create(LK_EXPIRY_FENCE, 0);
    pid_t pid = spawn_holder((struct holder){.mode = LK_EXCLUSIVE});
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 500 * LKI_NS_PER_MS), -ETIMEDOUT));
    test_broker_await_log(&broker, "not fenced: it locks in shared memory by itself");
    test_kill(pid);
}
