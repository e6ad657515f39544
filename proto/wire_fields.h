/* SPDX-License-Identifier: MIT */
/* The fields of every message, listed once for both directions of the codec: a field that one of
 * them knew and the other did not would be lost without a sound. The names are the same in message.h
 * and in lockkeeper.proto.
 *
 *     N(field)  a number or a flag
 *     E(field)  a value of an enum in the schema
 *     B(field)  bytes
 */
#pragma once

#define LKI_HELLO_FIELDS(N, E, B)                                                                  \
    N(protocol_major)                                                                              \
    N(protocol_minor)                                                                              \
    N(layout_major)

#define LKI_OPEN_FIELDS(N, E, B)                                                                   \
    B(name)                                                                                        \
    N(flags)                                                                                       \
    N(size_bytes)                                                                                  \
    N(size_max_bytes)                                                                              \
    N(locks)                                                                                       \
    N(attachments_max)                                                                             \
    N(mode)                                                                                        \
    N(patience_ns)                                                                                 \
    N(offered)                                                                                     \
    N(lease_ns)                                                                                    \
    N(on_expiry)

#define LKI_SEGMENT_REF_FIELDS(N, E, B) N(segment)

#define LKI_REMOVE_FIELDS(N, E, B) B(name)

#define LKI_GROW_FIELDS(N, E, B)                                                                   \
    N(segment)                                                                                     \
    N(size_bytes)

#define LKI_LOCK_NAMED_FIELDS(N, E, B)                                                             \
    N(segment)                                                                                     \
    B(name)

#define LKI_ACQUIRE_FIELDS(N, E, B)                                                                \
    N(segment)                                                                                     \
    N(lock)                                                                                        \
    E(mode)                                                                                        \
    N(to_exit)                                                                                     \
    N(asynchronous)                                                                                \
    N(deadline_ns)

#define LKI_CANCEL_FIELDS(N, E, B) N(request)

#define LKI_HOLD_REF_FIELDS(N, E, B)                                                               \
    N(segment)                                                                                     \
    N(lock)                                                                                        \
    N(attachment)                                                                                  \
    N(offset)                                                                                      \
    N(length_bytes)                                                                                \
    N(one_way)                                                                                     \
    N(to_exit)

#define LKI_CHANGE_MODE_FIELDS(N, E, B)                                                            \
    N(segment)                                                                                     \
    N(lock)                                                                                        \
    N(attachment)                                                                                  \
    E(mode)                                                                                        \
    N(deadline_ns)

#define LKI_ASK_FIELDS(N, E, B)                                                                    \
    N(segment)                                                                                     \
    N(lock)                                                                                        \
    N(owner)                                                                                       \
    N(sequence)

#define LKI_LOCK_REF_FIELDS(N, E, B)                                                               \
    N(segment)                                                                                     \
    N(lock)

#define LKI_LIST_REQUEST_FIELDS(N, E, B)                                                           \
    E(what)                                                                                        \
    N(cursor)                                                                                      \
    B(name)

#define LKI_RESUME_FIELDS(N, E, B) N(number)
#define LKI_RESUMED_FIELDS(N, E, B) N(number)
#define LKI_MONITOR_REQUEST_FIELDS(N, E, B) B(name)

#define LKI_FORCE_RELEASE_FIELDS(N, E, B)                                                          \
    B(name)                                                                                        \
    N(lock)                                                                                        \
    B(lock_name)                                                                                   \
    B(reason)

#define LKI_RESULT_FIELDS(N, E, B)                                                                 \
    E(status)                                                                                      \
    N(value)                                                                                       \
    B(detail)

#define LKI_OPENED_FIELDS(N, E, B)                                                                 \
    N(created)                                                                                     \
    N(brokered)                                                                                    \
    N(read_only)                                                                                   \
    N(file)                                                                                        \
    N(segment)                                                                                     \
    N(attachment)                                                                                  \
    N(area_bytes)                                                                                  \
    N(data_bytes_max)                                                                              \
    N(flags)                                                                                       \
    N(protocol_minor)

#define LKI_GRANTED_FIELDS(N, E, B)                                                                \
    E(status)                                                                                      \
    N(attachment)                                                                                  \
    N(token)                                                                                       \
    N(one_way)

#define LKI_HOLDER_IS_FIELDS(N, E, B)                                                              \
    N(pid)                                                                                         \
    N(uid)                                                                                         \
    E(mode)                                                                                        \
    N(holders)                                                                                     \
    N(waiters)                                                                                     \
    N(token)                                                                                       \
    N(held_ns)                                                                                     \
    B(command)

#define LKI_LIST_ENTRY_FIELDS(N, E, B)                                                             \
    B(name)                                                                                        \
    B(lock_name)                                                                                   \
    B(command)                                                                                     \
    N(lock)                                                                                        \
    E(state)                                                                                       \
    N(mode)                                                                                        \
    N(pid)                                                                                         \
    N(uid)                                                                                         \
    N(waiters)                                                                                     \
    N(attachments)                                                                                 \
    N(locks)                                                                                       \
    N(flags)                                                                                       \
    N(token)                                                                                       \
    N(since_ns)                                                                                    \
    N(size_bytes)                                                                                  \
    N(size_max_bytes)                                                                              \
    N(file)                                                                                        \
    N(session)                                                                                     \
    N(segment)

#define LKI_EVENT_FIELDS(N, E, B)                                                                  \
    E(kind)                                                                                        \
    N(when_ns)                                                                                     \
    N(pid)                                                                                         \
    N(uid)                                                                                         \
    B(command)                                                                                     \
    N(session)                                                                                     \
    B(name)                                                                                        \
    B(lock_name)                                                                                   \
    N(segment)                                                                                     \
    N(lock)                                                                                        \
    N(token)                                                                                       \
    N(cause)                                                                                       \
    N(size_bytes)                                                                                  \
    B(text)                                                                                        \
    N(lost)
