/* SPDX-License-Identifier: MIT */
#include "deed.h"

#include <stdio.h>

static struct deed list[400];
static size_t list_count;

static void add(enum deed_kind kind, const struct call *call)
{
    static const char *const words[] = {"serves", "cleans up before", "begins before"};
    static const char *const words_begun[] = {"", "cleans up in", "begins in"};
    test_check(list_count < sizeof(list) / sizeof(list[0]), "the list is full");
    struct deed *deed = &list[list_count++];
    *deed = (struct deed){.kind = kind, .call = call};
    deed->begun = kind != DEED_CALL && call_is_upgrade(call);
    snprintf(deed->title, sizeof(deed->title), "%s %s",
             deed->begun ? words_begun[kind] : words[kind], call->title);
    deed->is_slow = deed->begun;
    if (call->parts[0].how == CROWD_HOLDS && call->parts[0].when == CROWD_AT_WAIT)
        deed->is_slow = true;
}

/* Whether a worker has any part in it. */
static bool is_served(const struct call *call)
{
    bool brokered = call->kind == CROWD_STRICT || call->refused || call->async;
    for (unsigned i = 0; i < CROWD_ACTORS; i++)
        brokered = brokered || call->parts[i].how == CROWD_WAITS_ASYNC;
    switch (call->what) {
    case CALL_MAP:
        return false;
    case CALL_ACQUIRE:
    case CALL_TRY:
    case CALL_TIMED:
    case CALL_RELEASE:
    case CALL_DECLARE:
    case CALL_UPGRADE:
    case CALL_TRY_UPGRADE:
    case CALL_TIMED_UPGRADE:
    case CALL_TO_UPDATE:
    case CALL_TO_SHARED:
        return brokered;
    case CALL_CONNECT:
    case CALL_OPEN:
    case CALL_CREATE:
    case CALL_OFFER:
    case CALL_NAME:
    case CALL_HOLDER:
    case CALL_ASYNC:
    case CALL_CANCEL:
    case CALL_DISPATCH:
    case CALL_CLOSE_SEGMENT:
    case CALL_CLOSE_SESSION:
        break;
    }
    return true;
}

/* One for each state that a victim may be in before its call. */
static bool stands_for_its_state(const struct call *call)
{
    return call->what == CALL_RELEASE || call->what == CALL_CANCEL || call->what == CALL_OPEN ||
           call->what == CALL_TIMED_UPGRADE;
}

static void add_all(const struct call *all, size_t count, unsigned age)
{
    for (size_t i = 0; i < count; i++)
        if (all[i].age == age && is_served(&all[i]))
            add(DEED_CALL, &all[i]);
    for (size_t i = 0; i < count; i++) {
        if (all[i].age == age && stands_for_its_state(&all[i])) {
            add(DEED_DEATH, &all[i]);
            add(DEED_TAKEOVER, &all[i]);
        }
    }
}

static void make_list(void)
{
    size_t count;
    const struct call *all = calls(&count);
    for (unsigned age = 0; age < CALL_AGES;
         age++) /* later ones behind them: deeds keep their numbers */
        add_all(all, count, age);
}

const struct deed *deeds(size_t *out_count)
{
    if (list_count == 0)
        make_list();
    *out_count = list_count;
    return list;
}
