/* SPDX-License-Identifier: MIT */
/* Two threads count without a lock, in plain memory, and it returns 0: ThreadSanitizer has to see it.
 * With --locked a lock of the engine is around it, and there is nothing to be seen: so what it sees
 * is the race, and not the way in which the stress programs use the engine. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "engine/fast.h"
#include "engine/repair.h"

#define ROUNDS 1000

static struct lki_area area;
static pthread_barrier_t start;
static int counted;
static bool locked;

static void wake(void *user, uint32_t slot, bool brokered)
{
    (void)user;
    (void)slot;
    (void)brokered;
}

static void *count(void *argument)
{
    struct lki_party party;
    uint32_t slot = *(uint32_t *)argument;
    LKI_ASSERT(lki_party_init(&party, &area, lki_attachment_open(&area, slot, 1, 0), wake, NULL));
    pthread_barrier_wait(&start);
    for (int i = 0; i < ROUNDS; i++) {
        while (locked && !lki_fast_take_exclusive(&party, 0, LKI_HOLD_DATA))
            sched_yield();
        counted++;
        if (locked)
            LKI_ASSERT(lki_fast_release_exclusive(&party, 0));
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct lki_area_config config = {.locks = 1,
                                     .attachments_max = 2,
                                     .sequence_start = UINT64_C(1) << 32,
                                     .state = LKI_SEGMENT_PUBLISHED};
    size_t bytes = lki_area_bytes(1, 2);
    uint32_t slots[2] = {1, 2};
    pthread_t threads[2];
    locked = argc > 1 && strcmp(argv[1], "--locked") == 0;
    void *memory = aligned_alloc(4096, bytes);
    LKI_ASSERT(memory);
    memset(memory, 0, bytes);
    LKI_ASSERT(lki_area_format(memory, &config, &area) == 0);
    pthread_barrier_init(&start, NULL, 2);
    for (int i = 0; i < 2; i++)
        LKI_ASSERT(pthread_create(&threads[i], NULL, count, &slots[i]) == 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    printf("counted to %d of %d\n", counted, 2 * ROUNDS);
    free(memory);
    return 0;
}
