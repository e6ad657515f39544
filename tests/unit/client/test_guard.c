/* SPDX-License-Identifier: MIT */
#include "client/guard.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define PAGES 4

static size_t page_bytes;
static int file_fd = -1;
static unsigned char *map;
static _Atomic uint32_t mark_here, mark_everybody;

static void setup(void)
{
    page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    char path[] = "/tmp/lockkeeper-guard-XXXXXX";
    file_fd = mkstemp(path);
    cr_assert(file_fd >= 0 && unlink(path) == 0);
    cr_assert(ftruncate(file_fd, (off_t)(PAGES * page_bytes)) == 0);
    map = mmap(NULL, PAGES * page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_fd, 0);
    cr_assert(map != MAP_FAILED);
}

static void teardown(void)
{
    (void)munmap(map, PAGES * page_bytes);
    (void)close(file_fd);
}

static void guard_map(void)
{
    const struct lki_guard_range range = {.base = map,
                                          .bytes = PAGES * page_bytes,
                                          .writable = true,
                                          .mark_here = &mark_here,
                                          .mark_everybody = &mark_everybody};
    cr_assert(eq(int, lki_guard_add(&range), 0));
}

static bool our_handler_is_gone(void)
{
    struct sigaction current;
    return sigaction(SIGBUS, NULL, &current) == 0 && current.sa_handler == SIG_DFL;
}

Test(guard, hole_reads_as_zeros_and_is_marked, .init = setup, .fini = teardown)
{
    signal(SIGBUS, SIG_DFL); /* Criterion and the sanitizer have theirs */
    map[0] = 7;
    map[3 * page_bytes] = 9;
    guard_map();
    cr_assert(eq(int, ftruncate(file_fd, (off_t)page_bytes), 0));

    cr_assert(eq(int, map[3 * page_bytes + 5], 0));
    cr_assert(eq(u32, mark_here, 1));
    cr_assert(eq(u32, mark_everybody, 1));
    map[2 * page_bytes] = 1; /* writing into the hole goes nowhere, and does not kill */
    cr_assert(eq(int, map[0], 7), "what is left of the file is untouched");

    lki_guard_remove(map);
    cr_assert(our_handler_is_gone());
}

/* The child has the table of its parent, and here its map as well: what it does there is its own. */
Test(guard, a_forked_child_is_not_covered, .init = setup, .fini = teardown)
{
    signal(SIGBUS, SIG_DFL);
    guard_map();
    cr_assert(eq(int, ftruncate(file_fd, (off_t)page_bytes), 0));
    pid_t pid = fork();
    if (pid == 0)
        _exit(((volatile unsigned char *)map)[3 * page_bytes]);
    int status;
    cr_assert(eq(int, waitpid(pid, &status, 0), pid));
    bool by_signal = WIFSIGNALED(status);
    cr_assert(by_signal);
    cr_expect(eq(int, WTERMSIG(status), SIGBUS));
    lki_guard_remove(map);
}

static sigjmp_buf back;

static void jump_back(int signal_number)
{
    (void)signal_number;
    siglongjmp(back, 1);
}

Test(guard, other_addresses_go_to_the_handler_before_ours, .init = setup, .fini = teardown)
{
    unsigned char *other =
        mmap(NULL, PAGES * page_bytes, PROT_READ, MAP_SHARED, file_fd, 0); /* not guarded */
    cr_assert(other != MAP_FAILED);
    signal(SIGBUS, jump_back);
    guard_map();
    cr_assert(eq(int, ftruncate(file_fd, 0), 0));

    bool jumped = sigsetjmp(back, 1) != 0;
    if (!jumped)
        (void)*(volatile unsigned char *)other;
    cr_assert(jumped);
    cr_assert(eq(u32, mark_here, 0));
    lki_guard_remove(map);
}

Test(guard, fault_elsewhere_still_ends_the_process, .init = setup, .fini = teardown)
{
    pid_t child = fork();
    cr_assert(ne(int, child, -1));
    if (child == 0) {
        signal(SIGBUS, SIG_DFL);
        guard_map();
        unsigned char *other = mmap(NULL, PAGES * page_bytes, PROT_READ, MAP_SHARED, file_fd, 0);
        if (ftruncate(file_fd, 0) < 0)
            _exit(1);
        (void)*(volatile unsigned char *)other;
        _exit(2);
    }
    int status = 0;
    cr_assert(eq(int, waitpid(child, &status, 0), child));
    cr_assert(eq(int, WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGBUS));
}

Test(guard, ranges_beyond_the_table_are_refused)
{
    static char bytes[LKI_GUARD_RANGES_MAX + 1];
    for (size_t i = 0; i <= LKI_GUARD_RANGES_MAX; i++) {
        const struct lki_guard_range range = {
            .base = &bytes[i], .bytes = 1, .mark_here = &mark_here};
        int expected = i < LKI_GUARD_RANGES_MAX ? 0 : -ENOSPC;
        cr_assert(eq(int, lki_guard_add(&range), expected));
    }
    lki_guard_remove(&bytes[3]);
    const struct lki_guard_range again = {.base = &bytes[3], .bytes = 1, .mark_here = &mark_here};
    cr_assert(eq(int, lki_guard_add(&again), 0));
}
