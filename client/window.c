/* SPDX-License-Identifier: MIT */
#include "client/window.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/error.h"
#include "client/guard.h"
#include "client/segment.h"
#include "common/cleanup.h"

void lki_window_free(struct lki_window *window, bool unmap)
{
    lki_list_remove(&window->node);
    if (unmap) {
        if (window->guarded)
            lki_guard_remove(window->base);
        (void)munmap(window->base, window->bytes);
    }
    free(window);
}

uint64_t lk_segment_size(const struct lk_segment *segment)
{
    if (lki_segment_check(segment, "tell the size") < 0)
        return 0;
    /* [data-bytes] acquire, pairs with the broker's store once the pages are there; a scribbled
     * value is cut to what was checked when we attached. */
    uint64_t bytes = atomic_load_explicit(&segment->area.header->data_bytes, memory_order_acquire);
    return bytes < segment->data_bytes_max ? bytes : segment->data_bytes_max;
}

/* Maps whole pages around the range. */
static int map_pages(const struct lk_segment *segment, uint64_t offset, uint64_t length_bytes,
                     struct lki_window *window)
{
    /* Not asked for where it does not matter: sysconf() is a page that few have touched. */
    uint64_t lead_bytes = offset == 0 ? 0 : offset % (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t map_bytes = lead_bytes + length_bytes; /* both are below 2^46 */
    if (map_bytes > SIZE_MAX)
        return -ENOMEM;
    int protection = segment->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
    void *base = mmap(NULL, (size_t)map_bytes, protection, MAP_SHARED, segment->data_fd,
                      (off_t)(offset - lead_bytes));
    if (base == MAP_FAILED)
        return -errno;
    window->base = base;
    window->bytes = (size_t)map_bytes;
    window->address = (char *)base + lead_bytes;
    if (!(segment->flags & LK_INHERIT) && madvise(base, window->bytes, MADV_DONTFORK) < 0)
        return -errno;
    return 0;
}

static int guard(struct lk_segment *segment, struct lki_window *window)
{
    if (!segment->file || !(segment->flags & LK_GUARD))
        return 0;
    struct lki_guard_range range = {
        .base = window->base,
        .bytes = window->bytes,
        .writable = !segment->read_only,
        .mark_here = &segment->truncated_here,
        .mark_everybody = segment->brokered ? NULL : &segment->area.header->truncated,
    };
    int r = lki_guard_add(&range);
    window->guarded = r == 0;
    return r;
}

static int check_range(const struct lk_segment *segment, uint64_t offset, uint64_t *length_bytes)
{
    uint64_t end = segment->data_bytes_max;
    if (*length_bytes == 0) {
        end = lk_segment_size(segment);
        *length_bytes = offset < end ? end - offset : 0;
    }
    if (*length_bytes != 0 && offset < end && *length_bytes <= end - offset)
        return 0;
    if (segment->data_bytes_max == 0)
        return lki_fail(-EINVAL, "cannot map the segment '%s': it has no data, only locks",
                        segment->name);
    return lki_fail(-EINVAL,
                    "cannot map %llu bytes at %llu of the segment '%s': it ends at %llu bytes",
                    (unsigned long long)*length_bytes, (unsigned long long)offset, segment->name,
                    (unsigned long long)end);
}

int lk_segment_map(struct lk_segment *segment, uint64_t offset, uint64_t length_bytes,
                   void **out_address)
{
    int r = lki_segment_check_data(segment, "map");
    if (r < 0)
        return r;
    if (!out_address)
        return lki_fail(-EINVAL, "cannot map the segment '%s': no place for the result",
                        segment->name);
    r = check_range(segment, offset, &length_bytes);
    if (r < 0)
        return r;
    struct lki_window *window = calloc(1, sizeof(*window));
    if (!window)
        return lki_fail(-ENOMEM, "cannot map the segment '%s': no memory", segment->name);
    lki_list_init(&window->node);
    r = map_pages(segment, offset, length_bytes, window);
    if (r == 0)
        r = guard(segment, window);
    if (r < 0) {
        lki_window_free(window, window->base != NULL);
        return lki_fail(r, "cannot map %llu bytes at %llu of the segment '%s': %s",
                        (unsigned long long)length_bytes, (unsigned long long)offset, segment->name,
                        lk_strerror(r));
    }
    lki_list_append(&segment->windows, &window->node);
    *out_address = window->address;
    return 0;
}

int lk_segment_unmap(struct lk_segment *segment, void *address)
{
    int r = lki_segment_check(segment, "unmap");
    if (r < 0)
        return r;
    LKI_LIST_FOREACH_SAFE (node, &segment->windows) {
        struct lki_window *window = LKI_LIST_ENTRY(node, struct lki_window, node);
        if (window->address == address) {
            lki_window_free(window, true);
            return 0;
        }
    }
    return lki_fail(-EINVAL, "cannot unmap %p: no window of the segment '%s' begins there", address,
                    segment->name);
}
