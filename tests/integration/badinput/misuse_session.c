/* SPDX-License-Identifier: MIT */
/* Sessions: options, socket paths, a full descriptor table. */
#include "misuse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* --- Options --- */

static int open_with(const struct scene *scene, const struct lk_session_options *options)
{
    struct lk_session *session = NULL;
    int r = lk_session_open(scene->socket_path, options, &session);
    NEED(r == 0 || session == NULL);
    lk_session_close(session);
    return r;
}

static int no_place(struct scene *scene)
{
    return lk_session_open(scene->socket_path, NULL, NULL);
}

static int size_not_set(struct scene *scene)
{
    return open_with(scene, &(struct lk_session_options){.size = 0});
}

static int size_absurd(struct scene *scene)
{
    return open_with(scene, &(struct lk_session_options){.size = SIZE_MAX});
}

static int newer_option(struct scene *scene)
{
    struct {
        struct lk_session_options known;
        uint64_t newer;
    } options = {.known.size = sizeof(options), .newer = 1};
    return open_with(scene, &options.known);
}

static int unknown_flag(struct scene *scene)
{
    return open_with(scene, &(struct lk_session_options){.size = sizeof(struct lk_session_options),
                                                         .flags = 1u << 31});
}

/* --- Paths --- */

static int open_at(const char *path)
{
    const struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_session *session = NULL;
    int r = lk_session_open(path, &options, &session);
    lk_session_close(session);
    return r;
}

static int empty_path(struct scene *scene)
{
    (void)scene;
    return open_at("");
}

static int long_path(struct scene *scene)
{
    char path[200];
    (void)scene;
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    return open_at(path);
}

static int nobody_there(struct scene *scene)
{
    char path[108];
    (void)snprintf(path, sizeof(path), "%.90s/nobody", scene->directory);
    return open_at(path);
}

static int no_directory(struct scene *scene)
{
    (void)scene;
    return open_at("/nonexistent/broker.sock");
}

static int plain_file(struct scene *scene)
{
    char path[108];
    (void)snprintf(path, sizeof(path), "%.90s/plain", scene->directory);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    NEED(fd >= 0);
    close(fd);
    int r = open_at(path);
    NEED(unlink(path) == 0); /* it is still there */
    return r;
}

static int listen_at(const char *path, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    NEED(fd >= 0);
    NEED(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    NEED(listen(fd, 1) == 0);
    return fd;
}

static int dead_socket(struct scene *scene)
{
    char path[108];
    (void)snprintf(path, sizeof(path), "%.90s/dead", scene->directory);
    close(listen_at(path, SOCK_SEQPACKET));
    int r = open_at(path);
    NEED(unlink(path) == 0);
    return r;
}

static int stream_socket(struct scene *scene)
{
    char path[108];
    (void)snprintf(path, sizeof(path), "%.90s/stream", scene->directory);
    int fd = listen_at(path, SOCK_STREAM);
    int r = open_at(path);
    close(fd);
    NEED(unlink(path) == 0);
    return r;
}

/* --- Descriptors --- */

/* With room for `room` more descriptors. */
static int with_room(struct scene *scene, unsigned room, int (*call)(struct scene *scene))
{
    struct rlimit limit, tight;
    NEED(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    int next = fcntl(0, F_DUPFD_CLOEXEC, 3);
    NEED(next >= 0);
    close(next);
    tight = limit;
    tight.rlim_cur = (rlim_t)next + room;
    NEED(setrlimit(RLIMIT_NOFILE, &tight) == 0);
    int r = call(scene);
    NEED(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    return r;
}

static int just_open(struct scene *scene)
{
    return open_with(scene, NULL);
}

static int open_without_room(struct scene *scene)
{
    return with_room(scene, 0, just_open);
}

static int just_open_segment(struct scene *scene)
{
    const struct lk_segment_options options = {
        .size = sizeof(options), .size_bytes = 4096, .flags = LK_CREATE_NEW};
    struct lk_segment *segment = NULL;
    return lk_segment_open(scene->session, "no-room", &options, &segment);
}

static int segment_without_room(struct scene *scene)
{
    NEED(with_room(scene, 0, just_open_segment) == -EMFILE);
    return with_room(scene, 1, just_open_segment);
}

static int just_fd(struct scene *scene)
{
    return lk_session_fd(scene->session);
}

static int fd_without_room(struct scene *scene)
{
    return with_room(scene, 0, just_fd);
}

static int fd_of_nothing(struct scene *scene)
{
    (void)scene;
    return lk_session_fd(NULL);
}

static int dispatch_nothing(struct scene *scene)
{
    (void)scene;
    NEED(lk_session_close(NULL) == NULL);
    return lk_session_dispatch(NULL);
}

const struct misuse misuse_of_sessions[] = {
    {"session-no-place", no_place, -EINVAL},
    {"session-size-not-set", size_not_set, -EINVAL},
    {"session-size-absurd", size_absurd, -EINVAL},
    {"session-newer-option", newer_option, -EINVAL},
    {"session-unknown-flag", unknown_flag, -EINVAL},
    {"session-empty-path", empty_path, -EINVAL},
    {"session-long-path", long_path, -ENAMETOOLONG},
    {"session-nobody-there", nobody_there, -ECONNREFUSED},
    {"session-no-directory", no_directory, -ECONNREFUSED},
    {"session-plain-file", plain_file, -ECONNREFUSED},
    {"session-dead-socket", dead_socket, -ECONNREFUSED},
    {"session-stream-socket", stream_socket, -EPROTO},
    {"session-full-table", open_without_room, -EMFILE},
    {"segment-full-table", segment_without_room, -EMFILE},
    {"session-fd-full-table", fd_without_room, -EMFILE},
    {"session-fd-null", fd_of_nothing, -EINVAL},
    {"session-dispatch-null", dispatch_nothing, -EINVAL},
    {NULL, NULL, 0},
};
