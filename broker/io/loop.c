/* SPDX-License-Identifier: MIT */
#include "broker/io/daemon.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "broker/core/ledger.h"
#include "broker/io/connection.h"
#include "broker/io/link.h"
#include "broker/io/log.h"
#include "broker/io/takeover.h"
#include "broker/io/unread.h"
#include "common/assert.h"
#include "common/barrier.h"
#include "common/clock.h"
#include "common/fd.h"

#define SLICE_NS_MAX LKI_NS_PER_MS /* nobody waits longer for a repair of somebody else's locks */
#define SLICE_LOCKS_FIRST 4096u
#define SLICE_LOCKS_MIN 256u
#define SLICE_LOCKS_MAX (1u << 20)
#define STOP_PATIENCE_MS 1000 /* for helper threads, at the end */

static const int stop_signals[] = {SIGTERM, SIGINT, SIGHUP};

/* --- Time and work of the core --- */

/* Sets the timer to an absolute time of CLOCK_MONOTONIC. libuv's own timers know whole
 * milliseconds, and the naps of brokered waits are of that size. */
static void arm(struct lkd_daemon *daemon, uint64_t due_ns)
{
    if (due_ns == daemon->timer_due_ns)
        return;
    struct itimerspec when = {.it_value = {0}};
    if (due_ns != LKI_TIME_NEVER) {
        when.it_value.tv_sec = (time_t)(due_ns / LKI_NS_PER_S);
        when.it_value.tv_nsec = (long)(due_ns % LKI_NS_PER_S);
    }
    int r = timerfd_settime(daemon->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    LKI_ASSERT(r == 0); /* fails on invalid arguments alone */
    daemon->timer_due_ns = due_ns;
}

static void tick(struct lkd_daemon *daemon)
{
    uint64_t began_ns = lki_clock_now_ns();
    bool repairing = lkd_core_deadline_ns(daemon->core) == 0;
    lkd_core_tick(daemon->core, began_ns, daemon->slice_locks);
    if (repairing) {
        /* The cost of a lock depends on what has to be woken and what is in the cache: measure. */
        uint64_t took_ns = lki_clock_now_ns() - began_ns;
        if (took_ns > SLICE_NS_MAX && daemon->slice_locks > SLICE_LOCKS_MIN)
            daemon->slice_locks /= 2;
        else if (took_ns < SLICE_NS_MAX / 4 && daemon->slice_locks < SLICE_LOCKS_MAX &&
                 lkd_core_deadline_ns(daemon->core) == 0)
            daemon->slice_locks += daemon->slice_locks / 4;
    }
    lkd_daemon_settle(daemon);
}

static void on_timer(uv_poll_t *handle, int status, int events)
{
    struct lkd_daemon *daemon = handle->data;
    (void)status;
    (void)events;
    uint64_t expirations;
    if (read(daemon->timer_fd, &expirations, sizeof(expirations)) < 0)
        return;                            /* set anew since it fired */
    daemon->timer_due_ns = LKI_TIME_NEVER; /* as the kernel has it: it fires once */
    tick(daemon);
}

static void on_work(uv_idle_t *handle)
{
    tick(handle->data);
}

/* What has changed of who has which name. */
static void note_names(struct lkd_daemon *daemon)
{
    struct lkd_name_change change;
    while (lkd_core_next_name_change(daemon->core, &change)) {
        struct lkd_names_owner owner = {.pid = 0};
        if (change.present &&
            !lkd_processes_describe(&daemon->processes, change.process, &owner.key, &owner.pid))
            change.present = false;
        int r = lkd_names_note(daemon->options.names, &change, &owner);
        if (r < 0 && !daemon->names_failed)
            lkd_log_line(LKD_LOG_WARNING,
                         "cannot write %s.names: %s; should this broker be lost, the next one may "
                         "give a name away that a client still uses",
                         daemon->instance->path, strerror(-r));
        daemon->names_failed = r < 0;
    }
}

void lkd_daemon_settle(struct lkd_daemon *daemon)
{
    struct lkd_effect effect;
    if (daemon->settling)
        return; /* an effect came back here; the loop below goes on with what it caused */
    daemon->settling = true;
    while (lkd_core_next_wake(daemon->core, &effect))
        lkd_effect_carry_out(daemon, &effect);
    note_names(daemon); /* before anybody is told that it has one */
    while (lkd_core_next_effect(daemon->core, &effect))
        lkd_effect_carry_out(daemon, &effect);
    note_names(daemon);
    daemon->settling = false;

    uint64_t due_ns = lkd_core_deadline_ns(daemon->core);
    if (due_ns == 0) {
        if (!uv_is_active((uv_handle_t *)&daemon->worker))
            (void)uv_idle_start(&daemon->worker, on_work);
        return;
    }
    (void)uv_idle_stop(&daemon->worker);
    arm(daemon, due_ns);
}

/* --- Ending --- */

static void stop(struct lkd_daemon *daemon)
{
    daemon->stopping = true;
    uv_stop(&daemon->loop);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct lkd_daemon *daemon = handle->data;
    lkd_log_line(LKD_LOG_INFO, "ends by signal %d (%s) with %u connections", number,
                 strsignal(number), daemon->connection_count);
    stop(daemon);
}

static bool is_needed(const struct lkd_daemon *daemon)
{
    return daemon->connection_count > 0 || daemon->links != NULL || daemon->segments != NULL;
}

static void on_idle_exit(uv_timer_t *timer)
{
    struct lkd_daemon *daemon = timer->data;
    struct pollfd queue = {.fd = daemon->instance->listen_fd, .events = POLLIN};
    if (is_needed(daemon))
        return;
    if (poll(&queue, 1, 0) > 0) { /* somebody has connected and not been accepted yet */
        lkd_daemon_note_use(daemon);
        return;
    }
    lkd_log_line(LKD_LOG_INFO, "ends: nobody has been connected for %llu s, and no segment is kept",
                 (unsigned long long)(daemon->options.idle_exit_ms / 1000));
    stop(daemon);
}

void lkd_daemon_note_use(struct lkd_daemon *daemon)
{
    if (daemon->options.idle_exit_ms == 0 || daemon->stopping)
        return;
    if (is_needed(daemon))
        (void)uv_timer_stop(&daemon->idle_exit);
    else if (!uv_is_active((uv_handle_t *)&daemon->idle_exit))
        (void)uv_timer_start(&daemon->idle_exit, on_idle_exit, daemon->options.idle_exit_ms, 0);
}

/* --- Lifecycle --- */

static void on_alive(uv_timer_t *timer)
{
    const struct lkd_daemon *daemon = timer->data;
    (void)lkd_worker_tell(daemon->options.start, LKD_REQUEST_ALIVE);
}

static void on_process_ended(struct lkd_watched *process, void *user)
{
    struct lkd_daemon *daemon = user;
    lkd_links_hear_last(process); /* what it released is not what it died with */
    lkd_core_process_ended(daemon->core, lkd_watched_number(process), lki_clock_now_ns());
    tick(daemon); /* the first slice of the repair at once: most often it is all there is */
}

/* The core's may_have_released. */
static bool may_have_released(void *driver, uint64_t session)
{
    const struct lkd_connection *connection = lkd_link_connection(driver, session);
    return connection != NULL && lkd_connection_may_have_released(connection);
}

static int make_core(struct lkd_daemon *daemon)
{
    struct lkd_core_config config = {
        .broker_uid = daemon->uid,
        .broker_pid = daemon->instance->pid,
        .started_ns = lki_clock_now_ns(),
        .token_epoch_s = daemon->instance->token_epoch_s,
        .socket_path = daemon->instance->path,
        .limits = daemon->options.limits,
        .barrier = lki_barrier_make() ? lki_barrier_make : NULL,
        .may_have_released = may_have_released,
        .driver = daemon,
        .ledger = daemon->options.start->ledger,
        .grace_ns = daemon->options.grace_ms * LKI_NS_PER_MS,
        .traced_grace_ns = daemon->options.debugger_grace_ms * LKI_NS_PER_MS,
    };
    /* A few bytes are there at once or not at all: this cannot be interrupted half-way. */
    if (getrandom(&config.hash_seed, sizeof(config.hash_seed), 0) != sizeof(config.hash_seed))
        return -EIO;
    return lkd_core_new(&config, &daemon->core);
}

static void on_keeper(uv_poll_t *handle, int status, int events)
{
    (void)status;
    (void)events;
    lkd_daemon_hear_keeper(handle->data);
}

static int make_handles(struct lkd_daemon *daemon)
{
    int r = uv_loop_init(&daemon->loop);
    if (r < 0)
        return r;
    daemon->loop_open = true;
    /* None of these can fail. */
    (void)uv_idle_init(&daemon->loop, &daemon->worker);
    (void)uv_timer_init(&daemon->loop, &daemon->idle_exit);
    (void)uv_timer_init(&daemon->loop, &daemon->alive);
    (void)uv_timer_init(&daemon->loop, &daemon->listener_pause);
    daemon->worker.data = daemon;
    daemon->idle_exit.data = daemon;
    daemon->alive.data = daemon;
    daemon->listener_pause.data = daemon;
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(stop_signals); i++) {
        (void)uv_signal_init(&daemon->loop, &daemon->signals[i]);
        daemon->signals[i].data = daemon;
    }
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(stop_signals); i++) {
        r = uv_signal_start(&daemon->signals[i], on_signal, stop_signals[i]);
        if (r < 0)
            return r;
    }
    r = lkd_unread_open(daemon);
    if (r == 0)
        r = lkd_watchdog_open(&daemon->watchdog, &daemon->loop, LKD_WATCHDOG_NS);
    if (r < 0)
        return r;
    r = uv_poll_init(&daemon->loop, &daemon->keeper, daemon->options.start->request_fd);
    if (r < 0)
        return r;
    daemon->keeper_open = true;
    daemon->keeper.data = daemon;
    r = uv_poll_start(&daemon->keeper, UV_READABLE, on_keeper);
    if (r < 0)
        return r;
    daemon->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (daemon->timer_fd < 0)
        return -errno;
    r = uv_poll_init(&daemon->loop, &daemon->timer, daemon->timer_fd);
    if (r < 0)
        return r;
    daemon->timer_open = true;
    daemon->timer.data = daemon;
    return uv_poll_start(&daemon->timer, UV_READABLE, on_timer);
}

/* An eighth of the descriptor table may wait for clients that do not receive. */
static uint64_t choose_fds_queued_max(void)
{
    struct rlimit files;
    return getrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_cur / 8 : UINT64_MAX;
}

int lkd_daemon_init(struct lkd_daemon *daemon, struct lkd_instance *instance,
                    const struct lkd_daemon_options *options)
{
    memset(daemon, 0, sizeof(*daemon));
    daemon->instance = instance;
    daemon->options = *options;
    daemon->uid = geteuid();
    daemon->spare_fd = -1;
    daemon->timer_fd = -1;
    daemon->unread_fd = -1;
    daemon->timer_due_ns = LKI_TIME_NEVER;
    daemon->slice_locks = SLICE_LOCKS_FIRST;
    lki_list_init(&daemon->connections);
    daemon->fds_queued_max = choose_fds_queued_max();
    lkd_processes_init(&daemon->processes, &daemon->loop, on_process_ended, daemon);
    int r = make_core(daemon);
    bool successor = r == 0 && lkd_core_is_successor(daemon->core);
    struct lkd_strays strays = {.fds = NULL};
    if (successor) {
        lkd_core_blame(daemon->core, options->start->faulty);
        /* before anything of ours is among them */
        r = lkd_takeover_survey(daemon->core, options->start->kept, options->start->kept_count,
                                options->ready_fd, &strays);
    }
    if (r == 0)
        r = make_handles(daemon);
    if (r == 0 && successor)
        r = lkd_takeover(daemon, &strays);
    lkd_strays_deinit(&strays);
    if (r == 0)
        r = lkd_reserve_names(daemon);
    if (r == 0)
        r = lkd_listener_start(daemon);
    return r;
}

/* After a request the next one is often near: its sender has the answer already. Ends when there was none for a
 * while. */
static void look_for_more(struct lkd_daemon *daemon)
{
    bool came = !lki_has_one_processor();
    while (came && !daemon->stopping && lki_spin_begin(&daemon->spin, lki_clock_now_ns())) {
        uint64_t records = daemon->records;
        do {
            (void)uv_run(&daemon->loop, UV_RUN_NOWAIT);
            came = daemon->records != records;
        } while (!came && !daemon->stopping &&
                 lki_spin_go_on(&daemon->spin, lki_clock_now_ns(), false));
        lki_spin_end(&daemon->spin, came);
    }
}

void lkd_daemon_run(struct lkd_daemon *daemon)
{
    if (daemon->options.ready_fd >= 0) {
        while (write(daemon->options.ready_fd, "\n", 1) < 0 && errno == EINTR)
            continue; /* of other errors: nobody may be waiting */
        daemon->options.ready_fd = lki_close(daemon->options.ready_fd);
    }
    struct lkd_ledger_header *header = daemon->options.start->ledger;
    atomic_store_explicit(&header->serving, 1, memory_order_relaxed); /* for the keeper's eyes */
    (void)lkd_worker_tell(daemon->options.start, LKD_REQUEST_SERVING);
    if (daemon->options.alive_interval_ms != 0)
        (void)uv_timer_start(&daemon->alive, on_alive, daemon->options.alive_interval_ms,
                             daemon->options.alive_interval_ms);
    lkd_daemon_note_use(daemon);
    while (!daemon->stopping) {
        uint64_t records = daemon->records;
        (void)uv_run(&daemon->loop, UV_RUN_ONCE);
        if (daemon->records != records)
            look_for_more(daemon);
    }
}

static void on_patience_over(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void close_handles(struct lkd_daemon *daemon)
{
    lkd_listener_close(daemon);
    uv_close((uv_handle_t *)&daemon->worker, NULL);
    uv_close((uv_handle_t *)&daemon->idle_exit, NULL);
    uv_close((uv_handle_t *)&daemon->alive, NULL);
    uv_close((uv_handle_t *)&daemon->listener_pause, NULL);
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(stop_signals); i++)
        uv_close((uv_handle_t *)&daemon->signals[i], NULL);
    lkd_unread_close(daemon);
    lkd_watchdog_close(&daemon->watchdog);
    if (daemon->keeper_open)
        uv_close((uv_handle_t *)&daemon->keeper, NULL);
    if (daemon->timer_open)
        uv_close((uv_handle_t *)&daemon->timer, NULL);
}

/* Runs the loop until every close callback has come and no helper is at work; false when one hangs.
 */
static bool drain_loop(struct lkd_daemon *daemon)
{
    uv_timer_t patience;
    (void)uv_timer_init(&daemon->loop, &patience);
    (void)uv_timer_start(&patience, on_patience_over, STOP_PATIENCE_MS, 0);
    uv_unref((uv_handle_t *)&patience);
    (void)uv_run(&daemon->loop, UV_RUN_DEFAULT);
    bool done = daemon->works == 0;
    uv_close((uv_handle_t *)&patience, NULL);
    if (done)
        (void)uv_run(&daemon->loop, UV_RUN_DEFAULT);
    return done && uv_loop_close(&daemon->loop) == 0;
}

bool lkd_daemon_deinit(struct lkd_daemon *daemon)
{
    bool clean = true;
    daemon->stopping = true;
    daemon->settling = true; /* effects are of no use to anybody any more */
    daemon->options.ready_fd = lki_close(daemon->options.ready_fd);
    if (daemon->loop_open) {
        lkd_links_deinit(daemon);
        lkd_reservers_deinit(daemon);
        daemon->core = lkd_core_free(daemon->core); /* before the memory that it looks at */
        lkd_effects_deinit(daemon);
        close_handles(daemon);
        clean = drain_loop(daemon);
    }
    daemon->timer_fd = lki_close(daemon->timer_fd);
    daemon->unread_fd = lki_close(daemon->unread_fd);
    return clean;
}
