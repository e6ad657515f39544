/* SPDX-License-Identifier: MIT */
#include "tests/faults/list.h"

#include <errno.h>
#include <stdlib.h>

#include "tests/support/process.h"

static void add(struct faults_list *list, const struct stage_fault *fault)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity * 2 + 1024;
        list->faults = realloc(list->faults, list->capacity * sizeof(*list->faults));
        test_check(list->faults != NULL, "memory");
    }
    list->faults[list->count++] = *fault;
}

/* What a successor sends nobody has asked for. Want of memory is its own; that the connection has
 * ended is what the client concerned has to be told, also if it is the innocent one. */
static bool is_of_peer(const struct stage_fault *fault)
{
    return fault->takeover && fault->call == FAULTS_SEND && fault->error != EAGAIN &&
           fault->error != EINTR && fault->error != ENOBUFS && fault->error != ENOMEM;
}

void faults_list_add(struct faults_list *list, const struct stage_fault *fault,
                     enum faults_length length)
{
    struct stage_fault added = *fault;
    const int *errors = faults_calls[fault->call].errors;
    for (size_t i = 0; i < FAULTS_ERRORS_MAX && errors[i] != 0; i++) {
        added.error = errors[i];
        added.times = 1;
        if (is_of_peer(&added))
            continue;
        add(list, &added);
        added.times = UINT32_MAX;
        /* Who cannot receive for long loses what the keeper opened for it: see the findings. */
        if (length == FAULTS_ONCE_AND_LASTING && faults_can_last(errors[i]) &&
            fault->call != FAULTS_RECEIVE)
            add(list, &added);
    }
}

void faults_list_shuffle(struct faults_list *list, uint64_t seed)
{
    struct test_random random = {.state = seed};
    for (size_t i = list->count; i > 1; i--) {
        size_t other = test_random_below(&random, i);
        struct stage_fault swapped = list->faults[i - 1];
        list->faults[i - 1] = list->faults[other];
        list->faults[other] = swapped;
    }
}
