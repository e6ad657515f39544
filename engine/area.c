/* SPDX-License-Identifier: MIT */
#include "engine/layout.h"

#include <errno.h>

#define PAGE_BYTES UINT64_C(4096)

static uint64_t round_to_page(uint64_t bytes)
{
    return (bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}

struct offsets {
    uint64_t hot;
    uint64_t attachments;
    uint64_t cold;
    uint64_t end;
};

static struct offsets offsets_for(uint32_t locks, uint32_t attachments_max)
{
    struct offsets at;
    at.hot = sizeof(struct lki_header);
    at.attachments = round_to_page(at.hot + (uint64_t)locks * sizeof(struct lki_lock_hot));
    at.cold = round_to_page(at.attachments +
                            ((uint64_t)attachments_max + 1) * sizeof(struct lki_attachment));
    at.end = round_to_page(at.cold + (uint64_t)locks * sizeof(struct lki_lock_cold));
    return at;
}

static bool counts_are_sane(uint32_t locks, uint32_t attachments_max)
{
    return locks >= 1 && locks <= LKI_LOCKS_MAX && attachments_max >= 1 &&
           attachments_max <= LKI_ATTACHMENTS_MAX;
}

static void view_at(void *base, const struct offsets *at, uint32_t locks, uint32_t attachments_max,
                    uint64_t patience_ns, struct lki_area *out_area)
{
    char *bytes = base;
    *out_area = (struct lki_area){
        .header = base,
        .hot = (struct lki_lock_hot *)(void *)(bytes + at->hot),
        .attachments = (struct lki_attachment *)(void *)(bytes + at->attachments),
        .cold = (struct lki_lock_cold *)(void *)(bytes + at->cold),
        .locks = locks,
        .attachments_max = attachments_max,
        .patience_ns = patience_ns,
        .area_bytes = at->end,
    };
}

uint64_t lki_area_bytes(uint32_t locks, uint32_t attachments_max)
{
    return offsets_for(locks, attachments_max).end;
}

uint64_t lki_area_format_bytes(uint32_t locks, uint32_t attachments_max)
{
    struct offsets at = offsets_for(locks, attachments_max);
    return at.hot + locks * sizeof(struct lki_lock_hot);
}

int lki_area_format(void *base, const struct lki_area_config *config, struct lki_area *out_area)
{
    if (!counts_are_sane(config->locks, config->attachments_max) || config->sequence_start & 1)
        return -EINVAL;

    struct offsets at = offsets_for(config->locks, config->attachments_max);
    struct lki_header *header = base;
    header->version_major = LKI_LAYOUT_MAJOR;
    header->version_minor = LKI_LAYOUT_MINOR;
    header->area_bytes = at.end;
    /* relaxed: published by the magic below */
    atomic_store_explicit(&header->locks, config->locks, memory_order_relaxed);
    atomic_store_explicit(&header->attachments, config->attachments_max, memory_order_relaxed);
    header->hot_offset = at.hot;
    header->attachment_offset = at.attachments;
    header->cold_offset = at.cold;
    header->patience_ns = config->patience_ns;
    header->data_bytes_max = config->data_bytes_max;
    /* relaxed: published by the magic below */
    atomic_store_explicit(&header->data_bytes, config->data_bytes, memory_order_relaxed);
    atomic_store_explicit(&header->state, (uint32_t)config->state, memory_order_relaxed);
    atomic_store_explicit(&header->bias, config->bias, memory_order_relaxed);
    view_at(base, &at, config->locks, config->attachments_max, config->patience_ns, out_area);
    out_area->bias = config->bias;
    for (uint32_t i = 0; i < config->locks; i++)
        atomic_store_explicit(&out_area->hot[i].sequence, config->sequence_start,
                              memory_order_relaxed);
    /* [shm-ready] release, pairs with the acquire in lki_area_view(): a client that sees the magic
     * sees the whole header and every first sequence. */
    atomic_store_explicit(&header->magic, LKI_LAYOUT_MAGIC, memory_order_release);
    return 0;
}

void lki_area_restore(void *base, uint32_t locks, uint32_t attachments_max, uint64_t patience_ns,
                      struct lki_area *out_area)
{
    struct offsets at = offsets_for(locks, attachments_max);
    view_at(base, &at, locks, attachments_max, patience_ns, out_area);
}

int lki_area_view(void *base, uint64_t mapped_bytes, struct lki_area *out_area)
{
    if (mapped_bytes < sizeof(struct lki_header))
        return -EPROTO;

    struct lki_header *header = base;
    /* [shm-ready] acquire, pairs with the release in lki_area_format() */
    if (atomic_load_explicit(&header->magic, memory_order_acquire) != LKI_LAYOUT_MAGIC ||
        header->version_major != LKI_LAYOUT_MAJOR)
        return -EPROTO;

    /* Copied once: another client may be writing them, and what is checked has to be what is used.
     * relaxed: [shm-ready] has made them visible. */
    uint32_t locks = atomic_load_explicit(&header->locks, memory_order_relaxed);
    uint32_t attachments_max = atomic_load_explicit(&header->attachments, memory_order_relaxed);
    if (!counts_are_sane(locks, attachments_max))
        return -EPROTO;
    struct offsets at = offsets_for(locks, attachments_max);
    if (at.end > mapped_bytes || header->hot_offset != at.hot ||
        header->attachment_offset != at.attachments || header->cold_offset != at.cold)
        return -EPROTO;
    view_at(base, &at, locks, attachments_max, header->patience_ns, out_area);
    out_area->bias = atomic_load_explicit(&header->bias, memory_order_relaxed) != 0;
    return 0;
}
