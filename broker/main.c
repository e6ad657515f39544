/* SPDX-License-Identifier: MIT */
/* lockkeeperd: options, a clean process, one daemon. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

#include "broker/handover.h"
#include "broker/io/daemon.h"
#include "broker/io/instance.h"
#include "broker/io/log.h"
#include "broker/io/sandbox.h"
#include "broker/keeper/keeper.h"
#include "broker/keeper/service_manager.h"
#include "broker/keeper/store.h"
#include "broker/managed.h"
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
    (void)signal(SIGCHLD, SIG_DFL); /* ignored: no keeper would hear of the end of its worker */
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
static void fit_limits(struct lkd_options *options)
{
    struct rlimit files;
    if ((options->mode & 077) && getrlimit(RLIMIT_NOFILE, &files) == 0)
        lkd_limits_fit(&options->limits, files.rlim_cur);
}

/* What every worker needs, besides its start. */
struct service {
    struct lkd_instance instance;
    struct lkd_names names;
    struct lkd_service manager;
    struct lkd_store store;
    struct lkd_options options;
    char program[PATH_MAX]; /* where this image was started from; may be another one's by now */
    char **argv;
};

/* Returns 0, or an exit code. */
static int enter_sandbox(const struct lkd_options *options)
{
    if (options->no_sandbox || !lkd_sandbox_is_possible()) {
        lkd_log_line(LKD_LOG_DEBUG, "the worker runs without its sandbox");
        return 0;
    }
    int parts = lkd_sandbox_enter();
    if (parts < 0) {
        lkd_log_line(LKD_LOG_ERROR, "cannot enter the sandbox: %s; --no-sandbox does without",
                     strerror(-parts));
        return EX_OSERR;
    }
    if (!(parts & LKD_SANDBOX_FILES))
        lkd_log_line(LKD_LOG_DEBUG, "this kernel has no Landlock: the worker could read files");
    return 0;
}

static int work(const struct lkd_worker_start *start, void *user)
{
    struct service *service = user;
    const struct lkd_daemon_options daemon_options = {
        .start = start,
        .names = &service->names,
        .peer_pidfd = service->options.no_peerpidfd ? LKD_PEER_PIDFD_FALLBACK : LKD_PEER_PIDFD_BEST,
        .idle_exit_ms = service->options.idle_exit_s * 1000,
        .ready_fd = start->successor ? -1 : service->options.ready_fd, /* a successor's is closed */
        .limits = service->options.limits,
        .alive_interval_ms = lkd_service_ping_interval_ms(&service->manager),
        .tell_segments = lkd_service_is_managed(&service->manager),
        .grace_ms = service->options.grace_ms,
        .debugger_grace_ms = service->options.debugger_grace_ms,
    };
    int exit_code = enter_sandbox(&service->options);
    if (exit_code != 0)
        return exit_code;
    static struct lkd_daemon daemon; /* some hundred KiB */
    int r = lkd_daemon_init(&daemon, &service->instance, &daemon_options);
    if (r < 0) {
        lkd_log_line(LKD_LOG_ERROR, "cannot start: %s", uv_strerror(r));
        if (start->successor)
            _exit(EX_OSERR); /* what was taken over is for the next one to find */
    } else {
        lkd_log_line(LKD_LOG_INFO, "listens at %s", service->instance.path);
        lkd_daemon_run(&daemon);
    }
    (void)lkd_worker_tell(start, LKD_REQUEST_CLOSE);
    if (!lkd_daemon_deinit(&daemon))
        _exit(r < 0 ? EX_OSERR : 0); /* exit(3) would wait for the helper that hangs */
    return r < 0 ? EX_OSERR : 0;
}

static void tell_ready(void *user)
{
    struct service *service = user;
    lkd_managed_tell_ready(&service->manager, &service->instance);
}

static void tell_alive(void *user)
{
    struct service *service = user;
    lkd_managed_ping(&service->manager);
}

static bool keep_segments(const struct lkd_ledger *ledger, int ledger_fd, void *user)
{
    struct service *service = user;
    return lkd_store_update(&service->store, ledger, ledger_fd);
}

static void close_path(uint64_t token_epoch_s, void *user)
{
    struct service *service = user;
    if (token_epoch_s > service->instance.used_epoch_s)
        service->instance.used_epoch_s = token_epoch_s;
    lkd_managed_tell_stopping(&service->manager, &service->instance);
    lkd_store_clear(&service->store);
    lkd_names_close(&service->names);
    lkd_instance_close(&service->instance);
}

static bool can_upgrade(void *user)
{
    const struct service *service = user;
    return service->program[0] != '\0' && lkd_handover_ask(service->program);
}

static int upgrade(int ledger_fd, void *user)
{
    const struct service *service = user;
    const struct lkd_handover handover = {.program = service->program, .argv = service->argv};
    return lkd_handover_execute(&handover, ledger_fd, &service->instance, &service->names,
                                &service->manager);
}

struct restored { /* see is_restored() */
    const struct lkd_limits *limits;
    int ledger_fd;
};

/* Segments that come back need no protection from themselves. */
static bool is_restored(const struct lkd_name_change *name, void *user)
{
    const struct restored *restored = user;
    return lkd_store_has_name(restored->ledger_fd, restored->limits, name->name_kind, name->name_id,
                              name->name, name->name_bytes);
}

/* ledger_fd: of the broker before, if the service manager had it; else -1. */
static void open_names(struct service *service, int ledger_fd)
{
    struct restored restored = {.limits = &service->options.limits, .ledger_fd = ledger_fd};
    const struct lkd_names_filter filter = {.drops = is_restored, .user = &restored};
    const struct lkd_instance *instance = &service->instance;
    uint32_t slots = (uint32_t)lkd_limits_max(&service->options.limits, LKD_ATTACHMENTS);
    int r = lkd_names_open(&service->names, instance->directory_fd, instance->name, slots, &filter);
    if (r < 0)
        lkd_log_line(LKD_LOG_WARNING,
                     "cannot write %s.names: %s; should this broker be lost, the next one may give "
                     "a name away that a client still uses",
                     instance->path, strerror(-r));
}

/* ledger_fd: of the image, or the broker, before; -1: there was none. */
static int serve(struct service *service, int ledger_fd)
{
    const struct lkd_instance *instance = &service->instance;
    const int kept[] = {instance->directory_fd, instance->lock_fd, instance->listen_fd,
                        service->names.fd, service->manager.socket_fd};
    const struct lkd_keeper_service hooks = {.work = work,
                                             .serving = tell_ready,
                                             .alive = tell_alive,
                                             .segments = keep_segments,
                                             .can_upgrade = can_upgrade,
                                             .upgrade = upgrade,
                                             .close = close_path,
                                             .user = service};
    if (lkd_store_init(&service->store, &service->manager, &service->options.limits, ledger_fd) < 0)
        lkd_log_line(LKD_LOG_WARNING, "no memory to note what the service manager keeps");
    int exit_code = lkd_keeper_run(&service->options.limits, ledger_fd, kept,
                                   sizeof(kept) / sizeof(kept[0]), &hooks);
    lkd_store_deinit(&service->store);
    return exit_code;
}

/* The path where a broker without a manager's socket listens, after leaving whoever started it. */
static int go_to_place(const struct lkd_options *options, struct lki_place *out_place,
                       int *out_exit_code)
{
    int r = choose_place(options, out_place, out_exit_code);
    if (r < 0 || !options->autostarted)
        return r;
    r = detach(out_place->path, options->ready_fd);
    lkd_log_start(options->log_level);
    if (r < 0) {
        lkd_log_line(LKD_LOG_ERROR, "cannot detach: %s", strerror(-r));
        *out_exit_code = EX_OSERR;
    }
    return r;
}

/* Takes the socket that the service manager has for us, or makes one. */
static int open_instance(struct service *service, int *out_exit_code)
{
    const struct lkd_options *options = &service->options;
    struct lki_place place;
    struct lkd_instance_problem problem;
    time_t now_s = time(NULL);
    uint64_t epoch_s = now_s > 0 ? (uint64_t)now_s : 0;
    int r = lkd_managed_adopt(&service->manager, options->socket_path, epoch_s, &service->instance,
                              &problem);
    if (r == LKD_MANAGED_NO_LISTENER) {
        r = go_to_place(options, &place, out_exit_code);
        if (r < 0)
            return r;
        lkd_keeper_hold_signals();
        r = lkd_instance_open(&service->instance, place.path, options->mode, epoch_s, &problem);
    }
    if (r < 0) {
        lkd_log_line(LKD_LOG_ERROR, "%s", problem.text);
        *out_exit_code = problem.exit_code;
    }
    return r;
}

/* Everything from the beginning. */
static int begin(struct service *service)
{
    const struct lkd_options *options = &service->options;
    int exit_code = EX_OSERR;
    lkd_managed_open(&service->manager, options->autostarted);
    if (options->ready_fd >= 0 && fcntl(options->ready_fd, F_SETFD, FD_CLOEXEC) < 0) {
        lkd_log_line(LKD_LOG_ERROR, "--ready-fd %d: %s", options->ready_fd, strerror(errno));
        return EX_USAGE;
    }
    if (open_instance(service, &exit_code) < 0) {
        lkd_service_close(&service->manager);
        return exit_code;
    }
    if (options->autostarted && chdir("/") < 0)
        lkd_log_line(LKD_LOG_WARNING, "cannot leave the working directory: %s", strerror(errno));
    int ledger_fd = lkd_store_restore(&service->manager, &options->limits);
    lkd_managed_drop_rest(&service->manager);
    open_names(service, ledger_fd);
    return serve(service, ledger_fd);
}

/* In the place of another image. */
static int resume(struct service *service)
{
    int ledger_fd = lkd_handover_resume(service->options.resume_fd, &service->instance,
                                        &service->names, &service->manager);
    if (ledger_fd < 0) {
        lkd_log_line(LKD_LOG_ERROR, "--resume is for upgrades, which pass the number");
        return EX_USAGE;
    }
    lkd_log_line(LKD_LOG_INFO, "was upgraded to " LKD_VERSION);
    return serve(service, ledger_fd);
}

static void find_program(struct service *service)
{
    ssize_t length = readlink("/proc/self/exe", service->program, sizeof(service->program) - 1);
    service->program[length > 0 ? length : 0] = '\0';
}

int main(int argc, char **argv)
{
    static struct service service;
    struct lkd_options *options = &service.options;
    int exit_code = EX_OSERR;

    if (!lkd_options_parse(argc, argv, options, &exit_code))
        return exit_code;
    if (options->accepts != 0)
        return lkd_handover_accepts(options->accepts) ? 0 : EX_UNAVAILABLE;
    if (options->upgrade)
        return lkd_handover_request(options->socket_path);
    lkd_log_start(options->log_level);
    clean_process(options);
    fit_limits(options);
    find_program(&service);
    service.argv = argv;
    exit_code = options->resume_fd >= 0 ? resume(&service) : begin(&service);
    lkd_service_close(&service.manager);
    return exit_code;
}
