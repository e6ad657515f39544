/* SPDX-License-Identifier: MIT */
#include "tests/stress/process/oracle.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* All marks are seq_cst: the judge shall not err by an order that is weaker than what it judges. */

void oracle_violation(struct oracle *oracle, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    atomic_fetch_add(&oracle->violations, 1);
    fprintf(stderr, "VIOLATION [%d] %s\n", (int)getpid(), text);
}

static bool is_doomed(struct oracle *oracle, uint32_t life)
{
    return life < ORACLE_LIVES_MAX && atomic_load(&oracle->lives[life].doomed) != 0;
}

static bool was_doomed(struct oracle *oracle, int32_t pid)
{
    for (uint32_t life = 1; life < ORACLE_LIVES_MAX; life++)
        if (atomic_load(&oracle->lives[life].pid) == pid && is_doomed(oracle, life))
            return true;
    return false;
}

/* Whether the words are alike: nobody is writing, and nobody died writing. */
static bool is_whole(const uint64_t *words)
{
    for (unsigned i = 1; i < ORACLE_CANARY_WORDS; i++)
        if (words[i] != words[0])
            return false;
    return true;
}

static bool canary_is_whole(const struct oracle_canary *canary)
{
    uint64_t words[ORACLE_CANARY_WORDS];
    for (unsigned i = 0; i < ORACLE_CANARY_WORDS; i++)
        words[i] = atomic_load_explicit(&canary->words[i], memory_order_relaxed);
    return is_whole(words);
}

static void canary_write(struct oracle_canary *canary, uint64_t value)
{
    for (unsigned i = 0; i < ORACLE_CANARY_WORDS; i++)
        atomic_store_explicit(&canary->words[i], value, memory_order_relaxed);
}

/* An owner-died result needs a death, and one since the damage was last marked as repaired. */
static void judge_told(const struct oracle_self *self, uint32_t index, struct lk_lock *lock)
{
    struct oracle *oracle = self->oracle;
    struct lk_recovery recovery = {.size = sizeof(recovery)};

    atomic_fetch_add(&oracle->told, 1);
    int r = lk_lock_recovery(lock, &recovery);
    if (r < 0) {
        oracle_violation(oracle, "lock %u: told, but lk_lock_recovery gives %d", index, r);
        return;
    }
    if (!was_doomed(oracle, recovery.pid))
        oracle_violation(oracle, "lock %u: told of pid %d, which was not killed", index,
                         recovery.pid);
    if (recovery.cause != LK_CAUSE_EXITED)
        oracle_violation(oracle, "lock %u: told of cause %u after a kill", index, recovery.cause);
    uint64_t healed = atomic_load(&oracle->locks[index].healed_token);
    if (recovery.token < healed)
        oracle_violation(oracle, "lock %u: told of token %#lx again, healed at %#lx", index,
                         (unsigned long)recovery.token, (unsigned long)healed);
    if (recovery.declared && (recovery.dirty_offset != index * sizeof(struct oracle_canary) ||
                              recovery.dirty_length_bytes != sizeof(struct oracle_canary)))
        oracle_violation(oracle, "lock %u: declared range %lu + %lu is not what was declared",
                         index, (unsigned long)recovery.dirty_offset,
                         (unsigned long)recovery.dirty_length_bytes);
}

static void judge_damage(const struct oracle_self *self, uint32_t index, int result)
{
    if (result != LK_ACQUIRED_OWNER_DIED && atomic_load(&self->oracle->locks[index].damaged))
        oracle_violation(self->oracle, "lock %u: not told, though left inconsistent", index);
}

void oracle_enter_exclusive(const struct oracle_self *self, uint32_t index, struct lk_lock *lock,
                            int result, struct oracle_canary *canary)
{
    struct oracle *oracle = self->oracle;
    struct oracle_lock *facts = &oracle->locks[index];

    atomic_fetch_add(&oracle->exclusive, 1);
    uint32_t before = atomic_exchange(&facts->writer, self->life);
    if (before != 0 && !is_doomed(oracle, before))
        oracle_violation(oracle, "lock %u: life %u and %u inside exclusively", index, before,
                         self->life);
    else if (before != 0 && result != LK_ACQUIRED_OWNER_DIED)
        oracle_violation(oracle, "lock %u: life %u died inside, %u is not told", index, before,
                         self->life);
    for (uint32_t worker = 0; worker < ORACLE_WORKERS; worker++) {
        uint32_t reader = atomic_load(&facts->readers[worker]);
        if (reader == 0)
            continue;
        if (!is_doomed(oracle, reader))
            oracle_violation(oracle, "lock %u: life %u reads while %u is inside exclusively", index,
                             reader, self->life);
        atomic_compare_exchange_strong(&facts->readers[worker], &reader, 0);
    }
    uint64_t token = lk_lock_token(lock);
    uint64_t last = atomic_exchange(&facts->token, token);
    if (token <= last)
        oracle_violation(oracle, "lock %u: token %#lx after %#lx", index, (unsigned long)token,
                         (unsigned long)last);
    judge_damage(self, index, result);
    if (result == LK_ACQUIRED_OWNER_DIED)
        judge_told(self, index, lock);
    else if (!canary_is_whole(canary))
        oracle_violation(oracle, "lock %u: canary torn, and life %u is not told", index,
                         self->life);
    canary_write(canary, token);
}

void oracle_heal(const struct oracle_self *self, uint32_t index, struct lk_lock *lock)
{
    struct oracle_lock *facts = &self->oracle->locks[index];
    atomic_store(&facts->healed_token, lk_lock_token(lock));
    atomic_store(&facts->damaged, 0);
}

void oracle_leave_exclusive(const struct oracle_self *self, uint32_t index, int result, bool healed,
                            struct oracle_canary *canary)
{
    struct oracle_lock *facts = &self->oracle->locks[index];
    uint32_t life = self->life;

    if (!canary_is_whole(canary))
        oracle_violation(self->oracle, "lock %u: somebody wrote while life %u was inside", index,
                         life);
    if (result == LK_ACQUIRED_OWNER_DIED && !healed)
        atomic_store(&facts->damaged, 1);
    if (!atomic_compare_exchange_strong(&facts->writer, &life, 0))
        oracle_violation(self->oracle, "lock %u: life %u came in while %u was inside", index, life,
                         self->life);
}

void oracle_enter_shared(const struct oracle_self *self, uint32_t index, struct lk_lock *lock,
                         int result, struct oracle_canary *canary)
{
    struct oracle *oracle = self->oracle;
    struct oracle_lock *facts = &oracle->locks[index];

    atomic_fetch_add(&oracle->shared, 1);
    atomic_store(&facts->readers[self->worker], self->life);
    uint32_t writer = atomic_load(&facts->writer);
    if (writer != 0 && !is_doomed(oracle, writer))
        oracle_violation(oracle, "lock %u: life %u reads while %u is inside exclusively", index,
                         self->life, writer);
    else if (writer != 0 && result != LK_ACQUIRED_OWNER_DIED)
        oracle_violation(oracle, "lock %u: life %u died inside, reader %u is not told", index,
                         writer, self->life);
    judge_damage(self, index, result);
    if (result == LK_ACQUIRED_OWNER_DIED)
        judge_told(self, index, lock);
    else if (!canary_is_whole(canary))
        oracle_violation(oracle, "lock %u: reader %u finds the canary torn", index, self->life);
}

void oracle_leave_shared(const struct oracle_self *self, uint32_t index, struct lk_lock *lock,
                         int result, struct oracle_canary *canary)
{
    if (result == LK_ACQUIRED && !canary_is_whole(canary))
        oracle_violation(self->oracle, "lock %u: canary torn under reader %u", index, self->life);
    if (lk_lock_token(lock) < atomic_load(&self->oracle->locks[index].token))
        oracle_violation(self->oracle, "lock %u: the token fell", index);
    atomic_store(&self->oracle->locks[index].readers[self->worker], 0);
}

void oracle_read(const struct oracle_self *self, uint32_t index, const struct lk_lock *lock,
                 const struct oracle_canary *canary)
{
    uint64_t words[ORACLE_CANARY_WORDS];
    uint64_t version;

    int r = lk_read_begin(lock, &version);
    if (r == -EAGAIN || r == -EOWNERDEAD)
        return;
    if (r != 0) {
        oracle_violation(self->oracle, "lock %u: lk_read_begin gives %d", index, r);
        return;
    }
    lk_read_copy(words, canary, sizeof(words));
    if (!lk_read_valid(lock, version))
        return;
    atomic_fetch_add(&self->oracle->optimistic, 1);
    if (!is_whole(words))
        oracle_violation(self->oracle, "lock %u: a valid optimistic read is torn", index);
}

const char *oracle_place_name(uint32_t place)
{
    static const char *const names[ORACLE_PLACES] = {
        "opening",       "between",          "acquiring shared", "acquiring exclusive",
        "inside shared", "inside exclusive", "releasing"};
    return place < ORACLE_PLACES ? names[place] : "?";
}
