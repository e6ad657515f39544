/* SPDX-License-Identifier: MIT */
#include "client/cli/listing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/admin.h"
#include "client/cli/text.h"
#include "common/printable.h"

static char *copy_text(struct lki_bytes bytes)
{
    char *text = malloc(bytes.length_bytes + 1);
    if (!text)
        return NULL;
    if (bytes.length_bytes)
        memcpy(text, bytes.data, bytes.length_bytes);
    text[bytes.length_bytes] = '\0';
    return lki_printable(text);
}

static int add_entry(const struct lki_list_entry *entry, void *user)
{
    struct lki_listing *listing = user;
    struct lki_listing_entry *entries =
        reallocarray(listing->entries, listing->count + 1, sizeof(*entries));
    if (!entries)
        return -ENOMEM;
    listing->entries = entries;
    struct lki_listing_entry *own = &entries[listing->count];
    *own = (struct lki_listing_entry){.is = *entry, .place = listing->count};
    listing->count++;
    own->name = copy_text(entry->name);
    own->lock_name = copy_text(entry->lock_name);
    own->command = copy_text(entry->command);
    if (!own->name || !own->lock_name || !own->command)
        return -ENOMEM;
    own->label = lki_text_lock_label(own->name, entry->lock, own->lock_name);
    return own->label ? 0 : -ENOMEM;
}

static bool waits(const struct lki_listing_entry *entry)
{
    return entry->is.state == LKI_ENTRY_WAITING;
}

static int compare_entries(const void *left, const void *right)
{
    const struct lki_listing_entry *a = left, *b = right;
    int r = strcmp(a->name, b->name);
    if (r == 0 && a->is.segment != b->is.segment) /* those without a name */
        r = a->is.segment < b->is.segment ? -1 : 1;
    if (r == 0 && a->is.lock != b->is.lock)
        r = a->is.lock < b->is.lock ? -1 : 1;
    if (r == 0 && waits(a) != waits(b))
        r = waits(a) ? 1 : -1;
    if (r == 0)
        r = a->place < b->place ? -1 : 1;
    return r;
}

int lki_listing_read(struct lk_session *session, enum lki_list_what what, const char *name,
                     struct lki_listing *out_listing)
{
    struct lki_listing listing = {0};
    int r = lki_admin_list(session, what, name, add_entry, &listing);
    if (r < 0) {
        lki_listing_deinit(&listing);
        return r;
    }
    if (listing.count)
        qsort(listing.entries, listing.count, sizeof(listing.entries[0]), compare_entries);
    *out_listing = listing;
    return 0;
}

void lki_listing_deinit(struct lki_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++) {
        free(listing->entries[i].name);
        free(listing->entries[i].lock_name);
        free(listing->entries[i].command);
        free(listing->entries[i].label);
    }
    free(listing->entries);
    *listing = (struct lki_listing){0};
}

struct lki_listing_lock lki_listing_next_lock(const struct lki_listing *listing, size_t *position)
{
    struct lki_listing_lock lock = {0};
    if (*position >= listing->count)
        return lock;
    lock.first = &listing->entries[*position];
    while (*position < listing->count) {
        const struct lki_listing_entry *entry = &listing->entries[*position];
        if (strcmp(entry->name, lock.first->name) != 0 ||
            entry->is.segment != lock.first->is.segment || entry->is.lock != lock.first->is.lock)
            break;
        lock.count++;
        if (!waits(entry))
            lock.holders++;
        (*position)++;
    }
    return lock;
}
