/* SPDX-License-Identifier: MIT */
/* lockkeeperd: options, a clean process, one daemon. */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "broker/io/daemon.h"
#include "broker/io/instance.h"
#include "broker/io/log.h"
#include "broker/options.h"
#include "common/fd.h"
#include "common/place.h"

/* Where to listen. Not the system broker's place: that one is started with --socket by its unit. */
static int choose_place(const struct lkd_options *options, struct lki_place *out_place,
                        int *out_exit_code)
{
    struct lki_places places;
    lki_places_find(options->socket_path, geteuid(), &places);
    *out_place = places.entries[places.start];
    int r = lki_place_prepare(out_place, geteuid());
    if (r == 0)
        return 0;
    if (r == -ENAMETOOLONG)
        lkd_log_line(LKD_LOG_ERROR, "cannot listen: the socket path was %s; choose a shorter one",
                     out_place->reason);
    else
        lkd_log_line(LKD_LOG_ERROR, "cannot listen at %s: %s (%s)", out_place->path, strerror(-r),
                     out_place->reason);
    *out_exit_code = r == -ENAMETOOLONG ? EX_USAGE : EX_NOPERM;
    return r;
}

/* Forgets whoever started us: its terminal, its descriptors, its working directory. */
static int detach(const char *socket_path, int ready_fd)
{
    char log_path[LKI_SOCKET_PATH_BYTES_MAX + 8];
    (void)snprintf(log_path, sizeof(log_path), "%s.log", socket_path);
    (void)setsid(); /* fails for a leader of a process group: then it is alone already */

    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0)
        return -errno;
    int log_fd =
        open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (log_fd <
        0) /* whoever started us still reads this: the likely reason why we cannot listen */
        lkd_log_line(LKD_LOG_WARNING, "cannot write %s: %s", log_path, strerror(errno));
    bool failed = dup2(null_fd, STDIN_FILENO) < 0 || dup2(null_fd, STDOUT_FILENO) < 0 ||
                  dup2(log_fd >= 0 ? log_fd : null_fd, STDERR_FILENO) < 0;
    int r = failed ? -errno : 0;
    if (log_fd > STDERR_FILENO)
        (void)lki_close(log_fd);
    if (null_fd > STDERR_FILENO)
        (void)lki_close(null_fd);
    if (r < 0)
        return r;

    if (ready_fd <= STDERR_FILENO)
        return close_range(STDERR_FILENO + 1, ~0U, 0) < 0 ? -errno : 0;
    if (ready_fd > STDERR_FILENO + 1 &&
        close_range(STDERR_FILENO + 1, (unsigned)ready_fd - 1, 0) < 0)
        return -errno;
    return close_range((unsigned)ready_fd + 1, ~0U, 0) < 0 ? -errno : 0;
}

/* Undoes what a parent may have left to us that would change how we run. */
static void clean_process(const struct lkd_options *options)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(077);

    /* Others' processes connect, and what we know of them is theirs: not even our own user may trace
     * us or read our memory then, and no dump is written. Who serves its own user alone has nothing
     * that this user could not have anyway, and can be debugged. */
    if (options->mode & 077)
        (void)prctl(PR_SET_DUMPABLE, 0);

    /* Two descriptors per client and two per segment; we never use select(2). */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* What one user may take must not be all that there is. Who serves its own user alone shares with
 * nobody. */
static struct lkd_limits choose_limits(const struct lkd_options *options)
{
    struct lkd_limits limits = options->limits;
    struct rlimit files;
    if ((options->mode & 077) && getrlimit(RLIMIT_NOFILE, &files) == 0)
        lkd_limits_fit(&limits, files.rlim_cur);
    return limits;
}

static int serve(struct lkd_instance *instance, const struct lkd_options *options)
{
    const struct lkd_daemon_options daemon_options = {
        .peer_pidfd = options->no_peerpidfd ? LKD_PEER_PIDFD_FALLBACK : LKD_PEER_PIDFD_BEST,
        .idle_exit_ms = options->idle_exit_s * 1000,
        .ready_fd = options->ready_fd,
        .limits = choose_limits(options),
    };
    static struct lkd_daemon daemon; /* some hundred KiB */
    int r = lkd_daemon_init(&daemon, instance, &daemon_options);
    if (r < 0) {
        lkd_log_line(LKD_LOG_ERROR, "cannot start: %s", uv_strerror(r));
    } else {
        lkd_log_line(LKD_LOG_INFO, "listens at %s", instance->path);
        lkd_daemon_run(&daemon);
    }
    /* From here on nobody finds us, and a successor may take the path. */
    lkd_instance_close(instance);
    if (!lkd_daemon_deinit(&daemon))
        _exit(r < 0 ? EX_OSERR : 0); /* exit(3) would wait for the helper that hangs */
    return r < 0 ? EX_OSERR : 0;
}

int main(int argc, char **argv)
{
    struct lkd_options options;
    struct lki_place place;
    struct lkd_instance instance;
    struct lkd_instance_problem problem;
    int exit_code = EX_OSERR;

    if (!lkd_options_parse(argc, argv, &options, &exit_code))
        return exit_code;
    lkd_log_start(options.log_level);
    clean_process(&options);
    if (choose_place(&options, &place, &exit_code) < 0)
        return exit_code;
    if (options.autostarted) {
        int r = detach(place.path, options.ready_fd);
        lkd_log_start(options.log_level);
        if (r < 0) {
            lkd_log_line(LKD_LOG_ERROR, "cannot detach: %s", strerror(-r));
            return EX_OSERR;
        }
    }
    if (options.ready_fd >= 0 && fcntl(options.ready_fd, F_SETFD, FD_CLOEXEC) < 0) {
        lkd_log_line(LKD_LOG_ERROR, "--ready-fd %d: %s", options.ready_fd, strerror(errno));
        return EX_USAGE;
    }
    time_t now_s = time(NULL);
    int r = lkd_instance_open(&instance, place.path, options.mode, now_s > 0 ? (uint64_t)now_s : 0,
                              &problem);
    if (r < 0) {
        lkd_log_line(LKD_LOG_ERROR, "%s", problem.text);
        return problem.exit_code;
    }
    if (options.autostarted && chdir("/") < 0)
        lkd_log_line(LKD_LOG_WARNING, "cannot leave the working directory: %s", strerror(errno));
    return serve(&instance, &options);
}
