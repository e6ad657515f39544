/* SPDX-License-Identifier: MIT */
/* Child processes, events between them, and a way to fail that leaves nothing behind. For Criterion
 * tests and plain programs alike: whatever goes wrong here aborts, in a child as in the parent. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/clock.h"

/* Aborts with a message, after the broker and the directory of this process are gone. */
#define test_check(condition, ...)                                                                 \
    do {                                                                                           \
        if (!(condition))                                                                          \
            test_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                                \
    } while (0)

void test_fail(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((noreturn, cold, format(printf, 4, 5)));

/* The number that an argument of a program is; aborts if it is none. */
uint64_t test_number(const char *text);

/* Called once by test_fail() in the process that registered it, not in its children. */
void test_on_fail(void (*cleanup)(void));

/* Runs body in a child that dies with its parent; its result is the exit code. Under LeakSanitizer
 * what body has allocated and lost is a report, and a result of 0 becomes 23. */
pid_t test_spawn(int (*body)(void *arg), void *arg);

/* In the child: it will end without a word and with what it has, which is what is tested. */
void test_leave_as_it_is(void);

/* Waits at most 30 s for the end of a child. Returns the status of waitpid(2). */
int test_reap(pid_t pid);

/* Reaps and checks that it exited with 0. */
void test_reap_success(pid_t pid);

/* SIGKILL, and reaps. */
void test_kill(pid_t pid);

/* Stops a process, and returns when the kernel has stopped it. */
void test_stop(pid_t pid);
void test_continue(pid_t pid);

/* Memory shared with children, zeroed. Never freed: it ends with the process. */
void *test_shared(size_t bytes);

/* An event that counts: a descriptor that children inherit. */
int test_event(void);
void test_event_post(int event);
void test_event_wait(int event); /* aborts after 30 s */
/* False: nothing came in time. */
bool test_event_wait_for(int event, uint64_t timeout_ns);

/* Sleeps until somebody kills this process. */
int test_stay(void) __attribute__((noreturn));

void test_sleep_ns(uint64_t ns);

/* A small generator, so that a seed gives the same run everywhere. */
struct test_random {
    uint64_t state;
};
uint64_t test_random_next(struct test_random *random);
static inline uint64_t test_random_below(struct test_random *random, uint64_t bound)
{
    return test_random_next(random) % bound;
}
