/* SPDX-License-Identifier: MIT */
/* misuse SOCKET: runs every case, one line each: name, name of the result, lk_last_error(). A case
 * that answers something else, or that costs anybody anything, is told on stderr, and the exit code
 * is 1. */
#include "misuse.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void misuse_broken(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, condition, lk_last_error());
    exit(2);
}

struct lk_session *misuse_session(const struct scene *scene)
{
    struct lk_session *session = NULL;
    NEED(lk_session_open(scene->socket_path, NULL, &session) == 0);
    return session;
}

struct lk_segment *misuse_segment(struct lk_session *session, const char *name, uint64_t size_bytes,
                                  uint32_t flags)
{
    const struct lk_segment_options options = {
        .size = sizeof(options), .size_bytes = size_bytes, .flags = flags};
    struct lk_segment *segment = NULL;
    NEED(lk_segment_open(session, name, &options, &segment) >= 0);
    return segment;
}

/* --- The scene, and what must not change in it --- */

struct state {
    int fds;
    uint64_t size_bytes;
    uint64_t tokens[2]; /* of THEIRS and OURS */
};

static int open_fds(void)
{
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    NEED(directory != NULL);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static unsigned char byte_at(uint64_t i)
{
    return (unsigned char)(i * 31 + 7);
}

static void set_up(struct scene *scene)
{
    const struct lk_segment_options options = {
        .size = sizeof(options),
        .size_bytes = DATA_BYTES,
        .size_max_bytes = DATA_BYTES_MAX,
        .locks = LOCKS,
        .flags = LK_CREATE_NEW,
    };
    scene->session = misuse_session(scene);
    scene->bystander = misuse_session(scene);
    NEED(lk_segment_open(scene->session, "scene", &options, &scene->segment) == LK_CREATED);
    scene->theirs = misuse_segment(scene->bystander, "scene", 0, 0);
    for (uint32_t i = 0; i < LOCKS; i++) {
        NEED(lk_lock_at(scene->segment, i, &scene->locks[i]) == 0);
        NEED(lk_lock_at(scene->theirs, i, &scene->their_locks[i]) == 0);
    }
    void *data = NULL;
    NEED(lk_segment_map(scene->segment, 0, 0, &data) == 0);
    scene->data = data;
    for (uint64_t i = 0; i < DATA_BYTES; i++)
        scene->data[i] = byte_at(i);
    NEED(lk_lock_acquire(scene->their_locks[THEIRS], LK_EXCLUSIVE, 0) == LK_ACQUIRED);
    NEED(lk_lock_acquire(scene->locks[OURS], LK_EXCLUSIVE, 0) == LK_ACQUIRED);
    NEED(lk_lock_acquire(scene->locks[READ], LK_SHARED, 0) == LK_ACQUIRED);
    NEED(lk_lock_acquire(scene->their_locks[READ], LK_SHARED, 0) == LK_ACQUIRED);

    struct lk_session *dead = misuse_session(scene);
    struct lk_lock *lock = NULL;
    NEED(lk_lock_at(misuse_segment(dead, "scene", 0, 0), DAMAGED, &lock) == 0);
    NEED(lk_lock_acquire(lock, LK_EXCLUSIVE, 0) == LK_ACQUIRED);
    lk_session_close(dead);
}

static struct state look(const struct scene *scene)
{
    return (struct state){
        .fds = open_fds(),
        .size_bytes = lk_segment_size(scene->segment),
        .tokens = {lk_lock_token(scene->locks[THEIRS]), lk_lock_token(scene->locks[OURS])},
    };
}

/* What a third one gets for this lock. A hold is given back. */
static int try_lock(struct lk_segment *segment, uint32_t index, enum lk_mode mode)
{
    struct lk_lock *lock = NULL;
    NEED(lk_lock_at(segment, index, &lock) == 0);
    int r = lk_lock_acquire(lock, mode, 0);
    if (r >= 0)
        NEED(lk_lock_release(lock) == 0);
    lk_lock_close(lock);
    return r;
}

static bool expect(bool condition, const char *name, const char *what)
{
    if (!condition)
        fprintf(stderr, "%s: lost: %s\n", name, what);
    return condition;
}

static bool nothing_lost(const struct scene *scene, const struct state *before, const char *name)
{
    struct state now = look(scene);
    bool ok = expect(now.fds == before->fds, name, "descriptors");
    ok &= expect(now.size_bytes == before->size_bytes, name, "the size");
    ok &= expect(memcmp(now.tokens, before->tokens, sizeof(now.tokens)) == 0, name, "a token");
    bool same = true;
    for (uint64_t i = 0; i < DATA_BYTES; i++)
        same &= scene->data[i] == byte_at(i);
    ok &= expect(same, name, "data");

    struct lk_session *third = misuse_session(scene);
    struct lk_segment *segment = misuse_segment(third, "scene", 0, 0);
    ok &= expect(try_lock(segment, THEIRS, LK_SHARED) == -EBUSY, name, "the bystander's hold");
    ok &= expect(try_lock(segment, OURS, LK_SHARED) == -EBUSY, name, "our hold");
    ok &= expect(try_lock(segment, READ, LK_EXCLUSIVE) == -EBUSY, name, "the shared holds");
    ok &= expect(try_lock(segment, READ, LK_SHARED) == 0, name, "room beside the readers");
    ok &= expect(try_lock(segment, DAMAGED, LK_EXCLUSIVE) == LK_ACQUIRED_OWNER_DIED, name,
                 "word of the owner that died");
    for (uint32_t i = FREE; i < LOCKS; i++)
        if (i != DAMAGED)
            ok &= expect(try_lock(segment, i, LK_EXCLUSIVE) == LK_ACQUIRED, name, "a free lock");
    lk_session_close(third);
    return ok;
}

/* --- The cases --- */

static const char *result_name(int result)
{
    const char *name = result < 0 ? strerrorname_np(-result) : NULL;
    static char text[32];
    (void)snprintf(text, sizeof(text), name ? "-%s" : "%.0s%d", name ? name : "", result);
    return text;
}

static bool run(const struct misuse *misuse, struct scene *scene)
{
    struct state before = look(scene);
    scene->text[0] = '\0';
    int r = misuse->run(scene);
    const char *text = scene->text[0] ? scene->text : lk_last_error();
    printf("%s\t%s\t%s\n", misuse->name, result_name(r), text);
    bool ok = r == misuse->expected;
    if (!ok) {
        fprintf(stderr, "%s: %s", misuse->name, result_name(r));
        fprintf(stderr, " instead of %s: %s\n", result_name(misuse->expected), text);
    }
    return nothing_lost(scene, &before, misuse->name) && ok;
}

static bool run_all(const struct misuse *table, struct scene *scene)
{
    bool ok = true;
    for (; table->name; table++)
        ok &= run(table, scene);
    return ok;
}

int main(int argc, char **argv)
{
    struct scene scene = {.socket_path = argc == 3 ? argv[1] : NULL, .directory = argv[2]};
    if (argc != 3)
        return 2;
    int fds = open_fds();
    set_up(&scene);
    bool ok = run_all(misuse_of_sessions, &scene);
    ok &= run_all(misuse_of_segments, &scene);
    ok &= run_all(misuse_of_maps, &scene);
    ok &= run_all(misuse_of_locks, &scene);
    ok &= expect(lk_lock_release(scene.locks[OURS]) == 0, "the end", "our hold");
    ok &= expect(lk_lock_release(scene.locks[READ]) == 0, "the end", "our shared hold");
    ok &= expect(lk_lock_release(scene.their_locks[THEIRS]) == 0, "the end", "their hold");
    ok &= expect(lk_lock_release(scene.their_locks[READ]) == 0, "the end", "their shared hold");
    lk_session_close(scene.session);
    lk_session_close(scene.bystander);
    ok &= expect(open_fds() == fds, "the end", "descriptors");
    return ok ? 0 : 1;
}
