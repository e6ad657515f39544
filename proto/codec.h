/* SPDX-License-Identifier: MIT */
/* Bytes of one record to a message and back. The only user of the generated protobuf code.
 *
 * Decoding is strict, since both ends are built from one schema: whatever a newer peer would add
 * needs a newer version in its hello. It allocates from the arena alone. Encoding allocates
 * nothing, so paths that release or clean up can rely on it. Threads: any, with an arena per
 * thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/arena.h"
#include "proto/message.h"

enum lki_direction {
    LKI_DIRECTION_REQUEST, /* client to broker */
    LKI_DIRECTION_REPLY,   /* broker to client */
};

/* The longest record of a direction, in bytes. Pure. */
static inline size_t lki_record_bytes_max(enum lki_direction direction)
{
    return direction == LKI_DIRECTION_REQUEST ? LKI_REQUEST_BYTES_MAX : LKI_REPLY_BYTES_MAX;
}

/* The direction in which messages of this type go. Pure. */
static inline enum lki_direction lki_message_direction(enum lki_message_type type)
{
    return type < LKI_REPLY_RESULT ? LKI_DIRECTION_REQUEST : LKI_DIRECTION_REPLY;
}

/**
 * Reads the one message in a record.
 * @arena:      reset first; what *out points to lies in it, until its next reset
 * @bytes:      borrowed for the call
 * @direction:  what the peer may send: a client requests, a broker replies
 * @out_reason: on failure why, in words without a final stop; static
 * Returns:     0
 * Errors:      -EPROTO: empty, malformed, an unknown field on any level, no message or more than
 *              one, a message of the other direction, a value outside its enum
 *              -EMSGSIZE: longer than the direction allows, or unpacks to more than the arena holds
 *              Either way the peer broke the protocol: drop it.
 */
int lki_message_decode(struct lki_arena *arena, const uint8_t *bytes, size_t size_bytes,
                       enum lki_direction direction, struct lki_message *out,
                       const char **out_reason);

/**
 * Writes a message as a record.
 * @buffer:  lki_record_bytes_max() bytes are always enough for a message that can be sent at all
 * Returns:  0
 * Errors:   -EMSGSIZE (longer than the direction or the buffer allows, or too many list entries),
 *           -EINVAL (no such type, or a value outside its enum)
 */
int lki_message_encode(const struct lki_message *message, uint8_t *buffer, size_t capacity_bytes,
                       size_t *out_bytes);
