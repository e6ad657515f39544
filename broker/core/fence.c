/* SPDX-License-Identifier: MIT */
#include "broker/core/fence.h"

#include <string.h>

#include "broker/core/attachment.h"
#include "common/assert.h"

static struct lki_death death_of(const struct lkd_attachment *holder, uint64_t now_ns)
{
    const struct lkd_session *session = holder->session;
    struct lki_death death = {
        .pid = session->pid,
        .uid = session->uid,
        .cause = LKI_CAUSE_FENCED,
        .when_ns = now_ns,
    };
    memcpy(death.command, session->command, sizeof(death.command));
    return death;
}

static struct lkd_fenced *find(struct lkd_attachment *main, uint32_t attachment, uint32_t lock)
{
    for (uint32_t i = 0; i < LKD_FENCED_MAX; i++)
        if (main->fenced[i].attachment == attachment && main->fenced[i].lock == lock)
            return &main->fenced[i];
    return NULL;
}

static void remember(struct lkd_attachment *main, uint32_t attachment, uint32_t lock)
{
    memmove(&main->fenced[1], &main->fenced[0], sizeof(main->fenced) - sizeof(main->fenced[0]));
    main->fenced[0] = (struct lkd_fenced){.attachment = attachment, .lock = lock};
}

void lkd_fence_forget(struct lkd_attachment *main, uint32_t attachment, uint32_t lock)
{
    struct lkd_fenced *fenced = find(main, attachment, lock);
    if (fenced)
        *fenced = (struct lkd_fenced){0};
}

void lkd_fence_off(struct lkd_core *core, struct lkd_attachment *holder, uint32_t lock,
                   uint64_t now_ns)
{
    struct lkd_segment *segment = holder->segment;
    struct lki_death death = death_of(holder, now_ns);

    LKI_ASSERT(holder->brokered && holder->state == LKD_ATTACHMENT_LIVE);
    remember(holder->main, holder->id, lock);
    /* A hold for data is damaged; a shared one, or one to exit, is released for its owner. */
    if (!lki_repair_hold(&segment->area, holder->id, lock, &death, lkd_attachment_wake, segment))
        (void)lki_lock_release(&holder->party, lock);
    if (holder->granted && holder->granted_lock == lock)
        holder->granted = false;
    if (holder->main != holder)
        lkd_attachment_close_extra(core, holder, now_ns);
}

bool lkd_fence_refuse(struct lkd_core *core, struct lkd_attachment *main, uint32_t attachment,
                      uint32_t lock, const struct lki_message *message)
{
    struct lkd_fenced *fenced = find(main, attachment, lock);

    if (!fenced)
        return false;
    if (message->type == LKI_REQUEST_RELEASE)
        *fenced = (struct lkd_fenced){0};
    lkd_refuse(core, main->session, message->id, LKI_STATUS_STALE,
               "the lease of lock %u was over, and the hold was taken away: what was written since "
               "then may have damaged its successor's data; lock it again before you write",
               lock);
    return true;
}
