/* SPDX-License-Identifier: MIT */
/* What a forked child has of its parent's session: nothing that could harm it. */
#include "fixture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/clock.h"

#define FORK_TEST(name) Test(fork, name, .init = fixture_start, .fini = fixture_stop)

static struct lk_session *session;
static struct lk_segment *segment;
static struct lk_lock *lock;
static void *map;

static void open_all(uint32_t flags)
{
    session = open_session();
    segment = open_segment(session, "s", 8192, LK_CREATE | flags);
    lock = open_lock(segment, 0);
    map = map_segment(segment, 0, 0);
    strcpy(map, "shared");
}

/* Whether the page at address is mapped in this process. */
static bool is_mapped(void *address)
{
    unsigned char resident;
    return mincore(address, 4096, &resident) == 0;
}

/* Whether any map of this process has the word in its name. */
static bool has_map(const char *word)
{
    char line[512];
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof(line), maps))
        found = found || strstr(line, word);
    if (maps)
        (void)fclose(maps);
    return found;
}

static int use_inherited(struct child *side, void *user)
{
    struct lk_segment *none = NULL;
    struct lk_lock *no_lock = NULL;
    void *address = NULL;
    uint64_t version;
    (void)user;
    (void)side;
    CHILD_CHECK(lk_lock_release(lock) == -ESTALE);
    CHILD_CHECK(lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) == -ESTALE);
    CHILD_CHECK(lk_lock_acquire(lock, LK_SHARED, 0) == -ESTALE);
    CHILD_CHECK(lk_read_begin(lock, &version) == -ESTALE);
    CHILD_CHECK(!lk_read_valid(lock, 0));
    CHILD_CHECK(lk_lock_mark_consistent(lock) == -ESTALE);
    CHILD_CHECK(lk_segment_open(session, "s", NULL, &none) == -ESTALE);
    CHILD_CHECK(lk_segment_map(segment, 0, 0, &address) == -ESTALE);
    CHILD_CHECK(lk_lock_at(segment, 0, &no_lock) == -ESTALE);
    CHILD_CHECK(lk_session_dispatch(session) == -ESTALE);
    CHILD_CHECK(lk_session_fd(session) == -ESTALE);
    CHILD_CHECK(strstr(lk_last_error(), "fork()") != NULL);
    CHILD_CHECK(!is_mapped(map));
    CHILD_CHECK(!has_map("lockkeeper-area")); /* its words are the parent's */
    lk_session_close(session);                /* without a word to the broker */
    return 0;
}

FORK_TEST(inherited_handles_are_stale_and_maps_are_absent)
{
    open_all(0);
    cr_assert(has_map("lockkeeper-area"));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    struct child child = child_start(use_inherited, NULL);
    child_join(&child);
    cr_expect(eq(int, lk_lock_release(lock), 0), "inside the critical section still");
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_expect(eq(str, (char *)map, "shared"));
    lk_session_close(session);
}

static int read_inherited(struct child *side, void *user)
{
    (void)side;
    (void)user;
    CHILD_CHECK(is_mapped(map));
    CHILD_CHECK(strcmp(map, "shared") == 0);
    strcpy(map, "from the child");
    lk_session_close(session);
    CHILD_CHECK(is_mapped(map)); /* what was asked to be inherited is not taken away */
    return 0;
}

FORK_TEST(data_that_is_to_be_inherited_is)
{
    open_all(LK_INHERIT);
    struct child child = child_start(read_inherited, NULL);
    child_join(&child);
    cr_expect(eq(str, (char *)map, "from the child"));
    lk_session_close(session);
}

static int open_own(struct child *side, void *user)
{
    struct lk_session *own = NULL;
    struct lk_segment *own_segment = NULL;
    struct lk_lock *own_lock = NULL;
    (void)side;
    (void)user;
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &own) == 0);
    CHILD_CHECK(lk_segment_open(own, "s", NULL, &own_segment) == 0);
    CHILD_CHECK(lk_lock_at(own_segment, 0, &own_lock) == 0);
    CHILD_CHECK(lk_lock_acquire(own_lock, LK_EXCLUSIVE, 0) == -EBUSY);
    lk_session_close(own);
    lk_session_close(session);
    return 0;
}

FORK_TEST(child_opens_its_own_session)
{
    open_all(0);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    struct child child = child_start(open_own, NULL);
    child_join(&child);
    cr_expect(eq(int, lk_lock_release(lock), 0));
    lk_session_close(session);
}

static int find_stale(struct child *side, void *user)
{
    struct lk_session *own = user;
    struct lk_segment *none = NULL;
    (void)side;
    CHILD_CHECK(lk_segment_open(own, "s", NULL, &none) == -ESTALE);
    lk_session_close(own);
    return 0;
}

/* With the memory of a session that its parent has closed. */
static int open_own_again(struct child *side, void *user)
{
    struct lk_session *own = NULL;
    CHILD_CHECK(open_own(side, user) == 0);
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &own) == 0);
    struct child grandchild = child_start(find_stale, own);
    child_join(&grandchild);
    lk_session_close(own);
    return 0;
}

FORK_TEST(child_opens_with_the_memory_of_a_closed_session)
{
    struct lk_session *before = open_session();
    open_all(0);
    lk_session_close(before);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    struct child child = child_start(open_own_again, NULL);
    child_join(&child);
    cr_expect(eq(int, lk_lock_release(lock), 0));
    lk_session_close(session);
}

static int outlive(struct child *side, void *user)
{
    (void)user;
    child_tell(side);
    child_await(side); /* holds the inherited socket all the while */
    return 0;
}

/* The parent: opens, takes the lock, forks a child that outlives it, and is killed. */
static int fork_and_die(struct child *side, void *user)
{
    pid_t *child_pid = user;
    struct lk_session *own = NULL;
    struct lk_segment *own_segment = NULL;
    struct lk_lock *own_lock = NULL;
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &own) == 0);
    CHILD_CHECK(lk_segment_open(own, "s", NULL, &own_segment) == 0);
    CHILD_CHECK(lk_lock_at(own_segment, 0, &own_lock) == 0);
    CHILD_CHECK(lk_lock_acquire(own_lock, LK_EXCLUSIVE, 0) == LK_ACQUIRED);
    *child_pid = fork();
    if (*child_pid == 0)
        _exit(outlive(side, NULL));
    child_await(side); /* never told: killed */
    return 1;
}

FORK_TEST(child_that_outlives_the_holder_does_not_keep_the_lock)
{
    open_all(0);
    pid_t *child_pid = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct child parent = child_start(fork_and_die, child_pid);
    child_await(&parent); /* from the grandchild */
    int to_grandchild = dup(parent.to_fd);
    child_kill(&parent);
    cr_expect(
        eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED_OWNER_DIED),
        "%s", lk_last_error());
    close(to_grandchild); /* its line ends, and so does it */
    (void)munmap(child_pid, 4096);
    lk_session_close(session);
}
