/* SPDX-License-Identifier: MIT */
#include "broker/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#define AUTOSTARTED_IDLE_EXIT_S 30

enum { /* options without a letter */
       OPTION_MODE = 256,
       OPTION_IDLE_EXIT,
       OPTION_READY_FD,
       OPTION_AUTOSTARTED,
       OPTION_LOG_LEVEL,
       OPTION_LIMIT,
       OPTION_NO_PEERPIDFD,
       OPTION_NO_SANDBOX,
       OPTION_UPGRADE,
       OPTION_RESUME,
       OPTION_ACCEPTS,
       OPTION_GRACE,
       OPTION_DEBUGGER_GRACE,
};

static const char help_text[] =
    "Usage: lockkeeperd [options]\n"
    "\n"
    "The broker of lockkeeper: hands out shared memory by name and cleans up after the dead.\n"
    "Runs in the foreground until SIGTERM. Clients start one by themselves when they need it.\n"
    "\n"
    "      --socket PATH        listen here (default: $LOCKKEEPER_SOCKET, else\n"
    "                           /run/user/UID/lockkeeper/broker.sock, else a directory\n"
    "                           of mode 0700 below /tmp)\n"
    "      --mode OCTAL         permission bits of the socket (default 0600: only your own\n"
    "                           processes and root's)\n"
    "      --idle-exit SECONDS  end when nobody has been connected for so long and no\n"
    "                           segment is kept; 0: never (default: never, with\n"
    "                           --autostarted 30)\n"
    "      --limit WHAT=N       what all users share, at most: sessions (default 16384),\n"
    "                           segments (16384), bytes (2^49; K, M, G and T may follow),\n"
    "                           locks (2^24), attachments (2^20) or waits (65536). A user\n"
    "                           other than yours and root gets half, less if there are more\n"
    "      --ready-fd N         write one byte to this descriptor when listening\n"
    "      --autostarted        detach from whoever started this: own session, log in\n"
    "                           PATH.log\n"
    "      --log-level LEVEL    error, warning, info (default) or debug\n"
    "      --upgrade            ask the broker that runs to become the program that is\n"
    "                           installed now: no connection ends, no lock changes hands\n"
    "      --no-sandbox         let the worker do what the user may, for debuggers\n"
    "      --no-peerpidfd       as on a kernel without SO_PEERPIDFD, for tests\n"
    "      --grace MS           from SIGTERM to SIGKILL when a lease is over, for tests\n"
    "                           (default 2000)\n"
    "      --debugger-grace MS  the same while a debugger has stopped the process, for\n"
    "                           tests (default 60000)\n"
    "  -h, --help               this text\n"
    "  -V, --version            the version\n"
    "\n"
    "Exit codes: 0 ended by a signal or idle; 64 usage; 66 no such directory; 71 system error;\n"
    "73 the path is taken by something that is no socket; 75 another broker runs there;\n"
    "77 not permitted.\n";

/* A whole number without sign, in this base. Returns false when it is anything else. */
static bool parse_number(const char *text, int base, unsigned long long max,
                         unsigned long long *out_number)
{
    char *end;
    if (text[0] < '0' || text[0] > '9') /* strtoull() takes blanks and signs */
        return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, base);
    if (errno != 0 || *end != '\0' || number > max)
        return false;
    *out_number = number;
    return true;
}

static bool usage_error(const char *option, const char *value, const char *what)
{
    fprintf(stderr, "lockkeeperd: %s '%s': %s; see lockkeeperd --help\n", option, value, what);
    return false;
}

/* A number of this resource above 0; bytes may have a suffix. */
static bool parse_amount(const char *text, enum lkd_resource resource, unsigned long long *out)
{
    static const char suffixes[] = "KMGT";
    unsigned long long max = lkd_resource_ceiling(resource);
    char digits[24];
    unsigned shift = 0;
    size_t length = strlen(text);

    if (length == 0 || length >= sizeof(digits))
        return false;
    memcpy(digits, text, length + 1);
    const char *suffix = strchr(suffixes, digits[length - 1]);
    if (suffix != NULL && resource == LKD_BYTES) {
        digits[length - 1] = '\0';
        shift = 10 * (unsigned)(suffix - suffixes + 1);
    }
    if (!parse_number(digits, 10, max >> shift, out) || *out == 0)
        return false;
    *out <<= shift;
    return true;
}

/* WHAT=N */
static bool parse_limit(const char *value, struct lkd_limits *limits)
{
    size_t name_bytes = strcspn(value, "=");
    for (int resource = 0; resource < LKD_RESOURCES; resource++) {
        const char *name = lkd_resource_name((enum lkd_resource)resource);
        unsigned long long amount;
        if (value[name_bytes] == '\0' || strlen(name) != name_bytes ||
            strncmp(value, name, name_bytes) != 0)
            continue;
        if (!parse_amount(value + name_bytes + 1, (enum lkd_resource)resource, &amount))
            return false;
        limits->max[resource] = amount;
        return true;
    }
    return false;
}

static bool parse_grace(const char *option, const char *value, uint64_t *out_ms)
{
    unsigned long long number;
    if (!parse_number(value, 10, 3600000, &number) || number == 0)
        return usage_error(option, value, "not a number of milliseconds from 1 to 3600000");
    *out_ms = number;
    return true;
}

static bool parse_option(int option, const char *value, struct lkd_options *options)
{
    unsigned long long number = 0;
    switch (option) {
    case 's':
        options->socket_path = value;
        return true;
    case OPTION_MODE:
        if (!parse_number(value, 8, 0777, &number))
            return usage_error("--mode", value, "not an octal number from 0 to 0777");
        options->mode = (mode_t)number;
        return true;
    case OPTION_IDLE_EXIT:
        if (!parse_number(value, 10, UINT32_MAX, &number))
            return usage_error("--idle-exit", value, "not a number of seconds");
        options->idle_exit_s = number;
        options->idle_exit_given = true;
        return true;
    case OPTION_READY_FD:
        if (!parse_number(value, 10, INT_MAX, &number))
            return usage_error("--ready-fd", value, "not a descriptor's number");
        options->ready_fd = (int)number;
        return true;
    case OPTION_AUTOSTARTED:
        options->autostarted = true;
        return true;
    case OPTION_LOG_LEVEL:
        if (lkd_log_level_parse(value, &options->log_level) < 0)
            return usage_error("--log-level", value, "not one of error, warning, info, debug");
        return true;
    case OPTION_LIMIT:
        if (!parse_limit(value, &options->limits))
            return usage_error("--limit", value,
                               "not WHAT=N with N above 0 and within reach, and WHAT one of "
                               "sessions, segments, bytes, locks, attachments, waits");
        return true;
    case OPTION_GRACE:
        return parse_grace("--grace", value, &options->grace_ms);
    case OPTION_DEBUGGER_GRACE:
        return parse_grace("--debugger-grace", value, &options->debugger_grace_ms);
    case OPTION_NO_PEERPIDFD:
        options->no_peerpidfd = true;
        return true;
    case OPTION_UPGRADE:
        options->upgrade = true;
        return true;
    case OPTION_RESUME:
        if (!parse_number(value, 10, INT_MAX, &number))
            return usage_error("--resume", value, "not a descriptor's number");
        options->resume_fd = (int)number;
        return true;
    case OPTION_ACCEPTS:
        if (!parse_number(value, 10, UINT32_MAX, &number) || number == 0)
            return usage_error("--accepts", value, "not a version");
        options->accepts = number;
        return true;
    case OPTION_NO_SANDBOX:
        options->no_sandbox = true;
        return true;
    default: /* getopt_long() has said what is wrong */
        return false;
    }
}

bool lkd_options_parse(int argc, char **argv, struct lkd_options *out_options, int *out_exit_code)
{
    static const struct option table[] = {
        {"socket", required_argument, NULL, 's'},
        {"mode", required_argument, NULL, OPTION_MODE},
        {"idle-exit", required_argument, NULL, OPTION_IDLE_EXIT},
        {"ready-fd", required_argument, NULL, OPTION_READY_FD},
        {"autostarted", no_argument, NULL, OPTION_AUTOSTARTED},
        {"limit", required_argument, NULL, OPTION_LIMIT},
        {"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
        {"no-peerpidfd", no_argument, NULL, OPTION_NO_PEERPIDFD},
        {"upgrade", no_argument, NULL, OPTION_UPGRADE},
        {"resume", required_argument, NULL, OPTION_RESUME},
        {"accepts", required_argument, NULL, OPTION_ACCEPTS},
        {"no-sandbox", no_argument, NULL, OPTION_NO_SANDBOX},
        {"grace", required_argument, NULL, OPTION_GRACE},
        {"debugger-grace", required_argument, NULL, OPTION_DEBUGGER_GRACE},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    struct lkd_options options = {
        .mode = 0600, .ready_fd = -1, .resume_fd = -1, .log_level = LKD_LOG_INFO};
    int option;
    while ((option = getopt_long(argc, argv, "hV", table, NULL)) != -1) {
        if (option == 'h' || option == 'V') {
            fputs(option == 'h' ? help_text : "lockkeeperd " LKD_VERSION "\n", stdout);
            *out_exit_code = 0;
            return false;
        }
        if (!parse_option(option, optarg, &options)) {
            *out_exit_code = EX_USAGE;
            return false;
        }
    }
    if (optind < argc) {
        *out_exit_code = EX_USAGE;
        return usage_error("argument", argv[optind], "not expected");
    }
    if (options.autostarted && !options.idle_exit_given)
        options.idle_exit_s = AUTOSTARTED_IDLE_EXIT_S;
    *out_options = options;
    return true;
}
