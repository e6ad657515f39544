/* SPDX-License-Identifier: MIT */
/* Windows and sizes: beyond the end, around the end of the numbers, of what has no data. */
#include "misuse.h"

#include <errno.h>
#include <stdint.h>

static int map(struct lk_segment *segment, uint64_t offset, uint64_t length_bytes)
{
    void *address = NULL;
    int r = lk_segment_map(segment, offset, length_bytes, &address);
    NEED(r == 0 || address == NULL);
    if (r == 0)
        NEED(lk_segment_unmap(segment, address) == 0);
    return r;
}

static int map_null(struct scene *scene)
{
    (void)scene;
    return map(NULL, 0, 0);
}

static int map_no_place(struct scene *scene)
{
    return lk_segment_map(scene->segment, 0, 0, NULL);
}

static int offset_beyond(struct scene *scene)
{
    NEED(map(scene->segment, DATA_BYTES_MAX - 1, 1) == 0); /* the last byte that there may be */
    return map(scene->segment, DATA_BYTES_MAX, 1);
}

static int length_beyond(struct scene *scene)
{
    return map(scene->segment, 1, DATA_BYTES_MAX);
}

static int zero_at_the_end(struct scene *scene)
{
    return map(scene->segment, DATA_BYTES, 0);
}

static int offset_2_63(struct scene *scene)
{
    return map(scene->segment, UINT64_C(1) << 63, UINT64_C(1) << 63);
}

static int numbers_end(struct scene *scene)
{
    NEED(map(scene->segment, UINT64_MAX, 1) == -EINVAL);
    NEED(map(scene->segment, 1, UINT64_MAX) == -EINVAL);
    return map(scene->segment, UINT64_MAX, UINT64_MAX);
}

/* 2^46 - 1 bytes from an odd offset: either the machine has the addresses, or it says so. */
static int huge_unaligned(struct scene *scene)
{
    struct lk_segment *huge = misuse_segment(scene->session, "huge", UINT64_C(1) << 46, LK_CREATE);
    void *addresses[8];
    unsigned count = 0;
    int r = 0;
    while (count < 8 && r == 0) {
        r = lk_segment_map(huge, 1, (UINT64_C(1) << 46) - 1, &addresses[count]);
        count += r == 0;
    }
    while (count > 0)
        NEED(lk_segment_unmap(huge, addresses[--count]) == 0);
    lk_segment_close(huge);
    return r;
}

static int no_data(struct scene *scene)
{
    struct lk_segment *plain = misuse_segment(scene->session, "plain", 0, LK_CREATE);
    NEED(map(plain, 0, 4096) == -EINVAL);
    int r = map(plain, 0, 0);
    lk_segment_close(plain);
    return r;
}

static int unmap_null(struct scene *scene)
{
    (void)scene;
    return lk_segment_unmap(NULL, NULL);
}

static int unmap_nothing(struct scene *scene)
{
    return lk_segment_unmap(scene->segment, NULL);
}

static int unmap_inside(struct scene *scene)
{
    return lk_segment_unmap(scene->segment, scene->data + 1);
}

static int unmap_anothers(struct scene *scene)
{
    return lk_segment_unmap(scene->theirs, scene->data);
}

static int unmap_twice(struct scene *scene)
{
    void *address = NULL;
    NEED(lk_segment_map(scene->segment, 4097, 1, &address) == 0);
    NEED(lk_segment_unmap(scene->segment, address) == 0);
    return lk_segment_unmap(scene->segment, address);
}

static int size_null(struct scene *scene)
{
    (void)scene;
    return (int)lk_segment_size(NULL);
}

static int grow_null(struct scene *scene)
{
    (void)scene;
    return lk_segment_grow(NULL, 4096);
}

static int shrink(struct scene *scene)
{
    NEED(lk_segment_grow(scene->segment, 0) == -EINVAL);
    return lk_segment_grow(scene->segment, DATA_BYTES - 1);
}

static int grow_beyond(struct scene *scene)
{
    return lk_segment_grow(scene->segment, DATA_BYTES_MAX + 1);
}

static int grow_2_63(struct scene *scene)
{
    return lk_segment_grow(scene->segment, UINT64_C(1) << 63);
}

static int grow_no_data(struct scene *scene)
{
    struct lk_segment *plain = misuse_segment(scene->session, "plain", 0, LK_CREATE);
    int r = lk_segment_grow(plain, 4096);
    lk_segment_close(plain);
    return r;
}

static int grow_read_only(struct scene *scene)
{
    struct lk_session *reader = misuse_session(scene);
    int r = lk_segment_grow(misuse_segment(reader, "scene", 0, LK_READ_ONLY), DATA_BYTES_MAX);
    lk_session_close(reader);
    return r;
}

const struct misuse misuse_of_maps[] = {
    {"map-null", map_null, -EINVAL},
    {"map-no-place", map_no_place, -EINVAL},
    {"map-offset-beyond", offset_beyond, -EINVAL},
    {"map-length-beyond", length_beyond, -EINVAL},
    {"map-zero-at-end", zero_at_the_end, -EINVAL},
    {"map-offset-2^63", offset_2_63, -EINVAL},
    {"map-2^64-1", numbers_end, -EINVAL},
    {"map-huge", huge_unaligned, -ENOMEM},
    {"map-no-data", no_data, -EINVAL},
    {"unmap-null", unmap_null, -EINVAL},
    {"unmap-nothing", unmap_nothing, -EINVAL},
    {"unmap-inside", unmap_inside, -EINVAL},
    {"unmap-anothers", unmap_anothers, -EINVAL},
    {"unmap-twice", unmap_twice, -EINVAL},
    {"size-null", size_null, 0},
    {"grow-null", grow_null, -EINVAL},
    {"grow-shrinks", shrink, -EINVAL},
    {"grow-beyond", grow_beyond, -EFBIG},
    {"grow-2^63", grow_2_63, -EFBIG},
    {"grow-no-data", grow_no_data, -EFBIG},
    {"grow-read-only", grow_read_only, -EACCES},
    {NULL, NULL, 0},
};
