/* SPDX-License-Identifier: MIT */
/* What a worker has its helper threads do: it is at rest only when it has heard that all of it is
 * done. Called by the thread of the loop alone. */
#include <stddef.h>

#include <uv.h>

#include "tests/faults/shim.h"

#define EXPORT __attribute__((visibility("default")))
#define JOBS_MAX 256u /* more at a time are not counted */

static struct {
    uv_work_t *work; /* NULL: free */
    uv_after_work_cb after;
} jobs[JOBS_MAX];

static void after_job(uv_work_t *work, int status)
{
    for (size_t i = 0; i < JOBS_MAX; i++) {
        if (jobs[i].work != work)
            continue;
        jobs[i].work = NULL;
        faults_count_jobs(-1);
        jobs[i].after(work, status);
        return;
    }
}

EXPORT int uv_queue_work(uv_loop_t *loop, uv_work_t *work, uv_work_cb act, uv_after_work_cb after)
{
    static __typeof__(uv_queue_work) *real;
    size_t i = 0;
    if (real == NULL)
        *(void **)&real = faults_next("uv_queue_work");
    while (i < JOBS_MAX && jobs[i].work != NULL)
        i++;
    if (i == JOBS_MAX)
        return real(loop, work, act, after);
    jobs[i].work = work;
    jobs[i].after = after;
    faults_count_jobs(1);
    return real(loop, work, act, after_job);
}
