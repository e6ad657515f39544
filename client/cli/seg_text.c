/* SPDX-License-Identifier: MIT */
#include "client/cli/seg_text.h"

#include <stdio.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include "common/cleanup.h"

static const struct {
    uint32_t flag;
    const char *name;
} flag_names[] = {
    {LK_KEEP, "kept"},
    {LK_STRICT, "strict"},
    {LK_GUARD, "guard"},
    {LK_UNPUBLISHED, "unpublished"},
};

bool lki_seg_has_data(const struct lki_list_entry *segment)
{
    return segment->file || segment->size_max_bytes > 0;
}

const char *lki_seg_kind(const struct lki_list_entry *segment)
{
    return segment->file ? "file" : segment->size_max_bytes ? "memory" : "locks";
}

struct lki_text lki_seg_flags(const struct lki_list_entry *segment)
{
    struct lki_text out = {""};
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(flag_names); i++) {
        if (!(segment->flags & flag_names[i].flag))
            continue;
        size_t used = strlen(out.text);
        snprintf(out.text + used, sizeof(out.text) - used, "%s%s", used ? "," : "",
                 flag_names[i].name);
    }
    return out;
}

json_t *lki_seg_json(const struct lki_listing_entry *entry)
{
    const struct lki_list_entry *is = &entry->is;
    char mode[16];
    snprintf(mode, sizeof(mode), "%04o", (unsigned)is->mode);
    json_t *flags = json_array();
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(flag_names); i++)
        if (is->flags & flag_names[i].flag)
            json_array_append_new(flags, json_string(flag_names[i].name));
    return json_pack("{s:s, s:s, s:o, s:o, s:I, s:s, s:s, s:I, s:I, s:o}", "name", entry->name,
                     "kind", lki_seg_kind(is), "size_bytes", lki_json_number(is->size_bytes),
                     "size_max_bytes", lki_json_number(is->size_max_bytes), "uid",
                     (json_int_t)is->uid, "owner", lki_text_user(is->uid).text, "mode", mode,
                     "sessions", (json_int_t)is->attachments, "locks", (json_int_t)is->locks,
                     "flags", flags);
}
