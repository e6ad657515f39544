/* SPDX-License-Identifier: MIT */
/* An intrusive, circular, doubly linked list. A node that is in no list links to itself; removing
 * it again does nothing. Not thread-safe. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/cleanup.h"

struct lki_list {
    struct lki_list *next;
    struct lki_list *previous;
};

static inline void lki_list_init(struct lki_list *node)
{
    node->next = node;
    node->previous = node;
}

static inline bool lki_list_is_empty(const struct lki_list *head)
{
    return head->next == head;
}

static inline void lki_list_append(struct lki_list *head, struct lki_list *node)
{
    node->previous = head->previous;
    node->next = head;
    head->previous->next = node;
    head->previous = node;
}

static inline void lki_list_remove(struct lki_list *node)
{
    node->previous->next = node->next;
    node->next->previous = node->previous;
    lki_list_init(node);
}

#define LKI_LIST_ENTRY(node, type, member) LKI_CONTAINER_OF(node, type, member)

/* Walks the nodes of a list; the current node may be removed or freed inside. */
#define LKI_LIST_FOREACH_SAFE(node, head)                                                          \
    for (struct lki_list *node = (head)->next, *lki_next_##node = node->next; node != (head);      \
         node = lki_next_##node, lki_next_##node = node->next)
