/* SPDX-License-Identifier: MIT */
#include "broker/core/doubt.h"

#include "broker/core/brokered_wait.h"
#include "common/clock.h"
#include "common/cleanup.h"

/* A socket holds no more records, see protocol.md. So when so many have been read, what was there before the
 * first of them has been: a session that is never quiet, since it has much under way, is heard out all the same. */
#define PASS_RECORDS 1024u

#define FIRST_PAUSE_NS LKI_NS_PER_MS
#define DOUBLINGS_MAX 16u

static struct lkd_session *holder_of(const struct lkd_wait_edge *edge)
{
    return LKI_CONTAINER_OF(edge->to, struct lkd_session, wait_node);
}

static uint64_t mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return sum ^ sum >> 32;
}

/* Two rings with the same holds in the way of the same waits have the same sum, and others have not but by a
 * chance of 2^-64. */
static uint64_t sum_of(const struct lkd_wait_graph *graph)
{
    uint64_t sum = 0;
    const struct lkd_wait_edge *edge = NULL;
    while ((edge = lkd_wait_graph_edge(graph, edge))) {
        sum = mix(sum, edge->waiter->segment->number);
        sum = mix(sum, edge->facts.wait);
        sum = mix(sum, edge->facts.sequence);
        sum = mix(sum, (uint64_t)edge->facts.waiter_id << 32 | edge->facts.holder_id);
        sum = mix(sum, edge->holder->record->request); /* shared holds have no sequence of theirs */
    }
    return sum;
}

/* Whether the hold in the way may have been released without our knowing. */
static bool may_be_over(const struct lkd_core *core, const struct lkd_wait_edge *edge,
                        uint64_t doubt)
{
    const struct lkd_session *session = holder_of(edge);
    return lkd_wait_may_release_one_way(edge->holder) && session->heard_doubt < doubt &&
           core->config.may_have_released &&
           core->config.may_have_released(core->config.driver, session->number);
}

bool lkd_doubt_is_settled(struct lkd_core *core, struct lkd_attachment *attachment)
{
    const struct lkd_wait_graph *graph = &core->wait_graph;
    uint64_t ring = sum_of(graph);
    if (attachment->doubt.number == 0 || attachment->doubt.ring != ring) {
        attachment->doubt.number = ++core->last_doubt;
        attachment->doubt.ring = ring;
    }
    const struct lkd_wait_edge *edge = NULL;
    while ((edge = lkd_wait_graph_edge(graph, edge)))
        if (may_be_over(core, edge, attachment->doubt.number))
            return false;
    lkd_doubt_drop(attachment);
    return true;
}

void lkd_doubt_drop(struct lkd_attachment *attachment)
{
    attachment->doubt.number = 0;
}

uint64_t lkd_doubt_pause_ns(struct lkd_attachment *attachment, uint64_t longest_ns)
{
    uint64_t pause_ns = FIRST_PAUSE_NS << attachment->doubt.pauses;
    if (attachment->doubt.pauses < DOUBLINGS_MAX)
        attachment->doubt.pauses++;
    return pause_ns < longest_ns ? pause_ns : longest_ns;
}

void lkd_doubt_note_record(struct lkd_core *core, struct lkd_session *session)
{
    if (++session->pass_records < PASS_RECORDS)
        return;
    session->heard_doubt = session->pass_doubt;
    session->pass_doubt = core->last_doubt;
    session->pass_records = 0;
}

void lkd_doubt_note_quiet(struct lkd_core *core, struct lkd_session *session)
{
    session->heard_doubt = core->last_doubt;
    session->pass_doubt = core->last_doubt;
    session->pass_records = 0;
}
