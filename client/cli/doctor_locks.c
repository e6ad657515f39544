/* SPDX-License-Identifier: MIT */
/* doctor: what the broker knows about its locks. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include "client/cli/cli.h"
#include "client/cli/doctor.h"
#include "client/cli/listing.h"
#include "client/cli/text.h"
#include "client/cli/wait_graph.h"
#include "common/cleanup.h"

#define NAMED_MAX 8u /* of one kind; of the rest only how many */

static void look_at_damage(struct lki_doctor *doctor, const struct lki_listing *listing)
{
    size_t found = 0;
    for (size_t i = 0; i < listing->count; i++) {
        const struct lki_listing_entry *entry = &listing->entries[i];
        if (entry->is.state != LKI_ENTRY_DAMAGED || ++found > NAMED_MAX)
            continue;
        char advice[1024];
        snprintf(advice, sizeof(advice),
                 "the next holder is told: it checks the data and calls "
                 "lk_lock_mark_consistent(); see: lockkeeper why '%s'",
                 entry->label);
        lki_doctor_tell(doctor, LKI_HEALTH_WARNING, "damaged", advice,
                        "the last owner of '%s' died while it changed the data, and nobody has "
                        "repaired that",
                        entry->label);
    }
    if (found > NAMED_MAX)
        lki_doctor_tell(doctor, LKI_HEALTH_WARNING, "damaged", "see: lockkeeper ls",
                        "%zu more locks are damaged", found - NAMED_MAX);
    if (found == 0)
        lki_doctor_tell(doctor, LKI_HEALTH_OK, "damaged", NULL, "no lock is");
}

/* The one that has waited longest. */
static uint64_t longest_wait_ns(const struct lki_listing_lock *lock)
{
    uint64_t longest_ns = 0;
    for (size_t i = 0; i < lock->count; i++) {
        const struct lki_list_entry *is = &lock->first[i].is;
        bool waits = is->state == LKI_ENTRY_WAITING || is->state == LKI_ENTRY_DRAINING;
        if (waits && is->since_ns > longest_ns)
            longest_ns = is->since_ns;
    }
    return longest_ns;
}

static void tell_long_wait(struct lki_doctor *doctor, const struct lki_listing_lock *lock,
                           uint64_t wait_ns)
{
    const struct lki_listing_entry *first = lock->first;
    char holder[128] = "nobody that is known", advice[1024];
    if (lock->holders > 0)
        snprintf(holder, sizeof(holder), "%s[%" PRId32 "]", *first->command ? first->command : "?",
                 first->is.pid);
    snprintf(advice, sizeof(advice), "see what its holder does: lockkeeper why '%s'", first->label);
    lki_doctor_tell(doctor, LKI_HEALTH_WARNING, "long-wait", advice,
                    "somebody has waited for '%s' for %s; it is held by %s", first->label,
                    lki_text_duration(wait_ns).text, holder);
}

static void look_at_waits(struct lki_doctor *doctor, const struct lki_listing *listing)
{
    size_t position = 0, found = 0;
    struct lki_listing_lock lock;
    while ((lock = lki_listing_next_lock(listing, &position)).count > 0) {
        uint64_t wait_ns = longest_wait_ns(&lock);
        if (wait_ns > doctor->patience_ns && ++found <= NAMED_MAX)
            tell_long_wait(doctor, &lock, wait_ns);
    }
    if (found > NAMED_MAX)
        lki_doctor_tell(doctor, LKI_HEALTH_WARNING, "long-wait", "see: lockkeeper ls",
                        "%zu more locks are waited for as long", found - NAMED_MAX);
    if (found == 0)
        lki_doctor_tell(doctor, LKI_HEALTH_OK, "long-wait", NULL, "nobody waits for longer than %s",
                        lki_text_duration(doctor->patience_ns).text);
}

/* Looks twice when there seems to be a ring, as a listing is no snapshot. Returns 0 or -errno. */
static int find_ring(struct lk_session *session, char *out_members, size_t bytes, bool *out_ring)
{
    LKI_CLEANUP(lki_listing_deinit) struct lki_listing first = {0}, second = {0};
    LKI_CLEANUP(lki_graph_deinit) struct lki_graph before = {0}, graph = {0};
    int r = lki_listing_read(session, LKI_LIST_GRAPH, NULL, &first);
    if (r == 0)
        r = lki_graph_build(&first, NULL, &before);
    if (r == 0 && before.has_ring)
        r = lki_listing_read(session, LKI_LIST_GRAPH, NULL, &second);
    if (r == 0 && before.has_ring)
        r = lki_graph_build(&second, &before, &graph);
    if (r < 0)
        return r;
    *out_ring = graph.has_ring;
    size_t used = 0;
    out_members[0] = '\0';
    for (size_t i = 0; i < graph.node_count && used < bytes; i++) {
        const struct lki_graph_node *node = &graph.nodes[i];
        if (!node->in_ring)
            continue;
        const char *divider = used ? ", " : "";
        if (node->entry)
            used += (size_t)snprintf(out_members + used, bytes - used, "%s%s[%" PRId32 "]", divider,
                                     node->entry->command, node->entry->is.pid);
        else
            used += (size_t)snprintf(out_members + used, bytes - used, "%ssession %" PRIu64,
                                     divider, node->session);
    }
    return 0;
}

static int look_at_rings(struct lki_doctor *doctor, struct lk_session *session)
{
    char members[512];
    bool ring = false;
    int r = find_ring(session, members, sizeof(members), &ring);
    if (r < 0)
        return r;
    if (ring)
        lki_doctor_tell(doctor, LKI_HEALTH_PROBLEM, "ring",
                        "end one of them, or none goes on; see: lockkeeper graph",
                        "sessions wait for each other: %s", members);
    else
        lki_doctor_tell(doctor, LKI_HEALTH_OK, "ring", NULL, "no sessions wait for each other");
    return 0;
}

void lki_doctor_look_at_locks(struct lki_doctor *doctor)
{
    if (!doctor->used->answers)
        return;
    struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    LKI_CLEANUP(lki_cli_close_session) struct lk_session *session = NULL;
    LKI_CLEANUP(lki_listing_deinit) struct lki_listing listing = {0};
    int r = lk_session_open(doctor->used->place->path, &options, &session);
    if (r == 0)
        r = lki_listing_read(session, LKI_LIST_LOCKS, NULL, &listing);
    if (r == 0) {
        look_at_damage(doctor, &listing);
        look_at_waits(doctor, &listing);
        r = look_at_rings(doctor, session);
    }
    if (r < 0)
        lki_doctor_tell(doctor, LKI_HEALTH_PROBLEM, "locks", "try again", "%s", lk_last_error());
}
