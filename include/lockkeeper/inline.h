/* SPDX-License-Identifier: MIT */
/* The uncontended paths of lockkeeper.h as inline functions, for programs that lock so often that
 * a call into a shared library shows. They do what lk_lock_acquire(), lk_lock_release(),
 * lk_read_begin(), lk_read_copy() and lk_read_valid() do, and call them whenever anything is in the way: a waiter,
 * a reader, damage, a lock that goes through the broker, a closed handle, a fork. Both may be mixed
 * at will.
 *
 *     const struct lk_inline *fast = lk_lock_inline(lock, LK_INLINE_LAYOUT);
 *     if (lk_inline_acquire(fast, lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) >= 0) {
 *         ...
 *         lk_inline_release(fast, lock);
 *     }
 *
 * What is compiled in here is a copy of a part of the lock protocol. A library that has another
 * one says so: lk_lock_inline() gives NULL, with which all of these call the library. So a program
 * that was built against an older header stays correct, and is as fast as without.
 *
 * Threads, fork and errors: as in lockkeeper.h. */
#ifndef LOCKKEEPER_INLINE_H
#define LOCKKEEPER_INLINE_H

#include <lockkeeper/lockkeeper.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LK_INLINE_LAYOUT 4u

/* Shared between all processes: the words of one lock. Not to be touched but by what is below. */
struct lk_inline_words {
    uint32_t word;
    uint32_t reserved;
    uint64_t sequence;
};

/* Private to the process; written by the library alone. It lies in memory that a forked child finds zeroed, and
 * NULL means: call the library. */
struct lk_inline {
    void *words;      /* struct lk_inline_words, for acquire and release */
    void *read_words; /* the same for reads */
    void *cell; /* with words: not to be written unless it is 0, or cell_value; shared likewise */
    uint32_t id;
    uint32_t cell_value; /* what the cell shows while the lock is held shared */
};

/* The word of a lock whose readers need no fence, while nobody else is in the way. */
#define LK_INLINE_BIASED 0x14000000u

/** Not to be called but by the functions below. Takes the lock shared with a fence, when the cell is written
 * already. As lk_lock_acquire(). */
LK_API int lk_inline_acquire_again(struct lk_lock *lock, uint64_t timeout_ns);

/** Not to be called but by the functions below. Empties the cell for all to see, and wakes a writer
 * that waits for that. */
LK_API void lk_inline_leave(struct lk_lock *lock);

/** The view of a lock that the functions below take; NULL if the library that runs has another
 * layout, or for NULL. It belongs to the handle, and lives until its session is closed.
 * @layout: LK_INLINE_LAYOUT */
LK_API const struct lk_inline *lk_lock_inline(const struct lk_lock *lock, uint32_t layout);

/* The address in a view, or NULL. A sanitizer that looks for races has to see what the library itself shows it. */
#if defined(__SANITIZE_THREAD__) || !defined(__GNUC__)
#define LK_INLINE_LOOK(fast, which) ((void)(fast), (void *)0)
#else
#define LK_INLINE_LOOK(fast, which) ((fast) ? (fast)->which : (void *)0)
#endif

static inline bool lk_inline_is_biased(const struct lk_inline *fast, int order)
{
    const struct lk_inline_words *words = (const struct lk_inline_words *)fast->words;
    return __atomic_load_n(&words->word, order) == LK_INLINE_BIASED;
}

/* A store and a load; a writer makes the fence that is missing between them, in this thread too. */
static inline int lk_inline_acquire_shared(const struct lk_inline *fast, uint32_t *cell,
                                           struct lk_lock *lock, uint64_t timeout_ns)
{
    if (__atomic_load_n(cell, __ATOMIC_RELAXED) != 0)
        return lk_lock_acquire(lock, LK_SHARED, timeout_ns);
    __atomic_store_n(cell, fast->cell_value, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    return lk_inline_is_biased(fast, __ATOMIC_ACQUIRE) ? LK_ACQUIRED
                                                       : lk_inline_acquire_again(lock, timeout_ns);
}

/* The same for the end of it. False: nothing was done. */
static inline bool lk_inline_release_shared(const struct lk_inline *fast, uint32_t *cell,
                                            struct lk_lock *lock)
{
    if (__atomic_load_n(cell, __ATOMIC_RELAXED) != fast->cell_value)
        return false;
    __atomic_store_n(cell, 0, __ATOMIC_RELEASE);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (!lk_inline_is_biased(fast, __ATOMIC_RELAXED))
        lk_inline_leave(lock);
    return true;
}

/** As lk_lock_acquire(). */
static inline int lk_inline_acquire(const struct lk_inline *fast, struct lk_lock *lock,
                                    enum lk_mode mode, uint64_t timeout_ns)
{
    if (mode == LK_EXCLUSIVE) {
        struct lk_inline_words *words = (struct lk_inline_words *)LK_INLINE_LOOK(fast, words);
        uint32_t nobody = 0;
        if (words && __atomic_compare_exchange_n(&words->word, &nobody, fast->id, 0,
                                                 __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
            /* The owner alone writes the sequence. Odd before anything is written under the lock:
             * that is how readers, and whoever comes after a death, can tell. */
            uint64_t sequence = __atomic_load_n(&words->sequence, __ATOMIC_RELAXED);
            __atomic_store_n(&words->sequence, sequence + 1 + (sequence & 1), __ATOMIC_RELAXED);
            __atomic_thread_fence(__ATOMIC_RELEASE);
            return LK_ACQUIRED;
        }
    } else if (mode == LK_SHARED) {
        uint32_t *cell = (uint32_t *)LK_INLINE_LOOK(fast, cell);
        if (cell)
            return lk_inline_acquire_shared(fast, cell, lock, timeout_ns);
    }
    return lk_lock_acquire(lock, mode, timeout_ns);
}

/** As lk_lock_release(). */
static inline int lk_inline_release(const struct lk_inline *fast, struct lk_lock *lock)
{
    uint32_t *cell = (uint32_t *)LK_INLINE_LOOK(fast, cell);
    if (cell) {
        if (lk_inline_release_shared(fast, cell, lock))
            return 0;
        struct lk_inline_words *words = (struct lk_inline_words *)fast->words;
        uint32_t mine = fast->id;
        if (__atomic_load_n(&words->word, __ATOMIC_RELAXED) == mine) {
            uint64_t sequence = __atomic_load_n(&words->sequence, __ATOMIC_RELAXED);
            if (sequence & 1)
                __atomic_store_n(&words->sequence, sequence + 1, __ATOMIC_RELEASE);
            if (__atomic_compare_exchange_n(&words->word, &mine, 0, 0, __ATOMIC_RELEASE,
                                            __ATOMIC_RELAXED))
                return 0;
        }
    }
    return lk_lock_release(lock); /* goes on from a sequence that is even already */
}

/** As lk_read_begin(). */
static inline int lk_inline_read_begin(const struct lk_inline *fast, const struct lk_lock *lock,
                                       uint64_t *out_version)
{
    const struct lk_inline_words *words =
        (const struct lk_inline_words *)LK_INLINE_LOOK(fast, read_words);
    if (words) {
        uint64_t sequence = __atomic_load_n(&words->sequence, __ATOMIC_ACQUIRE);
        if (!(sequence & 1)) {
            *out_version = sequence;
            return 0;
        }
    }
    return lk_read_begin(lock, out_version);
}

/* Whatever type the bytes that are read have elsewhere. */
typedef uint64_t __attribute__((__may_alias__)) lk_inline_word;

/** As lk_read_copy(). Fast if both places and the length are multiples of 8, which the compiler
 * often knows; otherwise a call. */
static inline void lk_inline_read_copy(void *to, const void *from, size_t bytes)
{
    if ((((uintptr_t)to | (uintptr_t)from | bytes) & 7) != 0) {
        lk_read_copy(to, from, bytes);
        return;
    }
    lk_inline_word *target = (lk_inline_word *)to;
    const lk_inline_word *source = (const lk_inline_word *)from;
    for (; bytes >= 32; bytes -= 32, source += 4, target += 4) {
        uint64_t a = __atomic_load_n(&source[0], __ATOMIC_RELAXED);
        uint64_t b = __atomic_load_n(&source[1], __ATOMIC_RELAXED);
        uint64_t c = __atomic_load_n(&source[2], __ATOMIC_RELAXED);
        uint64_t d = __atomic_load_n(&source[3], __ATOMIC_RELAXED);
        target[0] = a;
        target[1] = b;
        target[2] = c;
        target[3] = d;
    }
    for (; bytes > 0; bytes -= 8)
        *target++ = __atomic_load_n(source++, __ATOMIC_RELAXED);
}

/** As lk_read_valid(). */
static inline bool lk_inline_read_valid(const struct lk_inline *fast, const struct lk_lock *lock,
                                        uint64_t version)
{
    const struct lk_inline_words *words =
        (const struct lk_inline_words *)LK_INLINE_LOOK(fast, read_words);
    if (words) {
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        return __atomic_load_n(&words->sequence, __ATOMIC_RELAXED) == version;
    }
    return lk_read_valid(lock, version);
}

#undef LK_INLINE_LOOK

#ifdef __cplusplus
}
#endif

#endif
