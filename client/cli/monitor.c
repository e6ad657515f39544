/* SPDX-License-Identifier: MIT */
/* lockkeeper monitor: what happens at the broker, one line per event. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "client/admin.h"
#include "client/cli/cli.h"
#include "client/cli/json.h"
#include "client/cli/text.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"
#include "common/printable.h"

static const char help[] =
    "Usage: lockkeeper monitor [options]\n"
    "\n"
    "Prints what happens at the broker, a line for each event, until it is interrupted: sessions "
    "and\n"
    "processes that come and end, segments and who attaches to them, locks whose owner died "
    "inside,\n"
    "waits that last longer than a moment, deadlocks, refused quotas and dropped connections.\n"
    "\n"
    "Locks that nobody has to wait for are taken and released in shared memory: the broker does "
    "not\n"
    "see them, and they are not shown. Only what you may see is: segments that you may read, and "
    "the\n"
    "sessions of your own user; to root and to the broker's user, everything. Who reads too "
    "slowly\n"
    "loses events, and is told how many.\n"
    "\n"
    "      --segment NAME  only what is about this segment, which need not exist yet\n"
    "      --count N       end after N events\n"
    "      --json          JSON lines, schema lockkeeper.monitor/1\n"
    "      --socket PATH   the broker to watch; see 'lockkeeper where'\n"
    "  -q, --quiet         no line on stderr once it watches\n"
    "  -h, --help          show this help\n"
    "  -V, --version       show the version\n"
    "\n"
    "EXIT STATUS\n"
    "  0 interrupted, or --count reached, or nobody reads the output any more; 64 wrong usage;\n"
    "  66 no broker, or it has gone; 71 system error, or too many watch already; 76 protocol\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper monitor --segment jobs\n"
    "  lockkeeper monitor --json | jq 'select(.event == \"lock-damaged\")'\n";

enum { OPTION_SEGMENT = LKI_OPTION_OWN, OPTION_COUNT };

static const struct option long_options[] = {
    {"segment", required_argument, NULL, OPTION_SEGMENT},
    {"count", required_argument, NULL, OPTION_COUNT},
    LKI_OPTIONS_READ,
    {NULL, 0, NULL, 0},
};

/* One event with its texts copied and made fit to be printed. */
struct event {
    const struct lki_event *is;
    char *command, *name, *lock_name, *text;
    char *label;      /* as `run` takes it, or the segment's name; NULL: about none */
    const char *user; /* its name */
    uint64_t wall_ns; /* when_ns on the clock of people */
};

/* --- Words --- */

static const char *kind_text(uint32_t kind)
{
    static const char *const texts[] = {
        [LKI_EVENT_SESSION_OPENED] = "session-opened",
        [LKI_EVENT_SESSION_LOST] = "session-lost",
        [LKI_EVENT_SESSION_ENDED] = "session-ended",
        [LKI_EVENT_PROCESS_ENDED] = "process-ended",
        [LKI_EVENT_SEGMENT_CREATED] = "segment-created",
        [LKI_EVENT_SEGMENT_PUBLISHED] = "segment-published",
        [LKI_EVENT_SEGMENT_GROWN] = "segment-grown",
        [LKI_EVENT_SEGMENT_REMOVED] = "segment-removed",
        [LKI_EVENT_SEGMENT_ENDED] = "segment-ended",
        [LKI_EVENT_ATTACHED] = "attached",
        [LKI_EVENT_DETACHED] = "detached",
        [LKI_EVENT_LOCK_DAMAGED] = "lock-damaged",
        [LKI_EVENT_LOCK_WAITED_FOR] = "lock-waited-for",
        [LKI_EVENT_DEADLOCK] = "deadlock",
        [LKI_EVENT_QUOTA] = "quota",
        [LKI_EVENT_DROPPED] = "dropped",
    };
    return kind < sizeof(texts) / sizeof(texts[0]) && texts[kind] ? texts[kind] : "unknown";
}

/* NULL: none. */
static const char *cause_text(uint32_t cause)
{
    switch (cause) {
    case LK_CAUSE_EXITED:
        return "exited";
    case LK_CAUSE_CLOSED:
        return "closed";
    case LK_CAUSE_FORCED:
        return "forced";
    default:
        return NULL;
    }
}

static bool has_lock(const struct lki_event *event)
{
    return event->kind == LKI_EVENT_LOCK_DAMAGED || event->kind == LKI_EVENT_LOCK_WAITED_FOR ||
           event->kind == LKI_EVENT_DEADLOCK;
}

static bool has_size(const struct lki_event *event)
{
    return event->kind == LKI_EVENT_SEGMENT_CREATED || event->kind == LKI_EVENT_SEGMENT_GROWN;
}

static uint64_t wall_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * LKI_NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Looked up again only when it changes: a flood of events is of few users. */
static const char *user_text(uint32_t uid)
{
    static struct lki_text text;
    static uint32_t known = UINT32_MAX;
    if (!text.text[0] || uid != known) {
        text = lki_text_user(uid);
        known = uid;
    }
    return text.text;
}

static char *copy_text(struct lki_bytes bytes)
{
    char *text = strndup(bytes.length_bytes ? (const char *)bytes.data : "", bytes.length_bytes);
    return text ? lki_printable(text) : NULL;
}

static void event_deinit(struct event *event)
{
    free(event->command);
    free(event->name);
    free(event->lock_name);
    free(event->text);
    free(event->label);
}

/* False: no memory. Call event_deinit() either way. */
static bool event_read(const struct lki_event *is, struct event *out)
{
    *out = (struct event){.is = is, .user = user_text(is->uid)};
    out->wall_ns = wall_now_ns() - (lki_clock_now_ns() - is->when_ns);
    out->command = copy_text(is->command);
    out->name = copy_text(is->name);
    out->lock_name = copy_text(is->lock_name);
    out->text = copy_text(is->text);
    if (!out->command || !out->name || !out->lock_name || !out->text)
        return false;
    if (*out->name == '\0')
        return true;
    out->label = lki_text_lock_label(out->name, has_lock(is) ? is->lock : 0,
                                     has_lock(is) ? out->lock_name : NULL);
    return out->label;
}

/* --- Lines --- */

static void print_clock(const struct event *event)
{
    time_t seconds = (time_t)(event->wall_ns / LKI_NS_PER_S);
    struct tm local;
    char clock[16];
    localtime_r(&seconds, &local);
    strftime(clock, sizeof(clock), "%H:%M:%S", &local);
    printf("%s.%03u ", clock, (unsigned)(event->wall_ns / LKI_NS_PER_MS % 1000));
}

static void print_line(const struct event *event)
{
    const struct lki_event *is = event->is;
    if (is->lost > 0) {
        print_clock(event);
        printf("%-17s %" PRIu64 " events, since this reader was too slow\n", "lost", is->lost);
    }
    print_clock(event);
    printf("%-17s", kind_text(is->kind));
    if (event->label)
        printf(" '%s'", event->label);
    if (is->pid != 0)
        printf(" %s[%" PRId32 "]", *event->command ? event->command : "?", is->pid);
    printf(" (%s)", event->user);
    const char *divider = ": ";
    if (has_size(is)) {
        printf("%s%" PRIu64 " bytes", divider, is->size_bytes);
        divider = ", ";
    }
    if (cause_text(is->cause)) {
        printf("%s%s", divider, cause_text(is->cause));
        divider = ", ";
    }
    if (is->token) {
        printf("%stoken %" PRIu64, divider, is->token);
        divider = ", ";
    }
    printf("%s%s\n", *event->text ? divider : "", event->text);
}

/* "2026-11-24T19:12:31.123Z" */
static void format_time(uint64_t wall_ns, char *out_text, size_t bytes)
{
    time_t seconds = (time_t)(wall_ns / LKI_NS_PER_S);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    size_t used = strftime(out_text, bytes, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out_text + used, bytes - used, ".%03uZ", (unsigned)(wall_ns / LKI_NS_PER_MS % 1000));
}

static const char *or_null(const char *text)
{
    return text && *text ? text : NULL;
}

/* Returns 0 or -ENOMEM. */
static int print_json_line(const struct event *event)
{
    const struct lki_event *is = event->is;
    bool lock = has_lock(is);
    char at[32];
    format_time(event->wall_ns, at, sizeof(at));
    LKI_CLEANUP(lki_free_p)
    char *line = NULL;
    json_t *document = json_pack(
        "{s:s, s:s, s:s, s:o, s:o, s:I, s:s, s:s?, s:o, s:s?, s:s?, s:o, s:s?, s:o, s:s?, s:o, "
        "s:s?, s:o}",
        "schema", "lockkeeper.monitor/1", "event", kind_text(is->kind), "time", at, "when_ns",
        lki_json_number(is->when_ns), "pid", lki_json_known((uint32_t)is->pid), "uid",
        (json_int_t)is->uid, "user", event->user, "command", or_null(event->command), "session",
        lki_json_known(is->session), "name", event->label, "segment", or_null(event->name), "lock",
        lock ? lki_json_number(is->lock) : json_null(), "lock_name", or_null(event->lock_name),
        "token", lki_json_known(is->token), "cause", cause_text(is->cause), "size_bytes",
        has_size(is) ? lki_json_number(is->size_bytes) : json_null(), "text", or_null(event->text),
        "lost", lki_json_number(is->lost));
    if (document)
        line = json_dumps(document, JSON_COMPACT);
    json_decref(document);
    if (!line)
        return -ENOMEM;
    puts(line);
    return 0;
}

/* --- Watching --- */

struct watch {
    const struct lki_cli *cli;
    struct lk_session *session;
    const char *segment; /* NULL: all */
    uint64_t left;       /* events still to be printed; UINT64_MAX: no end */
    int signal_fd;
};

/* Writes what was printed once there is room for it: a reader that has stopped must not keep signals
 * from ending us. Returns -1 to carry on, else the exit code. */
static int write_out(const struct watch *watch)
{
    struct pollfd fds[] = {
        {.fd = STDOUT_FILENO, .events = POLLOUT},
        {.fd = watch->signal_fd, .events = POLLIN},
    };
    while (poll(fds, 2, -1) < 0)
        if (errno != EINTR)
            break; /* writing tells */
    if (fds[1].revents && !fds[0].revents) {
        __fpurge(stdout);
        return LKI_EXIT_OK;
    }
    if (fflush(stdout) == 0)
        return -1;
    if (errno == EPIPE)
        return LKI_EXIT_OK;
    lki_cli_complain("cannot write to standard output: %s", strerror(errno));
    return LKI_EXIT_OS;
}

/* Prints it at once: who reads a pipe wants to see it now. Returns -1 to carry on, else the exit
 * code. */
static int print_event(struct watch *watch, const struct lki_event *is)
{
    struct event event;
    int r = event_read(is, &event) ? 0 : -ENOMEM;
    if (r == 0 && watch->cli->json)
        r = print_json_line(&event);
    else if (r == 0)
        print_line(&event);
    event_deinit(&event);
    if (r < 0) {
        lki_cli_complain("monitor: no memory for an event");
        return LKI_EXIT_OS;
    }
    int code = write_out(watch);
    if (code >= 0)
        return code;
    if (watch->left != UINT64_MAX)
        watch->left--;
    return watch->left == 0 ? LKI_EXIT_OK : -1;
}

/* Prints what has come. Returns as above. */
static int print_events(struct watch *watch)
{
    for (;;) {
        struct lki_event event;
        int r = lki_admin_next_event(watch->session, &event);
        if (r < 0)
            return lki_cli_refusal(r);
        if (r == 0)
            return -1;
        if (r == 2) {
            lki_cli_complain("monitor: the broker's worker was replaced; what happened meanwhile "
                             "does not show");
            r = lki_admin_monitor(watch->session, watch->segment);
            if (r < 0)
                return lki_cli_refusal(r);
            continue;
        }
        int code = print_event(watch, &event);
        if (code >= 0)
            return code;
    }
}

static int follow(struct watch *watch)
{
    struct pollfd fds[] = {
        {.fd = lki_admin_socket(watch->session), .events = POLLIN},
        {.fd = watch->signal_fd, .events = POLLIN},
        {.fd = STDOUT_FILENO}, /* of a pipe: that nobody reads any more */
    };
    for (;;) {
        if (poll(fds, 3, -1) < 0) {
            if (errno == EINTR)
                continue;
            lki_cli_complain("monitor: cannot wait for events: %s", strerror(errno));
            return LKI_EXIT_OS;
        }
        if (fds[1].revents || fds[2].revents & (POLLERR | POLLHUP))
            return LKI_EXIT_OK;
        int code = fds[0].revents ? print_events(watch) : -1;
        if (code >= 0)
            return code;
    }
}

/* Signals that end it come as something to read, so that no line is cut in two. */
static int take_signals(int *out_fd)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    *out_fd = signalfd(-1, &set, SFD_CLOEXEC);
    if (*out_fd >= 0)
        return 0;
    lki_cli_complain("monitor: cannot wait for signals: %s", strerror(errno));
    return LKI_EXIT_OS;
}

static int watch_broker(struct watch *watch)
{
    LKI_CLEANUP(lki_cli_close_session) struct lk_session *session = NULL;
    LKI_CLEANUP(lki_close_p) int signal_fd = -1;
    int code = take_signals(&signal_fd);
    if (code == 0)
        code = lki_cli_open(watch->cli, false, &session);
    if (code > 0)
        return code;
    int r = lki_admin_monitor(session, watch->segment);
    if (r < 0)
        return lki_cli_refusal(r);
    if (!watch->cli->quiet)
        lki_cli_complain("monitor: watching; locks that nobody has to wait for do not show");
    static char lines[64 * 1024]; /* one line of each kind is shorter */
    (void)setvbuf(stdout, lines, _IOFBF, sizeof(lines));
    watch->session = session;
    watch->signal_fd = signal_fd;
    return follow(watch);
}

int lki_cli_monitor(struct lki_cli *cli, int argc, char **argv)
{
    struct watch watch = {.cli = cli, .left = UINT64_MAX, .signal_fd = -1};
    int option;
    while ((option = getopt_long(argc, argv, "qhV", long_options, NULL)) != -1) {
        int code = -1;
        if (option == OPTION_SEGMENT)
            watch.segment = optarg;
        else if (option != OPTION_COUNT)
            code = lki_cli_common_option(cli, option, help);
        else if (lki_text_parse_count(optarg, UINT64_MAX - 1, &watch.left) < 0 || watch.left == 0)
            code = lki_cli_usage(cli, "--count is a number from 1 on, not '%s'", optarg);
        if (code >= 0)
            return code;
    }
    if (optind != argc)
        return lki_cli_usage(cli, "too many arguments");
    return watch_broker(&watch);
}
