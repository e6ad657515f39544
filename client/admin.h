/* SPDX-License-Identifier: MIT */
/* Administration: what a broker knows about all its locks and segments, for the command line and
 * for tests. Hidden: the shared library does not export it. Uses the session's connection, so the
 * rules of a session hold: one thread at a time, -ESTALE after fork. */
#pragma once

#include "proto/message.h"

struct lk_session;

/* One entry of a listing; borrowed for the call. Anything but 0 ends the listing and is its result.
 */
typedef int (*lki_admin_entry_fn)(const struct lki_list_entry *entry, void *user);

/**
 * Asks the broker for a listing, page by page.
 * @name: this segment alone, as the user wrote it; NULL: all that the caller may see
 * Returns: 0, or what entry_fn returned
 * Errors: -ENOENT (no such segment), -EACCES, -EINVAL (the name), -ECONNRESET, -EPROTO, -ESTALE
 */
int lki_admin_list(struct lk_session *session, enum lki_list_what what, const char *name,
                   lki_admin_entry_fn entry_fn, void *user);

/**
 * Asks the broker for events, which come from now on: for lki_admin_next_event() alone, other calls
 * of the session throw away what arrives meanwhile.
 * @name: only what is about the segment of this name; NULL: all that the caller may see
 * Errors: -EINVAL (the name), -EALREADY, -EDQUOT (too many watch), -ECONNRESET, -EPROTO, -ESTALE
 */
int lki_admin_monitor(struct lk_session *session, const char *name);

/**
 * Takes the next event that has come; does not wait, for that poll lki_admin_socket().
 * Returns: 1 and *out_event, whose texts are valid until the next call; 0: none yet; 2: another
 *          worker of the broker goes on, and has to be asked for events anew
 * Errors:  -ECONNRESET, -EPROTO, -ENOMEM
 */
int lki_admin_next_event(struct lk_session *session, struct lki_event *out_event);

/* The session's connection, to be polled for reading; borrowed. */
int lki_admin_socket(const struct lk_session *session);

/**
 * Ends whoever holds a lock, and waits until it has been handed on or is free.
 * @name, @lock_name: as the user wrote them; lock_name NULL: `lock` counts
 * @reason:     for the broker's log; 1 to LKI_REASON_BYTES_MAX bytes
 * @out_ended:  how many holders there were
 * Errors: -ENOENT (no such segment or lock), -ERANGE, -EACCES (not permitted), -EBUSY (the holder
 *         is stuck in the kernel), -EAGAIN, -EINVAL, -ECONNRESET, -EPROTO, -ESTALE
 */
int lki_admin_force_release(struct lk_session *session, const char *name, uint32_t lock,
                            const char *lock_name, const char *reason, uint64_t *out_ended);

/**
 * Writes down, for listings, that a shared hold which this process keeps to its end began now. The
 * library cannot: taking a shared lock tells it nothing about the end, and is too fast for a clock.
 */
struct lk_lock;
void lki_admin_note_hold_to_exit(const struct lk_lock *lock);

/**
 * The descriptor of a segment's data, for reading with pread(2): other than through a map, a hole
 * stays a hole and a truncated file is a short read. Borrowed from the segment. Returns: the
 * descriptor. Errors: -ENODATA (a segment without data)
 */
struct lk_segment;
int lki_admin_data_fd(const struct lk_segment *segment);
