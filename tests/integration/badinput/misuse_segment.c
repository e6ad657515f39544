/* SPDX-License-Identifier: MIT */
/* Segments: names, options, files, publishing, removing. */
#include "misuse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- Names --- */

static int open_named(struct lk_session *session, const char *name)
{
    const struct lk_segment_options options = {
        .size = sizeof(options), .size_bytes = 4096, .flags = LK_CREATE};
    struct lk_segment *segment = NULL;
    int r = lk_segment_open(session, name, &options, &segment);
    NEED(r >= 0 || segment == NULL);
    lk_segment_close(segment);
    return r;
}

static int name_null(struct scene *scene)
{
    return open_named(scene->session, NULL);
}

static int name_empty(struct scene *scene)
{
    return open_named(scene->session, "");
}

static int name_hash(struct scene *scene)
{
    return open_named(scene->session, "frames#1");
}

static int name_slash(struct scene *scene)
{
    return open_named(scene->session, "frames/1");
}

static int name_control(struct scene *scene)
{
    return open_named(scene->session, "frames\x1b[2J\n");
}

static int name_not_utf8(struct scene *scene)
{
    return open_named(scene->session, "frames\xff");
}

static int name_long(struct scene *scene)
{
    char name[257];
    memset(name, 'n', 256);
    name[256] = '\0';
    int too_long = open_named(scene->session, name);
    name[255] = '\0';
    NEED(open_named(scene->session, name) == LK_CREATED); /* 255 fit */
    name[255] = 'n';
    NEED(open_named(scene->session, name) == too_long); /* its text is the last one */
    return too_long;
}

static int name_prefix_only(struct scene *scene)
{
    return open_named(scene->session, "~root");
}

static int name_owner_empty(struct scene *scene)
{
    return open_named(scene->session, "@/frames");
}

static int name_owner_number(struct scene *scene)
{
    return open_named(scene->session, "~99999999999/frames");
}

static int name_owner_unknown(struct scene *scene)
{
    return open_named(scene->session, "~no such user/frames");
}

/* --- Options --- */

static int open_wished(struct lk_session *session, const char *name,
                       struct lk_segment_options options)
{
    struct lk_segment *segment = NULL;
    if (options.size == 0)
        options.size = sizeof(options);
    if (options.flags == 0)
        options.flags = LK_CREATE;
    int r = lk_segment_open(session, name, &options, &segment);
    NEED(r >= 0 || segment == NULL);
    lk_segment_close(segment);
    return r;
}

#define WISH(function, name, ...)                                                                  \
    static int function(struct scene *scene)                                                       \
    {                                                                                              \
        return open_wished(scene->session, name, (struct lk_segment_options){__VA_ARGS__});        \
    }

WISH(size_wrong, "new", .size = 3)
WISH(size_absurd, "new", .size = SIZE_MAX)
WISH(unknown_flag, "new", .flags = LK_CREATE | 1u << 30)
WISH(mode_not_bits, "new", .mode = 010644)
WISH(size_2_63, "new", .size_bytes = UINT64_C(1) << 63)
WISH(max_2_63, "new", .size_bytes = 4096, .size_max_bytes = UINT64_C(1) << 63)
WISH(max_below_size, "new", .size_bytes = 8192, .size_max_bytes = 4096)
WISH(max_without_size, "new", .size_max_bytes = 4096)
WISH(too_many_locks, "new", .locks = (1u << 20) + 1)
WISH(too_many_attachments, "new", .attachments_max = 16385)
WISH(expiry_unknown, "new", .lease_ns = 1, .on_expiry = 3)
WISH(expiry_without_lease, "new", .on_expiry = LK_EXPIRY_KILL)
WISH(reserved_set, "new", .reserved = 1)
WISH(lease_behind, "scene", .lease_ns = 5000000, .on_expiry = LK_EXPIRY_KILL)
WISH(reserve_too_much, "new", .size_bytes = UINT64_C(1) << 45, .flags = LK_CREATE | LK_RESERVE)
WISH(create_read_only, "new", .size_bytes = 4096, .flags = LK_CREATE | LK_READ_ONLY)
WISH(create_twice, "scene", .flags = LK_CREATE_NEW)
WISH(more_bytes, "scene", .size_bytes = DATA_BYTES + 1)
WISH(more_locks, "scene", .locks = LOCKS + 1)
WISH(strict_behind, "scene", .flags = LK_STRICT)

static int newer_option(struct scene *scene)
{
    struct {
        struct lk_segment_options known;
        uint64_t newer;
    } options = {.known.size = sizeof(options), .known.flags = LK_CREATE, .newer = 1};
    struct lk_segment *segment = NULL;
    return lk_segment_open(scene->session, "new", &options.known, &segment);
}

static int not_found(struct scene *scene)
{
    struct lk_segment *segment = NULL;
    return lk_segment_open(scene->session, "missing", NULL, &segment);
}

static int session_null(struct scene *scene)
{
    struct lk_segment *segment = NULL;
    (void)scene;
    return lk_segment_open(NULL, "new", NULL, &segment);
}

static int no_place(struct scene *scene)
{
    return lk_segment_open(scene->session, "scene", NULL, NULL);
}

static int unpublished(struct scene *scene)
{
    struct lk_segment *segment = NULL;
    struct lk_segment *made =
        misuse_segment(scene->session, "filling", 4096, LK_CREATE | LK_UNPUBLISHED);
    int r = lk_segment_open(scene->bystander, "filling", NULL, &segment);
    lk_segment_close(made);
    return r;
}

static int attachments_full(struct scene *scene)
{
    const struct lk_segment_options options = {
        .size = sizeof(options), .attachments_max = 1, .flags = LK_CREATE};
    struct lk_segment *first = NULL, *second = NULL;
    NEED(lk_segment_open(scene->session, "single", &options, &first) == LK_CREATED);
    int r = lk_segment_open(scene->bystander, "single", NULL, &second);
    lk_segment_close(first);
    return r;
}

static int write_what_was_opened_to_read(struct scene *scene)
{
    struct lk_session *reader = misuse_session(scene);
    struct lk_segment *again = NULL;
    misuse_segment(reader, "scene", 0, LK_READ_ONLY);
    int r = lk_segment_open(reader, "scene", NULL, &again);
    lk_session_close(reader);
    return r;
}

/* --- Files --- */

static int offer(struct lk_session *session, const char *name, int fd, uint64_t size_bytes)
{
    const struct lk_segment_options options = {
        .size = sizeof(options), .size_bytes = size_bytes, .flags = LK_CREATE};
    struct lk_segment *segment = NULL;
    int r = lk_segment_offer(session, name, fd, &options, &segment);
    NEED(r >= 0 || segment == NULL);
    lk_segment_close(segment);
    return r;
}

static int temporary_file(const struct scene *scene, off_t bytes)
{
    int fd = open(scene->directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    NEED(fd >= 0);
    NEED(ftruncate(fd, bytes) == 0);
    return fd;
}

static int offer_and_close(struct scene *scene, int fd, uint64_t size_bytes)
{
    NEED(fd >= 0);
    int r = offer(scene->session, "file", fd, size_bytes);
    NEED(fcntl(fd, F_GETFD) >= 0); /* borrowed */
    close(fd);
    return r;
}

static int offer_nothing(struct scene *scene)
{
    return offer(scene->session, "file", -1, 4096);
}

static int offer_to_null(struct scene *scene)
{
    (void)scene;
    return offer(NULL, "file", 0, 4096);
}

static int offer_pipe(struct scene *scene)
{
    int ends[2];
    NEED(pipe2(ends, O_CLOEXEC) == 0);
    close(ends[0]);
    return offer_and_close(scene, ends[1], 4096);
}

static int offer_directory(struct scene *scene)
{
    return offer_and_close(scene, open(scene->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), 4096);
}

static int offer_read_only(struct scene *scene)
{
    char path[64];
    int writable = temporary_file(scene, 4096);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", writable);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    close(writable);
    return offer_and_close(scene, fd, 0);
}

static int offer_empty(struct scene *scene)
{
    return offer_and_close(scene, temporary_file(scene, 0), 0);
}

static int offer_short(struct scene *scene)
{
    return offer_and_close(scene, temporary_file(scene, 4096), 8192);
}

static int offer_another(struct scene *scene)
{
    struct lk_segment *kept = NULL;
    int first = temporary_file(scene, 4096);
    NEED(lk_segment_offer(scene->session, "file", first, NULL, &kept) >= 0);
    close(first);
    int r = offer_and_close(scene, temporary_file(scene, 4096), 0);
    lk_segment_close(kept);
    return r;
}

/* --- Publish, remove, close --- */

static int publish_null(struct scene *scene)
{
    (void)scene;
    return lk_segment_publish(NULL);
}

static int publish_anothers(struct scene *scene)
{
    return lk_segment_publish(scene->theirs);
}

static int remove_null(struct scene *scene)
{
    return lk_segment_remove(scene->session, NULL);
}

static int remove_without_session(struct scene *scene)
{
    (void)scene;
    return lk_segment_remove(NULL, "scene");
}

static int remove_unknown(struct scene *scene)
{
    return lk_segment_remove(scene->session, "missing");
}

static int remove_wrong_name(struct scene *scene)
{
    return lk_segment_remove(scene->session, "scene#1");
}

static int use_after_close(struct scene *scene)
{
    struct lk_segment *segment = misuse_segment(scene->session, "closed", 4096, LK_CREATE);
    struct lk_lock *lock = NULL;
    void *address = NULL;
    NEED(lk_segment_close(segment) == NULL);
    NEED(lk_segment_close(segment) == NULL); /* twice is once */
    NEED(lk_segment_close(NULL) == NULL);
    NEED(lk_segment_size(segment) == 0);
    NEED(lk_segment_grow(segment, 8192) == -ESTALE);
    NEED(lk_segment_publish(segment) == -ESTALE);
    NEED(lk_segment_unmap(segment, segment) == -ESTALE);
    NEED(lk_lock_at(segment, 0, &lock) == -ESTALE && lock == NULL);
    NEED(lk_lock_named(segment, "orders", &lock) == -ESTALE && lock == NULL);
    return lk_segment_map(segment, 0, 0, &address);
}

/* The count is the segment's: the first close leaves the second handle its use. */
static int counted_close(struct scene *scene)
{
    struct lk_segment *segment = misuse_segment(scene->session, "counted", 4096, LK_CREATE);
    NEED(misuse_segment(scene->session, "counted", 0, LK_CREATE) == segment);
    lk_segment_close(segment);
    NEED(lk_segment_size(segment) == 4096);
    lk_segment_close(segment);
    return lk_segment_grow(segment, 8192);
}

const struct misuse misuse_of_segments[] = {
    {"name-null", name_null, -EINVAL},
    {"name-empty", name_empty, -EINVAL},
    {"name-hash", name_hash, -EINVAL},
    {"name-slash", name_slash, -EINVAL},
    {"name-control", name_control, -EINVAL},
    {"name-not-utf8", name_not_utf8, -EINVAL},
    {"name-long", name_long, -EINVAL},
    {"name-prefix-only", name_prefix_only, -EINVAL},
    {"name-owner-empty", name_owner_empty, -EINVAL},
    {"name-owner-number", name_owner_number, -EINVAL},
    {"name-owner-unknown", name_owner_unknown, -ENOENT},
    {"open-session-null", session_null, -EINVAL},
    {"open-no-place", no_place, -EINVAL},
    {"open-size-wrong", size_wrong, -EINVAL},
    {"open-size-absurd", size_absurd, -EINVAL},
    {"open-newer-option", newer_option, -EINVAL},
    {"open-unknown-flag", unknown_flag, -EINVAL},
    {"open-mode", mode_not_bits, -EINVAL},
    {"open-size-2^63", size_2_63, -EFBIG},
    {"open-max-2^63", max_2_63, -EFBIG},
    {"open-max-below-size", max_below_size, -EINVAL},
    {"open-max-without-size", max_without_size, -EINVAL},
    {"open-locks", too_many_locks, -EFBIG},
    {"open-attachments", too_many_attachments, -EFBIG},
    {"open-expiry", expiry_unknown, -EINVAL},
    {"open-expiry-without-lease", expiry_without_lease, -EINVAL},
    {"open-reserved", reserved_set, -EINVAL},
    {"open-lease-behind", lease_behind, -EINVAL},
    {"open-reserve", reserve_too_much, -ENOSPC},
    {"open-create-read-only", create_read_only, -EINVAL},
    {"open-exists", create_twice, -EEXIST},
    {"open-more-bytes", more_bytes, -EINVAL},
    {"open-more-locks", more_locks, -EINVAL},
    {"open-strict-behind", strict_behind, -EINVAL},
    {"open-not-found", not_found, -ENOENT},
    {"open-unpublished", unpublished, -EAGAIN},
    {"open-attachments-full", attachments_full, -EUSERS},
    {"open-writable-behind", write_what_was_opened_to_read, -EINVAL},
    {"offer-session-null", offer_to_null, -EINVAL},
    {"offer-nothing", offer_nothing, -EBADF},
    {"offer-pipe", offer_pipe, -EBADF},
    {"offer-directory", offer_directory, -EBADF},
    {"offer-read-only", offer_read_only, -EBADF},
    {"offer-empty", offer_empty, -EINVAL},
    {"offer-short", offer_short, -EINVAL},
    {"offer-another", offer_another, -ESTALE},
    {"publish-null", publish_null, -EINVAL},
    {"publish-anothers", publish_anothers, -EPERM},
    {"remove-name-null", remove_null, -EINVAL},
    {"remove-session-null", remove_without_session, -EINVAL},
    {"remove-unknown", remove_unknown, -ENOENT},
    {"remove-wrong-name", remove_wrong_name, -EINVAL},
    {"segment-closed", use_after_close, -ESTALE},
    {"segment-closed-twice", counted_close, -ESTALE},
    {NULL, NULL, 0},
};
