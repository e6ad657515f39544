/* SPDX-License-Identifier: MIT */
#include "scribble.h"

#include <string.h>

/* The owner of a slot, a slot out of bounds, any number: with all flags that there are. */
static uint32_t pick_id(struct fuzz_input *input, const struct lki_area *area)
{
    uint32_t slot = fuzz_below(input, area->attachments_max + 3);
    switch (fuzz_below(input, 4)) {
    case 0:
        return fuzz_u32(input);
    case 1:
        return (uint32_t)fuzz_byte(input) << LKI_GENERATION_SHIFT | slot;
    default:
        /* relaxed: one thread */
        return slot <= area->attachments_max
                   ? atomic_load_explicit(&area->attachments[slot].id, memory_order_relaxed)
                   : slot;
    }
}

static uint32_t pick_word(struct fuzz_input *input, const struct lki_area *area)
{
    uint32_t flags = (uint32_t)fuzz_byte(input) << 24 & ~LKI_ID_MASK;
    return pick_id(input, area) | flags;
}

static uint64_t pick_wait(struct fuzz_input *input, const struct lki_area *area)
{
    if (fuzz_below(input, 4) == 0)
        return fuzz_u64(input);
    uint64_t kind_and_mode = (uint64_t)fuzz_byte(input) << 56;
    uint64_t lock = fuzz_below(input, area->locks + 2);
    return kind_and_mode | lock << LKI_WAIT_LOCK_SHIFT | fuzz_byte(input);
}

static uint64_t pick_number(struct fuzz_input *input)
{
    static const uint64_t edges[] = {0,
                                     1,
                                     2,
                                     UINT32_MAX,
                                     UINT64_MAX,
                                     INT64_MAX,
                                     1u << 31,
                                     UINT64_MAX - 1,
                                     4096,
                                     UINT64_MAX << 12,
                                     UINT64_C(1) << 32};
    uint32_t which = fuzz_below(input, sizeof(edges) / sizeof(edges[0]) + 2);
    return which < sizeof(edges) / sizeof(edges[0]) ? edges[which] : fuzz_u64(input);
}

static void scribble_lock(struct fuzz_input *input, const struct lki_area *area)
{
    uint32_t lock = fuzz_below(input, area->locks);
    struct lki_lock_hot *hot = &area->hot[lock];
    switch (fuzz_below(input, 6)) {
    case 0:
        hot->ticket = (uint32_t)pick_number(input);
        break;
    case 1:
        hot->sequence = pick_number(input);
        break;
    case 2:
        hot->dirty_sequence = pick_number(input);
        hot->dirty_offset = pick_number(input);
        hot->dirty_length = pick_number(input);
        break;
    default:
        hot->word = pick_word(input, area);
        break;
    }
}

static void scribble_attachment(struct fuzz_input *input, const struct lki_area *area)
{
    struct lki_attachment *victim =
        &area->attachments[fuzz_below(input, area->attachments_max + 1)];
    switch (fuzz_below(input, 8)) {
    case 0:
        victim->futex = (uint32_t)pick_number(input);
        break;
    case 1:
        victim->id = pick_id(input, area);
        break;
    case 2:
        victim->flags = (uint32_t)pick_number(input);
        break;
    case 3:
        victim->waiting_since_ns = pick_number(input);
        victim->held_since_ns = pick_number(input);
        break;
    case 4:
    case 5:
        victim->cells[fuzz_below(input, LKI_SHARED_HOLDS_MAX)] =
            fuzz_below(input, 8) == 0 ? fuzz_u32(input) : fuzz_below(input, area->locks + 2);
        break;
    default:
        victim->wait = pick_wait(input, area);
        break;
    }
}

static void scribble_header(struct fuzz_input *input, const struct lki_area *area)
{
    struct lki_header *header = area->header;
    uint64_t number = pick_number(input);
    switch (fuzz_below(input, 10)) {
    case 0:
        header->attachments_used = (uint32_t)number;
        break;
    case 1:
        header->data_bytes = number;
        break;
    case 2:
        header->data_bytes_max = number;
        break;
    case 3:
        header->truncated = (uint32_t)number;
        break;
    case 4:
        header->state = (uint32_t)number;
        header->bias = (uint32_t)(number >> 32);
        break;
    case 5:
        header->locks = (uint32_t)number;
        break;
    case 6:
        header->attachments = (uint32_t)number;
        break;
    case 7:
        header->patience_ns = number;
        break;
    case 8:
        header->area_bytes = number;
        break;
    default:
        header->magic = (uint32_t)number;
        break;
    }
}

static void scribble_cold(struct fuzz_input *input, const struct lki_area *area)
{
    struct lki_lock_cold *cold = &area->cold[fuzz_below(input, area->locks)];
    size_t bytes;
    const uint8_t *text;
    switch (fuzz_below(input, 5)) {
    case 0:
        cold->name_bytes = (uint32_t)pick_number(input);
        break;
    case 4: /* a little too long */
        cold->name_bytes = 200 + 2 * (uint32_t)fuzz_byte(input);
        break;
    case 1:
        text = fuzz_bytes(input, sizeof(cold->name), &bytes);
        memcpy(cold->name, text, bytes);
        cold->name_bytes = (uint32_t)bytes;
        break;
    case 2:
        memset(cold->recovery_command, 'x', sizeof(cold->recovery_command)); /* it does not end */
        cold->recovery_cause = (uint32_t)pick_number(input);
        break;
    default:
        cold->recovery_cause = fuzz_below(input, 6);
        cold->recovery_token = pick_number(input);
        cold->recovery_when_ns = pick_number(input);
        cold->recovery_pid = (int32_t)pick_number(input);
        break;
    }
}

void fuzz_scribble(struct fuzz_input *input, const struct lki_area *area)
{
    uint8_t *base = (uint8_t *)area->header;
    uint64_t offset;
    switch (fuzz_below(input, 16)) {
    case 0: /* as a hole punched into the file */
        offset = fuzz_number(input, 2) % (area->area_bytes / 4096) * 4096;
        memset(base + offset, 0, 4096);
        break;
    case 1:
        offset = fuzz_number(input, 3) % (area->area_bytes - 7);
        for (int i = 0; i < 8; i++)
            base[offset + (unsigned)i] = fuzz_byte(input);
        break;
    case 2:
        scribble_header(input, area);
        break;
    case 3:
    case 4:
        scribble_cold(input, area);
        break;
    case 5:
    case 6:
    case 7:
    case 8:
    case 9:
        scribble_lock(input, area);
        break;
    default:
        scribble_attachment(input, area);
        break;
    }
}
