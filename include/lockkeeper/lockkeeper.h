/* SPDX-License-Identifier: MIT */
/* lockkeeper: shared memory and locks between unrelated processes, through a socket path.
 *
 *     session   one connection to the broker; the owner of locks
 *     segment   named shared memory: data that you map, and a table of locks beside it
 *     lock      entry i of a segment's lock table, by index or by name
 *
 * Results are 0, a documented positive value, or a negative errno value; a negative result never
 * leaves the caller holding anything. lk_last_error() tells the rest in words, per thread.
 *
 * Threads: one thread at a time uses a session and what was opened through it; sessions are
 * independent, so a thread that wants its own ownership opens its own session.
 * Fork: a child's inherited handles answer -ESTALE, and their maps are absent; it opens its own
 * session. lk_session_close() of an inherited session frees memory and tells the broker nothing.
 * Closed handles of segments and locks answer -ESTALE too, until their session is closed, or opens
 * the same name again: that may give the same handle.
 * Signals: nothing here is async-signal-safe. No signal handler is installed unless a segment is
 * opened with LK_GUARD. No thread is started. Nothing is printed.
 */
#ifndef LOCKKEEPER_LOCKKEEPER_H
#define LOCKKEEPER_LOCKKEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LK_API __attribute__((visibility("default")))
#else
#define LK_API
#endif

/* What is called so often that a hop through the procedure linkage table would show. */
#define LK_API_HOT LK_API
#if defined(__has_attribute)
#if __has_attribute(noplt)
#undef LK_API_HOT
#define LK_API_HOT LK_API __attribute__((noplt))
#endif
#endif

struct lk_session; /* opaque; lk_session_open() to lk_session_close() */
struct lk_segment; /* opaque, counted per session; lk_segment_open() or _offer() to
                      lk_segment_close() */
struct lk_lock;    /* opaque, counted per segment; lk_lock_at() or _named() to lk_lock_close() */

enum {
    LK_CREATED = 1,             /* lk_segment_open(), _offer(): the segment is new */
    LK_ACQUIRED = 0,            /* lk_lock_acquire(): held */
    LK_ACQUIRED_OWNER_DIED = 1, /* held as well, but an owner died inside: see lk_lock_recovery() */
};

enum lk_mode {
    LK_SHARED = 1,
    LK_EXCLUSIVE = 2,
    LK_UPDATE =
        3, /* one session at a time, beside readers; may become exclusive: lk_lock_upgrade() */
    LK_TO_EXIT =
        0x100, /* flag beside LK_EXCLUSIVE: protects no mapped data, held to the process's end */
    LK_EXCLUSIVE_TO_EXIT = LK_EXCLUSIVE | LK_TO_EXIT,
};

#define LK_WAIT_FOREVER UINT64_MAX
#define LK_PATIENCE_FIFO UINT64_MAX /* patience_ns: none at all, strict first in, first out */

/* Flags of struct lk_segment_options. */
enum {
    LK_CREATE = 1u << 0,      /* create the segment if there is none */
    LK_CREATE_NEW = 1u << 1,  /* create it; -EEXIST if there is one */
    LK_READ_ONLY = 1u << 2,   /* map read-only; locks go through the broker */
    LK_KEEP = 1u << 3,        /* lives until removed, not until its last attachment ends */
    LK_STRICT = 1u << 4,      /* members do not trust each other: locks go through the broker */
    LK_RESERVE = 1u << 5,     /* allocate now: lack of memory is -ENOSPC here, not a signal later */
    LK_INHERIT = 1u << 6,     /* a forked child keeps the data maps (never the locks) */
    LK_GUARD = 1u << 7,       /* file segments: truncation under the map is -EIO, not SIGBUS */
    LK_ACCEPT_KILL = 1u << 8, /* this process may be ended when it holds too long: see lease_ns */
    LK_UNPUBLISHED = 1u << 9, /* created: openers get -EAGAIN until lk_segment_publish() */
};

/* Every options structure starts with its own size; zero means the default everywhere. */
struct lk_session_options {
    size_t size;    /* sizeof(struct lk_session_options) */
    uint32_t flags; /* LK_NO_AUTOSTART */
    uint32_t reserved;
};

enum {
    LK_NO_AUTOSTART = 1u << 0, /* -ECONNREFUSED instead of starting a broker */
};

struct lk_segment_options {
    size_t size;              /* sizeof(struct lk_segment_options) */
    uint64_t size_bytes;      /* size of the data; 0: none, a plain named lock */
    uint64_t size_max_bytes;  /* lk_segment_grow() up to here; 0: size_bytes */
    uint32_t locks;           /* entries of the lock table; 0: 16 */
    uint32_t attachments_max; /* sessions attached at a time; 0: 1024 */
    uint32_t mode;            /* permission bits as for a file; 0: 0600 */
    uint32_t flags;           /* LK_CREATE and so on */
    uint64_t patience_ns;     /* a waiter older than this gets the next turn; 0: 500 us */
    uint64_t lease_ns;        /* of the creator: how long a lock may be held on while somebody waits
                                 for it; 0: for ever. See enum lk_on_expiry */
    uint32_t on_expiry;       /* enum lk_on_expiry; without lease_ns only LK_EXPIRY_REPORT */
    uint32_t reserved;
};

/* What the broker does when a lease is over. The clock starts when a waiter has waited for 1 ms and
 * complains about this very hold (owner and token): who is in nobody's way is left alone, and
 * taking a lock costs nothing more. If nobody waits any more when the time is over, nothing is
 * done. The lease belongs to the segment; who opens it and asks for another one gets -EINVAL.
 * Source: fencing tokens guard only what checks them, and mapped memory checks nothing: so only an
 * end of the process makes sure that it does not write any more. */
enum lk_on_expiry {
    LK_EXPIRY_REPORT = 0, /* a line in the broker's log, once per hold */
    LK_EXPIRY_KILL = 1,   /* the holder's process is ended: SIGTERM, 2 s (60 s while a debugger has
                             stopped it), SIGKILL; the lock is handed on when it can run no more.
                             Only a process that opened the segment with LK_ACCEPT_KILL, or one of
                             the same user as who waits, or any in an LK_STRICT segment; others are
                             reported. One that cannot die yet is reported, never granted over */
    LK_EXPIRY_FENCE = 2,  /* the hold is taken away, if the broker holds it for the session
                             (LK_STRICT, LK_READ_ONLY, asynchronous); others are reported. The next
                             holder gets LK_ACQUIRED_OWNER_DIED with LK_CAUSE_FENCED and a higher
                             token; releasing is -ESTALE. NOT SAFE for mapped data: the process
                             lives and may still write. For stores that compare tokens */
};

enum lk_recovery_cause {
    LK_CAUSE_NONE = 0,
    LK_CAUSE_EXITED = 1, /* the process ended, by exit or by a signal */
    LK_CAUSE_CLOSED = 2, /* the session was closed while holding */
    LK_CAUSE_FORCED = 3, /* the broker ended the process: a lease, or lockkeeper release --force */
    LK_CAUSE_FENCED = 4, /* taken from a process that lives, and MAY STILL WRITE: LK_EXPIRY_FENCE */
};

/* What the last recovery of a lock found. */
struct lk_recovery {
    size_t size; /* in: sizeof(struct lk_recovery) */
    int32_t pid; /* of the owner that died, as the broker sees it */
    uint32_t uid;
    uint32_t cause;    /* enum lk_recovery_cause */
    uint32_t declared; /* not 0: dirty_offset and dirty_length_bytes were declared by that owner */
    uint64_t token;    /* of that hold */
    uint64_t when_ns;  /* CLOCK_MONOTONIC, when the broker repaired the word */
    uint64_t dirty_offset;
    uint64_t dirty_length_bytes;
    char command[32]; /* of that owner, zero-terminated */
};

/* Who holds a lock. */
struct lk_holder {
    size_t size; /* in: sizeof(struct lk_holder) */
    int32_t pid; /* of one holder, as the broker sees it; 0: nobody holds it */
    uint32_t uid;
    uint32_t mode;    /* LK_SHARED, LK_EXCLUSIVE or LK_UPDATE; 0: nobody holds it */
    uint32_t holders; /* how many sessions hold it, readers beside LK_UPDATE included */
    uint32_t waiters; /* how many wait for it */
    uint32_t reserved;
    uint64_t token;
    uint64_t held_ns; /* since when, as far as anybody looked; 0: not known */
    char command[32]; /* zero-terminated */
};

/* --- Sessions --- */

/**
 * Connects to a broker, and starts one if nobody answers.
 * @socket_path: the broker's socket. NULL: $LOCKKEEPER_SOCKET, else the system broker if it
 *               answers, else the user's own, which is started when it does not run
 * @options:     may be NULL. $LOCKKEEPER_AUTOSTART=0 does what LK_NO_AUTOSTART does
 * @out:         the new session, owned by the caller
 * Returns:      0
 * Errors:       -ECONNREFUSED (nobody answers, and not started), -ENAMETOOLONG (the path does not
 *               fit in a socket address), -EACCES (no permission, or a stranger answers there),
 *               -EPROTO, -EMFILE, -ENOMEM, -EINVAL
 * Threads: any. What is started: $LOCKKEEPERD, else lockkeeperd where the library was installed
 * for, beside the running program, or on PATH. A refusal of this client by the broker is reported
 * by the first call that needs a reply.
 */
LK_API int lk_session_open(const char *socket_path, const struct lk_session_options *options,
                           struct lk_session **out);

/**
 * Closes a session and everything opened through it: no handle of its segments and locks may be
 * used any more, not even to close it. Maps are unmapped. A lock still held is handed on as after a
 * death: never a silent release. Callbacks that are due are not called any more.
 * Returns: NULL. NULL is allowed.
 */
LK_API struct lk_session *lk_session_close(struct lk_session *session);

/**
 * The descriptor to poll for reading when asynchronous acquires are pending: readable while
 * lk_session_dispatch() has something to do, also when another call has received it. Borrowed.
 * Errors: -ESTALE, -EMFILE, -EINVAL
 */
LK_API int lk_session_fd(struct lk_session *session);

/**
 * Handles what has arrived, calls callbacks, does not block. A callback may do anything but close
 * the session.
 * Returns: the number of callbacks called
 * Errors:  -ECONNRESET (the broker is gone; what was pending was called with it before), -ESTALE,
 *          -EPROTO
 */
LK_API int lk_session_dispatch(struct lk_session *session);

/* --- Segments --- */

/**
 * Opens a segment of anonymous memory by name, creating it if the options say so.
 * @name:    1 to 255 bytes of UTF-8 without control characters and '#'; '/' only in the prefixes
 *           "~user/" and "@group/". A bare name is the caller's own
 * @options: NULL: attach only
 * Returns:  0 attached, LK_CREATED created. Twice by one session: the same handle, counted, with
 *           the rights and flags of the first time
 * Errors:   -ENOENT, -EEXIST, -EACCES, -EINVAL (name, mode, or a size or lease that an existing
 *           segment does not have), -EFBIG (beyond the bounds), -EAGAIN (not yet published), -ENOSPC, -EDQUOT,
 *           -EMFILE (nothing was opened), -EUSERS (all attachments taken), -ECONNRESET, -EPROTO,
 *           -ENOMEM, -ESTALE
 */
LK_API int lk_segment_open(struct lk_session *session, const char *name,
                           const struct lk_segment_options *options, struct lk_segment **out);

/**
 * Offers a file as the data of a segment. The file is opened by the caller, with his rights.
 * @fd:      a regular file, open for reading and writing; borrowed
 * @options: size_bytes 0: the file's size. A file of length zero is extended to size_bytes
 * Returns:  as lk_segment_open(): LK_CREATED, or 0 when the segment exists and has the same file
 * Errors:   also -ESTALE (the segment has another file: device or inode differ), -EACCES (the
 *           broker takes files only from its own user), -EBADF
 */
LK_API int lk_segment_offer(struct lk_session *session, const char *name, int fd,
                            const struct lk_segment_options *options, struct lk_segment **out);

/** Lets others open a segment created with LK_UNPUBLISHED. Errors: -EPERM (not the creator). */
LK_API int lk_segment_publish(struct lk_segment *segment);

/**
 * Gives one count back; the last one detaches and unmaps. Held locks are handed on as after a
 * death; pending asynchronous acquires end with -ECANCELED at the next dispatch.
 * Returns: NULL. NULL is allowed.
 */
LK_API struct lk_segment *lk_segment_close(struct lk_segment *segment);

/** Removes a name. Sessions attached keep what they have. Errors: -ENOENT, -EACCES, -EINVAL. */
LK_API int lk_segment_remove(struct lk_session *session, const char *name);

/** The present size of the data in bytes; others may grow it at any time. 0 for a stale handle. */
LK_API uint64_t lk_segment_size(const struct lk_segment *segment);

/**
 * Grows the data in place; maps that reach so far show it at once.
 * Errors: -EINVAL (never shrinks), -EFBIG (beyond size_max_bytes), -ENOSPC, -EDQUOT, -EACCES
 *         (read-only), -EIO (a guarded file was truncated), -ECONNRESET, -ESTALE
 */
LK_API int lk_segment_grow(struct lk_segment *segment, uint64_t size_bytes);

/**
 * Maps a window of the data.
 * @offset, @length_bytes: any values within the maximum size, unaligned too; length 0: up to the
 *               present size
 * @out_address: the byte at offset. Valid until lk_segment_unmap() or the segment's close
 * Errors: -EINVAL (beyond the end, or empty), -ENOMEM, -ENOSPC (too many guarded windows), -EIO (a
 *         guarded file was truncated), -ESTALE
 */
LK_API int lk_segment_map(struct lk_segment *segment, uint64_t offset, uint64_t length_bytes,
                          void **out_address);

/** Unmaps a window by the address that lk_segment_map() gave. Errors: -EINVAL (no such window). */
LK_API int lk_segment_unmap(struct lk_segment *segment, void *address);

/* --- Locks --- */

/**
 * Lock number index of the segment. Twice: the same handle, counted.
 * Errors: -ERANGE (beyond the table), -ENOMEM, -EINVAL, -ESTALE
 */
LK_API int lk_lock_at(struct lk_segment *segment, uint32_t index, struct lk_lock **out);

/**
 * The lock with this name; an unused entry gets the name if there is none.
 * @name: 1 to 255 bytes of UTF-8 without control characters, '#' and '/', and not all digits
 * Errors: -EINVAL (name), -ENOSPC (table full), -EACCES, -ECONNRESET, -ENOMEM, -ESTALE
 */
LK_API int lk_lock_named(struct lk_segment *segment, const char *name, struct lk_lock **out);

/**
 * Gives one count back. Releases nothing, and cancels nothing.
 * Returns: NULL. NULL is allowed.
 */
LK_API struct lk_lock *lk_lock_close(struct lk_lock *lock);

/**
 * Takes a lock, waiting while another session holds it in a mode that conflicts.
 * @mode:       LK_SHARED, LK_EXCLUSIVE, LK_UPDATE or LK_EXCLUSIVE_TO_EXIT
 * @timeout_ns: nanoseconds from now; 0 tries once, LK_WAIT_FOREVER never gives up
 * Returns:     LK_ACQUIRED, or LK_ACQUIRED_OWNER_DIED: held as well, but an owner died inside.
 *              Repair the data, then call lk_lock_mark_consistent()
 * Errors:      -EBUSY (timeout 0), -ETIMEDOUT, -EDEADLK (this session holds it already: locks do
 *              not nest; or the wait would never end, since somebody in its way waits, perhaps
 *              through others and in other segments, for what this session holds: give that up,
 *              then try again. One session of such a ring is refused, the one that closed it, and
 *              lk_last_error() tells of all of them), -ENOLCK (17th shared hold in a segment), -EALREADY (an asynchronous
 *              acquire is pending), -EIO (a guarded file was truncated), -ESTALE, -ECONNRESET,
 *              -EDQUOT (it would wait in the broker, and has too many waits), -EINVAL: not held
 * Threads: one thread per session at a time. Signals: EINTR is handled inside. Fork: -ESTALE.
 * Source: the robust mutex of POSIX pthread_mutex_lock(); futex(2).
 */
LK_API_HOT int lk_lock_acquire(struct lk_lock *lock, enum lk_mode mode, uint64_t timeout_ns);

/** Called by lk_session_dispatch() when an asynchronous acquire ends; result as of
 * lk_lock_acquire(), or -ECANCELED. */
typedef void (*lk_acquired_fn)(struct lk_lock *lock, int result, void *user);

/**
 * As lk_lock_acquire(), but returns at once; the broker waits. The callback comes from
 * lk_session_dispatch() alone, exactly once, unless this call fails or the session is closed. One
 * at a time per lock handle. The lock may be held from any call of the session on, before the
 * callback tells so. Each takes an attachment of the segment while it waits and holds.
 * Errors: -EALREADY (one is pending), -EDEADLK, -EINVAL, -EIO, -ESTALE, -ECONNRESET. In the
 *         callback also -EAGAIN (too many by this session), -EUSERS (all attachments taken),
 *         -EDQUOT, -EDEADLK (the wait would never end; also when another acquire of this session, later
 *         than this one, has closed the ring). While one is pending, acquires that do not wait are
 *         slower: each asks the broker whether it closes a ring
 */
LK_API int lk_lock_acquire_async(struct lk_lock *lock, enum lk_mode mode, uint64_t timeout_ns,
                                 lk_acquired_fn acquired, void *user);

/**
 * Gives up a pending asynchronous acquire.
 * Returns: 0: not held (the callback gets -ECANCELED, or how it had ended before), or 1: it was
 *          granted meanwhile and is held (the callback gets the grant)
 * Errors:  -ENOENT (none is pending), -ECONNRESET, -ESTALE
 */
LK_API int lk_lock_cancel(struct lk_lock *lock);

/**
 * Releases a lock.
 * Where the broker locks for the session (LK_STRICT, LK_READ_ONLY), this does not wait for it, as a
 * rule: somebody who is told of the release in another way may find the lock held for a moment (a try
 * gives -EBUSY, an optimistic read -EAGAIN, here too). Who waits for the lock gets it, what this
 * session asks of the broker comes after the release, and neither the end of this process nor that of
 * the broker's worker undoes it.
 * Returns: 0
 * Errors:  -EPERM (this session does not hold it; nothing is changed), -ESTALE (also: its lease was
 *          over and the hold was taken away, LK_EXPIRY_FENCE), -EINVAL;
 *          -ECONNRESET (granted by a broker that is gone). -EIO: released, but the guarded file was
 *          truncated, so what was written under the lock may be lost
 */
LK_API_HOT int lk_lock_release(struct lk_lock *lock);

/**
 * Makes a hold in LK_UPDATE exclusive: waits for the readers that are inside, and lets no more in.
 * @timeout_ns: nanoseconds from now; 0 tries once, without disturbing the readers; LK_WAIT_FOREVER never
 *              gives up
 * Returns:     LK_ACQUIRED, or LK_ACQUIRED_OWNER_DIED, as lk_lock_acquire(): held exclusively
 * Errors:      -EBUSY (timeout 0), -ETIMEDOUT, -EDEADLK (a reader waits, perhaps through others, for what
 *              this session holds), -EPERM (not held in LK_UPDATE), -EDQUOT (it would wait in the broker, and
 *              has too many waits), -EOPNOTSUPP (held through a broker older than this library), -EIO,
 *              -ECONNRESET, -ESTALE, -EINVAL. After the first three, -EDQUOT and -EIO it is still held in
 *              LK_UPDATE, and readers may join it again
 * Threads, signals, fork: as lk_lock_acquire().
 * Source: update (U) locks of databases: two readers that both want to write would wait for each other
 * for ever; so one alone may, and says so when it begins to read.
 */
LK_API int lk_lock_upgrade(struct lk_lock *lock, uint64_t timeout_ns);

/**
 * Weakens a hold, at once: the readers that wait come in.
 * @mode:  LK_UPDATE (from LK_EXCLUSIVE) or LK_SHARED (from either)
 * Returns: 0
 * Errors:  -EPERM (not held in a stronger mode), -ENOLCK (LK_SHARED: this session holds 16 others of the
 *          segment), -EOPNOTSUPP (as above), -ECONNRESET, -EINVAL, -ESTALE: nothing was changed
 */
LK_API int lk_lock_downgrade(struct lk_lock *lock, enum lk_mode mode);

/** The exclusive holder states that the data is whole again. Errors: -EPERM (not the exclusive
 * holder), -ESTALE. */
LK_API int lk_lock_mark_consistent(struct lk_lock *lock);

/** What the last recovery found; as often as asked. Errors: -ENOENT (there was none), -EINVAL,
 * -ESTALE. */
LK_API int lk_lock_recovery(struct lk_lock *lock, struct lk_recovery *out);

/** Who holds the lock now, asked of the broker. Errors: -EINVAL, -ECONNRESET, -ESTALE. */
LK_API int lk_lock_holder(struct lk_lock *lock, struct lk_holder *out);

/** The fencing token: the lock's sequence. While held exclusively it names this hold; it never
 * falls. 0 for a stale handle. */
LK_API uint64_t lk_lock_token(const struct lk_lock *lock);

/** The exclusive holder declares the bytes that it is about to change; a successor is told of them
 * if it dies. The last declaration counts, and ends with the hold. Errors: -EPERM, -EINVAL,
 * -ESTALE. */
LK_API int lk_lock_declare(struct lk_lock *lock, uint64_t offset, uint64_t length_bytes);

/* --- Optimistic reads --- */

/** Begins a read that takes no lock and needs no write access; never waits. Errors: -EAGAIN (a
 * writer is inside; makes no text), -EOWNERDEAD (an owner died inside, nobody repaired it yet),
 * -EIO (a guarded file was truncated), -ESTALE. */
LK_API_HOT int lk_read_begin(const struct lk_lock *lock, uint64_t *out_version);

/** True if nothing was written under the lock since lk_read_begin(): what was copied may be used.
 * False for a stale handle. */
LK_API_HOT bool lk_read_valid(const struct lk_lock *lock, uint64_t version);

/** Copies bytes that may change meanwhile, without a data race; use the copy only if
 * lk_read_valid(). */
LK_API_HOT void lk_read_copy(void *to, const void *from, size_t bytes);

/* --- Errors --- */

/** Names a result code in words. Never NULL; static storage. Threads: any. */
LK_API const char *lk_strerror(int result);

/** What the last failed call of this thread tried, on what, why not, and what to do. Never NULL;
 * valid until the thread's next failed call. */
LK_API const char *lk_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
