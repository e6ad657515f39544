/* SPDX-License-Identifier: MIT */
/* lockkeeper run: takes locks to the end of this process, and becomes the command. Nothing is
 * forked, so there is no wrapper that could die alone, and signals and exit codes are the command's
 * own. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/admin.h"
#include "client/cli/run_options.h"
#include "client/cli/text.h"
#include "common/cleanup.h"
#include "common/clock.h"

struct taking {
    const struct lki_cli *cli;
    const struct lki_run_options *options;
    uint64_t started_ns;
    uint64_t deadline_ns;
    uint64_t *tokens; /* by place on the command line */
};

/* "held by rsync[4711] (alice) for 2m13s", or that there is nobody. holder->pid 0: not known. */
static void describe_holder(const struct lk_holder *holder, char *text, size_t text_bytes)
{
    if (holder->pid == 0) {
        snprintf(text, text_bytes, "the holder has just left");
        return;
    }
    char more[48] = "", since[80] = "";
    if (holder->holders > 1)
        snprintf(more, sizeof(more), " and %" PRIu32 " more", holder->holders - 1);
    if (holder->held_ns)
        snprintf(since, sizeof(since), " for %s", lki_text_duration(holder->held_ns).text);
    snprintf(text, text_bytes, "held%s by %s[%" PRId32 "] (%s)%s%s",
             holder->mode == LK_SHARED   ? " shared"
             : holder->mode == LK_UPDATE ? " for update"
                                         : "",
             *holder->command ? holder->command : "?", holder->pid, lki_text_user(holder->uid).text,
             since, more);
}

static struct lk_holder ask_holder(struct lk_lock *lock)
{
    struct lk_holder holder = {.size = sizeof(holder)};
    if (lk_lock_holder(lock, &holder) < 0)
        holder = (struct lk_holder){.size = sizeof(holder)};
    return holder;
}

static void say_waiting(const char *label, const struct lk_holder *holder)
{
    char text[256], ahead[64] = "";
    describe_holder(holder, text, sizeof(text));
    if (holder->waiters > 0)
        snprintf(ahead, sizeof(ahead), ", %" PRIu32 " ahead of you", holder->waiters);
    lki_cli_complain("%s: waiting, %s%s", label, text, ahead);
}

static int give_up(const struct taking *taking, const struct lki_run_lock *wanted,
                   struct lk_lock *lock, const struct lk_holder *seen)
{
    if (taking->cli->quiet)
        return taking->options->conflict_code;
    struct lk_holder holder = ask_holder(lock);
    if (holder.pid == 0 && seen->pid != 0)
        holder = *seen; /* better a name that was right a moment ago than none */
    char text[256], after[64] = "busy";
    describe_holder(&holder, text, sizeof(text));
    if (taking->options->timeout_ns > 0) {
        uint64_t waited_ns = lki_clock_now_ns() - taking->started_ns;
        snprintf(after, sizeof(after), "gave up after %.1f s", (double)waited_ns / 1e9);
    }
    const char *socket = taking->cli->socket_path;
    lki_cli_complain("%s: %s; %s; see: lockkeeper %s%s%swhy %s", wanted->label, after, text,
                     socket ? "--socket " : "", socket ? socket : "", socket ? " " : "",
                     wanted->label);
    return taking->options->conflict_code;
}

static void warn_owner_died(const struct lki_run_lock *wanted, struct lk_segment *segment,
                            struct lk_lock *lock)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    if (lk_lock_recovery(lock, &recovery) < 0)
        recovery.pid = 0;
    lki_cli_complain(
        "%s: warning: %s[%" PRId32 "] (%s) held it and %s; %s", wanted->label,
        *recovery.command ? recovery.command : "?", recovery.pid, lki_text_user(recovery.uid).text,
        recovery.cause == LK_CAUSE_CLOSED   ? "let go without unlocking"
        : recovery.cause == LK_CAUSE_FENCED ? "lost it when its lease was over; it may still write"
        : recovery.cause == LK_CAUSE_FORCED ? "was ended inside"
                                            : "died inside",
        lk_segment_size(segment) == 0 ? "running all the same"
                                      : "its data may be torn, and the next holder is told too");
}

/* Takes a lock, and says so if its last owner died inside. Without data nothing in shared memory
 * can be torn, and being told once is enough: such a lock is marked consistent. */
static int acquire(const struct lki_run_lock *wanted, struct lk_segment *segment,
                   struct lk_lock *lock, uint64_t timeout_ns)
{
    enum lk_mode mode = wanted->mode == LK_SHARED ? LK_SHARED : LK_EXCLUSIVE_TO_EXIT;
    int r = lk_lock_acquire(lock, mode, timeout_ns);
    if (r >= 0 && mode == LK_SHARED)
        lki_admin_note_hold_to_exit(lock);
    if (r != LK_ACQUIRED_OWNER_DIED)
        return r;
    warn_owner_died(wanted, segment, lock);
    if (mode == LK_SHARED || lk_segment_size(segment) > 0)
        return r;
    r = lk_lock_mark_consistent(lock);
    return r < 0 ? r : LK_ACQUIRED;
}

/* Opens and takes one lock. Returns -1 when held, else the exit code. */
static int take_lock(const struct taking *taking, struct lk_session *session,
                     const struct lki_run_lock *wanted)
{
    struct lk_segment_options options = {.size = sizeof(options), .flags = LK_CREATE};
    struct lk_segment *segment;
    struct lk_lock *lock;
    int r = lk_segment_open(session, wanted->segment, &options, &segment);
    if (r < 0)
        return lki_cli_refusal(r);
    r = wanted->lock_name ? lk_lock_named(segment, wanted->lock_name, &lock)
                          : lk_lock_at(segment, wanted->index, &lock);
    if (r < 0)
        return lki_cli_refusal(r);

    uint64_t now_ns = lki_clock_now_ns();
    uint64_t left_ns = taking->deadline_ns == LKI_TIME_NEVER ? LK_WAIT_FOREVER
                       : taking->deadline_ns > now_ns        ? taking->deadline_ns - now_ns
                                                             : 0;
    struct lk_holder seen = {.size = sizeof(seen)};
    bool talks = !taking->cli->quiet && (taking->options->verbose || isatty(STDERR_FILENO));
    r = acquire(wanted, segment, lock, talks ? 0 : left_ns);
    if (r == -EBUSY && talks && left_ns > 0) {
        seen = ask_holder(lock);
        say_waiting(wanted->label, &seen);
        r = acquire(wanted, segment, lock, left_ns);
    }
    if (r == -EBUSY || r == -ETIMEDOUT)
        return give_up(taking, wanted, lock, &seen);
    if (r < 0)
        return lki_cli_refusal(r);
    taking->tokens[wanted->place] = lk_lock_token(lock);
    if (taking->options->verbose)
        lki_cli_complain("%s: acquired after %s", wanted->label,
                         lki_text_duration(lki_clock_now_ns() - now_ns).text);
    return -1; /* neither handle is closed: both last until this process ends */
}

static int export_tokens(const uint64_t *tokens, size_t count)
{
    LKI_CLEANUP(lki_free_p) char *text = malloc(count * 21 + 1);
    if (!text)
        return -ENOMEM;
    size_t used = 0;
    for (size_t i = 0; i < count; i++)
        used += (size_t)sprintf(text + used, "%s%" PRIu64, i ? " " : "", tokens[i]);
    return setenv("LOCKKEEPER_FENCE", text, 1) < 0 ? -errno : 0;
}

static int take_all_and_exec(struct lki_cli *cli, const struct lki_run_options *options)
{
    LKI_CLEANUP(lki_free_p) uint64_t *tokens = calloc(options->lock_count, sizeof(*tokens));
    /* Never closed, only ended with the process: closing while holding would hand the locks on as
     * after a death. Static, so that it stays reachable for those who look for leaks. */
    static struct lk_session *session;
    int code = lki_cli_open(cli, true, &session);
    if (code > 0)
        return code;
    uint64_t now_ns = lki_clock_now_ns();
    struct taking taking = {
        .cli = cli,
        .options = options,
        .started_ns = now_ns,
        .deadline_ns = lki_time_add(now_ns, options->timeout_ns),
        .tokens = tokens,
    };
    code = tokens ? -1 : LKI_EXIT_OS;
    for (size_t i = 0; i < options->lock_count && code < 0; i++)
        code = take_lock(&taking, session, &options->locks[i]);
    if (code < 0 && export_tokens(tokens, options->lock_count) < 0)
        code = LKI_EXIT_OS;
    if (code < 0) {
        /* The session's descriptor is close-on-exec: the broker sees its end, and keeps the locks
         * until the process has ended too. */
        execvp(options->command[0], options->command);
        lki_cli_complain("run: cannot execute '%s': %s", options->command[0], strerror(errno));
        code = LKI_EXIT_CANNOT_EXEC;
    }
    return code;
}

int lki_cli_run(struct lki_cli *cli, int argc, char **argv)
{
    struct lki_run_options options;
    int code = lki_run_options_parse(cli, argc, argv, &options);
    if (code < 0)
        code = take_all_and_exec(cli, &options);
    lki_run_options_deinit(&options);
    return code;
}
