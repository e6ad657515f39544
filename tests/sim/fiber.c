/* SPDX-License-Identifier: MIT */
#include "tests/sim/fiber.h"

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "common/assert.h"

/* gcc says it with a macro, clang with a feature. */
#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif

#ifdef HAS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define __sanitizer_start_switch_fiber(save, bottom, bytes) ((void)(save), (void)(bottom))
#define __sanitizer_finish_switch_fiber(save, bottom, bytes) ((void)(save))
#define __asan_unpoison_memory_region(base, bytes) ((void)(base))
#endif

/* Texts of the library take 3 KiB, a sanitizer about three times that; the rest is room. */
#define STACK_BYTES ((size_t)256 * 1024)
#define GUARD_BYTES ((size_t)4096)

enum fiber_state {
    FIBER_FRESH, /* begins with the next resume */
    FIBER_YIELDED,
    FIBER_ENDED,
};

struct fiber {
    enum fiber_state state;
    char *stack; /* above a page that traps */
    fiber_fn run;
    void *user;
    jmp_buf place;
    void *fake_stack;
};

static struct {
    struct fiber *current;
    jmp_buf place;
    ucontext_t entry; /* for swapping in fresh fibers */
    void *fake_stack;
    const void *stack; /* as the sanitizer knows it */
    size_t stack_bytes;
} scheduler;

struct fiber *fiber_new(void)
{
    struct fiber *fiber = calloc(1, sizeof(*fiber));
    if (!fiber)
        return NULL;
    char *memory = mmap(NULL, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) {
        free(fiber);
        return NULL;
    }
    (void)mprotect(memory, GUARD_BYTES, PROT_NONE);
    fiber->stack = memory + GUARD_BYTES;
    fiber->state = FIBER_ENDED;
    return fiber;
}

struct fiber *fiber_free(struct fiber *fiber)
{
    if (fiber) {
        __asan_unpoison_memory_region(fiber->stack, STACK_BYTES);
        (void)munmap(fiber->stack - GUARD_BYTES, STACK_BYTES + GUARD_BYTES);
    }
    free(fiber);
    return NULL;
}

void fiber_start(struct fiber *fiber, fiber_fn run, void *user)
{
    /* Frames that were left in the middle have left their red zones behind. */
    __asan_unpoison_memory_region(fiber->stack, STACK_BYTES);
    fiber->state = FIBER_FRESH;
    fiber->run = run;
    fiber->user = user;
    fiber->fake_stack = NULL;
}

static void enter_fiber(void)
{
    struct fiber *self = scheduler.current;
    __sanitizer_finish_switch_fiber(NULL, &scheduler.stack, &scheduler.stack_bytes);
    self->run(self->user);
    self->state = FIBER_ENDED;
    __sanitizer_start_switch_fiber(NULL, scheduler.stack, scheduler.stack_bytes);
    _longjmp(scheduler.place, 1);
}

/* The first entry goes through a context, all other switches through jumps: a swap of contexts is
 * two system calls. */
static void switch_to(struct fiber *fiber)
{
    if (_setjmp(scheduler.place) != 0)
        return;
    if (fiber->state == FIBER_YIELDED)
        _longjmp(fiber->place, 1);
    fiber->state = FIBER_YIELDED;
    getcontext(&scheduler.entry);
    scheduler.entry.uc_stack.ss_sp = fiber->stack;
    scheduler.entry.uc_stack.ss_size = STACK_BYTES;
    scheduler.entry.uc_link = NULL;
    makecontext(&scheduler.entry, enter_fiber, 0);
    setcontext(&scheduler.entry);
}

bool fiber_resume(struct fiber *fiber)
{
    LKI_ASSERT(!scheduler.current && fiber->state != FIBER_ENDED);
    scheduler.current = fiber;
    __sanitizer_start_switch_fiber(&scheduler.fake_stack, fiber->stack, STACK_BYTES);
    switch_to(fiber);
    __sanitizer_finish_switch_fiber(scheduler.fake_stack, NULL, NULL);
    scheduler.current = NULL;
    return fiber->state == FIBER_YIELDED;
}

void fiber_yield(void)
{
    struct fiber *self = scheduler.current;
    __sanitizer_start_switch_fiber(&self->fake_stack, scheduler.stack, scheduler.stack_bytes);
    if (_setjmp(self->place) == 0)
        _longjmp(scheduler.place, 1);
    __sanitizer_finish_switch_fiber(self->fake_stack, &scheduler.stack, &scheduler.stack_bytes);
}
