/* SPDX-License-Identifier: MIT */
#include "client/lock_text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/error.h"
#include "client/options.h"
#include "common/clock.h"

/* A call that has failed already does not wait longer than this for a better text. */
#define HOLDER_NS (50 * LKI_NS_PER_MS)

void lki_lock_label(const struct lk_lock *lock, char *out_label, size_t bytes)
{
    if (lock->name)
        (void)snprintf(out_label, bytes, "%s#%s", lock->segment->name, lock->name);
    else if (lock->index != 0)
        (void)snprintf(out_label, bytes, "%s#%u", lock->segment->name, lock->index);
    else
        (void)snprintf(out_label, bytes, "%s", lock->segment->name);
}

int lki_lock_fail_busy(const struct lk_lock *lock)
{
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    lki_fail(-EBUSY, "cannot lock '%s' now: somebody else holds it", label);
    return lki_fail_hint(-EBUSY, "lk_lock_holder() or 'lockkeeper why %s' tells who", label);
}

int lki_lock_fail_nested(const struct lk_lock *lock)
{
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    lki_fail(-EDEADLK, "cannot lock '%s': this session holds it already", label);
    return lki_fail_hint(-EDEADLK, "locks do not nest: release it first");
}

int lki_lock_fail_pending(const struct lk_lock *lock)
{
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    lki_fail(-EALREADY, "cannot lock '%s': an asynchronous acquire is pending", label);
    return lki_fail_hint(-EALREADY, "wait for it with lk_session_dispatch(), or cancel it");
}

int lki_lock_fail_not_held(const struct lk_lock *lock, const char *verb, const char *how)
{
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    lki_fail(-EPERM, "cannot %s '%s': THIS SESSION DOES NOT HOLD IT%s; nothing was changed", verb,
             label, how);
    return lki_fail_hint(-EPERM,
                         "it was released twice, or taken through another session: find out "
                         "before the data suffers");
}

/* One HOLDER request. Returns 0 or -errno, without text. */
static int ask_holder(struct lk_lock *lock, uint64_t deadline_ns, struct lk_holder *out_holder)
{
    struct lk_session *session = lock->segment->session;
    struct lki_message request = {
        .type = LKI_REQUEST_HOLDER,
        .as.lock_ref = {.segment = lock->segment->number, .lock = lock->index},
    };
    struct lki_record reply = {.fd_count = 0};
    int r = lki_session_call(session, &request, -1, deadline_ns, &reply);
    if (r < 0)
        return r;
    const struct lki_holder_is *holder = &reply.message.as.holder_is;
    if (reply.message.type != LKI_REPLY_HOLDER_IS) {
        r = lki_session_result(session, &reply.message, "ask who holds a lock");
        lki_record_deinit(&reply);
        return r < 0 ? r : -EPROTO;
    }
    *out_holder = (struct lk_holder){
        .pid = holder->pid,
        .uid = holder->uid,
        .mode = holder->mode,
        .holders = holder->holders,
        .waiters = holder->waiters,
        .token = holder->token,
        .held_ns = holder->held_ns,
    };
    size_t bytes = holder->command.length_bytes;
    if (bytes >= sizeof(out_holder->command))
        bytes = sizeof(out_holder->command) - 1;
    if (bytes > 0)
        memcpy(out_holder->command, holder->command.data, bytes);
    lki_record_deinit(&reply);
    return 0;
}

/* "2m13s", "40s", "350ms" */
static void duration_words(uint64_t duration_ns, char *out_words, size_t bytes)
{
    unsigned long long seconds = duration_ns / LKI_NS_PER_S;
    if (seconds >= 3600)
        (void)snprintf(out_words, bytes, "%lluh%02llum", seconds / 3600, seconds / 60 % 60);
    else if (seconds >= 60)
        (void)snprintf(out_words, bytes, "%llum%02llus", seconds / 60, seconds % 60);
    else if (seconds > 0)
        (void)snprintf(out_words, bytes, "%llus", seconds);
    else
        (void)snprintf(out_words, bytes, "%llums",
                       (unsigned long long)(duration_ns / LKI_NS_PER_MS));
}

bool lki_lock_holder_words(struct lk_lock *lock, uint64_t deadline_ns, char *out_words,
                           size_t bytes)
{
    struct lk_holder holder;
    if (ask_holder(lock, deadline_ns, &holder) < 0 || holder.pid == 0)
        return false;
    char since[40] = "", others[40] = "", duration[24];
    if (holder.held_ns != 0) {
        duration_words(holder.held_ns, duration, sizeof(duration));
        (void)snprintf(since, sizeof(since), " for %s", duration);
    }
    if (holder.holders > 1)
        (void)snprintf(others, sizeof(others), " and %u more", holder.holders - 1);
    (void)snprintf(out_words, bytes, "held%s by %s[%d] (uid %u)%s%s",
                   holder.mode == LK_SHARED   ? " shared"
                   : holder.mode == LK_UPDATE ? " for update"
                                              : "",
                   holder.command, holder.pid, holder.uid, others, since);
    return true;
}

int lki_lock_fail_timed_out(struct lk_lock *lock)
{
    char label[LKI_LABEL_BYTES], words[200];
    lki_lock_label(lock, label, sizeof(label));
    uint64_t deadline_ns = lki_time_add(lki_clock_now_ns(), HOLDER_NS);
    if (!lki_lock_holder_words(lock, deadline_ns, words, sizeof(words)))
        (void)snprintf(words, sizeof(words), "the time ran out");
    lki_fail(-ETIMEDOUT, "cannot lock '%s': %s", label, words);
    return lki_fail_hint(-ETIMEDOUT, "wait longer, or see 'lockkeeper why %s'", label);
}

int lk_lock_holder(struct lk_lock *lock, struct lk_holder *out)
{
    int r = lki_lock_check(lock, "ask who holds");
    if (r < 0)
        return r;
    struct lk_holder holder;
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    r = ask_holder(lock, LKI_TIME_NEVER, &holder);
    if (r < 0)
        return lki_session_fail(lock->segment->session, r, "ask who holds '%s'", label);
    if (lki_options_write(out, &holder, sizeof(holder)) < 0)
        return lki_fail(
            -EINVAL, "cannot tell who holds '%s': no place for it, or its size is not set", label);
    return 0;
}
