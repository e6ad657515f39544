/* SPDX-License-Identifier: MIT */
#include "client/cli/json.h"

#include <stdio.h>

#include "client/cli/cli.h"
#include "client/cli/text.h"

json_t *lki_json_number(uint64_t value)
{
    /* jansson knows signed numbers alone. A token reaches 2^63 in the year 2038, and is a double
     * then rather than a negative number. */
    return value <= INT64_MAX ? json_integer((json_int_t)value) : json_real((double)value);
}

json_t *lki_json_known(uint64_t value)
{
    return value ? lki_json_number(value) : json_null();
}

static const char *state_text(uint32_t state)
{
    switch (state) {
    case LKI_ENTRY_HELD:
        return "held";
    case LKI_ENTRY_DRAINING:
        return "draining";
    case LKI_ENTRY_DAMAGED:
        return "damaged";
    default: /* nobody but waiters */
        return "free";
    }
}

static json_t *session_object(const struct lki_listing_entry *entry, const char *since_key)
{
    return json_pack("{s:i, s:I, s:s, s:s, s:s, s:o}", "pid", (int)entry->is.pid, "uid",
                     (json_int_t)entry->is.uid, "user", lki_text_user(entry->is.uid).text,
                     "command", entry->command, "mode", lki_text_mode(entry->is.mode), since_key,
                     lki_json_known(entry->is.since_ns));
}

json_t *lki_json_lock(const struct lki_listing_lock *lock)
{
    json_t *holders = json_array(), *waiters = json_array();
    const struct lki_listing_entry *first = lock->first;
    for (size_t i = 0; i < lock->count; i++) {
        const struct lki_listing_entry *entry = &first[i];
        if (i >= lock->holders) {
            json_array_append_new(waiters, session_object(entry, "waiting_ns"));
        } else if (entry->is.pid != 0) {
            json_t *holder = session_object(entry, "held_ns");
            json_object_set_new(holder, "to_exit", json_boolean(entry->is.flags & 1));
            json_array_append_new(holders, holder);
        }
    }
    return json_pack("{s:s, s:s, s:o, s:s, s:s, s:s, s:o, s:o, s:o}", "name", first->label,
                     "segment", first->name, "lock", lki_json_number(first->is.lock), "lock_name",
                     first->lock_name, "state", state_text(lock->holders ? first->is.state : 0),
                     "mode", lock->holders ? lki_text_mode(first->is.mode) : "-", "token",
                     lki_json_known(first->is.token), "holders", holders, "waiters", waiters);
}

json_t *lki_json_locks(const struct lki_listing *listing)
{
    json_t *locks = json_array();
    size_t position = 0;
    struct lki_listing_lock lock;
    while ((lock = lki_listing_next_lock(listing, &position)).count > 0)
        json_array_append_new(locks, lki_json_lock(&lock));
    return locks;
}

int lki_cli_print_json(json_t *document)
{
    if (!document) {
        lki_cli_complain("cannot write JSON: out of memory, or a name that is not UTF-8");
        return LKI_EXIT_OS;
    }
    int r = json_dumpf(document, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(document);
    return lki_cli_finish(r < 0 ? LKI_EXIT_OS : LKI_EXIT_OK);
}
