/* SPDX-License-Identifier: MIT */
#include "client/cli/run_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/text.h"

static const char help[] =
    "Usage: lockkeeper run [options] NAME COMMAND [ARGUMENT...]\n"
    "       lockkeeper run [options] NAME -c 'SHELL COMMAND'\n"
    "       lockkeeper run [options] -l NAME[:s|x] [-l NAME[:s|x]]... [--] COMMAND [ARGUMENT...]\n"
    "\n"
    "Takes one or several locks, then becomes COMMAND. The locks last until that process has "
    "ended,\n"
    "however it ends; a daemon that it leaves behind does not keep them.\n"
    "\n"
    "  -l, --lock NAME[:s|x]   a lock to take, shared or exclusive; repeat for several, which are\n"
    "                          taken in sorted order. NAME, NAME#3 or NAME#orders\n"
    "  -s, --shared            take shared locks (where -l does not say otherwise)\n"
    "  -x, -e, --exclusive     take exclusive locks (the default)\n"
    "  -n, --nb, --nonblock    fail at once if a lock is held by somebody else\n"
    "  -w, --wait SECONDS      wait at most so long for all of them; fractions are fine, 0 means "
    "-n\n"
    "  -E, --conflict-exit-code CODE  exit code of -n and -w when a lock is held (default 1)\n"
    "  -c, --command STRING    run STRING by $SHELL -c, or /bin/sh -c if SHELL is not set\n"
    "  -F, --no-fork           accepted: run never forks, the command takes its place\n"
    "  -o, --close             accepted: there is no descriptor that the command could inherit\n"
    "      --verbose           say what is waited for, and for how long it was\n"
    "      --socket PATH       the broker to use; see 'lockkeeper where'\n"
    "  -q, --quiet             say nothing when giving up\n"
    "  -h, --help              show this help\n"
    "  -V, --version           show the version\n"
    "\n"
    "The command finds its fencing token in LOCKKEEPER_FENCE; with several locks their tokens, in "
    "the\n"
    "order of the -l options, separated by spaces. There is no -u: a lock cannot be given back "
    "before\n"
    "the command has ended.\n"
    "\n"
    "EXIT STATUS\n"
    "  the command's own; 1 (or -E CODE) held by somebody else; 64 wrong usage; 66 no broker;\n"
    "  69 the command cannot be executed; 71 system error; 75 lock lost, or deadlock; 76 "
    "protocol;\n"
    "  77 not permitted. Without the lock the command is never run.\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper run -n backup -- ./backup.sh     one at a time, for cron\n"
    "  lockkeeper run -w 5 -E 75 backup ./job      wait five seconds\n"
    "  lockkeeper run -s config cat app.conf       many readers at once\n"
    "  lockkeeper run -l disk:x -l config:s ./job  two locks, no deadlock\n";

static const struct option long_options[] = {
    {"lock", required_argument, NULL, 'l'},
    {"shared", no_argument, NULL, 's'},
    {"exclusive", no_argument, NULL, 'x'},
    {"unlock", no_argument, NULL, 'u'},
    {"nonblock", no_argument, NULL, 'n'},
    {"nonblocking", no_argument, NULL, 'n'},
    {"nb", no_argument, NULL, 'n'},
    {"wait", required_argument, NULL, 'w'},
    {"timeout", required_argument, NULL, 'w'},
    {"conflict-exit-code", required_argument, NULL, 'E'},
    {"command", required_argument, NULL, 'c'},
    {"no-fork", no_argument, NULL, 'F'},
    {"close", no_argument, NULL, 'o'},
    {"verbose", no_argument, NULL, LKI_OPTION_OWN},
    LKI_OPTIONS_COMMON,
    {NULL, 0, NULL, 0},
};

/* What the options said, before it is put together. */
struct raw_options {
    enum lk_mode mode;
    bool nonblock;
    bool no_fork;
    bool close;
    const char *shell_string;
};

static int add_lock(const struct lki_cli *cli, struct lki_run_options *options, const char *text)
{
    struct lki_run_lock *locks =
        reallocarray(options->locks, options->lock_count + 1, sizeof(*locks));
    if (!locks) {
        lki_cli_complain("run: out of memory");
        return LKI_EXIT_OS;
    }
    options->locks = locks;
    struct lki_run_lock *lock = &locks[options->lock_count];
    *lock = (struct lki_run_lock){.place = options->lock_count};
    options->lock_count++;
    lock->label = strdup(text);
    if (!lock->label)
        goto no_memory;

    size_t length = strlen(text);
    /* Only :s and :x at the end count: a name may well contain colons. */
    if (length > 2 && text[length - 2] == ':' && strchr("sx", text[length - 1])) {
        lock->mode = text[length - 1] == 's' ? LK_SHARED : LK_EXCLUSIVE;
        lock->label[length - 2] = '\0';
    }
    lock->segment = strdup(lock->label);
    if (!lock->segment)
        goto no_memory;
    int64_t index;
    const char *lock_name;
    bool by_index = lki_text_split_label(lock->segment, &lock_name, &index);
    if (by_index && index < 0)
        return lki_cli_usage(cli, "'%s': no lock has such a number", lock->label);
    lock->lock_name = by_index ? NULL : lock_name;
    lock->index = (uint32_t)index;
    return -1;

no_memory:
    lki_cli_complain("run: out of memory");
    return LKI_EXIT_OS;
}

static int parse_conflict_code(const struct lki_cli *cli, const char *text, int *out_code)
{
    uint64_t code;
    int r = lki_text_parse_count(text, 255, &code);
    if (r == -ERANGE || text[0] == '-')
        return lki_cli_usage(cli, "-E %s: exit code out of range (expected 0 to 255)", text);
    if (r < 0)
        return lki_cli_usage(cli, "-E %s: not an exit code", text);
    *out_code = (int)code;
    return -1;
}

static int parse_wait(const struct lki_cli *cli, const char *text, uint64_t *out_timeout_ns)
{
    int r = lki_text_parse_seconds(text, out_timeout_ns);
    if (r == -ERANGE)
        return lki_cli_usage(
            cli, "-w %s: out of range (0 and more seconds, or no -w at all to wait for ever)",
            text);
    if (r < 0)
        return lki_cli_usage(cli, "-w %s: not a number of seconds", text);
    return -1;
}

static int parse_option(struct lki_cli *cli, int option, struct raw_options *raw,
                        struct lki_run_options *options)
{
    switch (option) {
    case 'l':
        return add_lock(cli, options, optarg);
    case 's':
        raw->mode = LK_SHARED;
        return -1;
    case 'x':
    case 'e':
        raw->mode = LK_EXCLUSIVE;
        return -1;
    case 'n':
        raw->nonblock = true;
        return -1;
    case 'w':
        return parse_wait(cli, optarg, &options->timeout_ns);
    case 'E':
        return parse_conflict_code(cli, optarg, &options->conflict_code);
    case 'c':
        raw->shell_string = optarg;
        return -1;
    case 'F':
        raw->no_fork = true;
        return -1;
    case 'o':
        raw->close = true;
        return -1;
    case 'u':
        return lki_cli_usage(cli, "-u: there is no descriptor to unlock; a lock of 'run' ends with "
                                  "its command, nothing earlier and nobody else");
    case LKI_OPTION_OWN:
        options->verbose = true;
        return -1;
    default:
        return lki_cli_common_option(cli, option, help);
    }
}

/* After the options: [NAME] [--] COMMAND..., or [NAME] -c STRING. */
static int parse_command(struct lki_cli *cli, int argc, char **argv, struct raw_options *raw,
                         struct lki_run_options *options)
{
    int next = optind;
    bool named_here = options->lock_count == 0;
    if (named_here) {
        if (next == argc)
            return lki_cli_usage(cli, "no lock given");
        int code = add_lock(cli, options, argv[next++]);
        if (code >= 0)
            return code;
        /* flock(1) wants -c behind the file. */
        if (next < argc &&
            (strcmp(argv[next], "-c") == 0 || strcmp(argv[next], "--command") == 0)) {
            if (raw->shell_string || argc - next != 2)
                return lki_cli_usage(cli, "-c requires exactly one command argument");
            raw->shell_string = argv[next + 1];
            next = argc;
        }
        if (next < argc && strcmp(argv[next], "--") == 0)
            next++;
    }
    if (raw->shell_string) {
        if (next < argc)
            return lki_cli_usage(cli, "-c requires exactly one command argument");
        const char *shell = getenv("SHELL");
        options->shell_command[0] = (char *)(uintptr_t)(shell && *shell ? shell : "/bin/sh");
        options->shell_command[1] = (char *)(uintptr_t) "-c";
        options->shell_command[2] = (char *)(uintptr_t)raw->shell_string;
        options->command = options->shell_command;
        return -1;
    }
    if (next < argc) {
        options->command = &argv[next];
        return -1;
    }
    const char *label = options->locks[0].label;
    if (named_here && label[strspn(label, "0123456789")] == '\0')
        return lki_cli_usage(cli,
                             "no command given, and '%s' as a descriptor has no counterpart here: "
                             "the lock belongs to a process, not to a descriptor",
                             label);
    return lki_cli_usage(cli, "no command given");
}

static int compare_locks(const void *left, const void *right)
{
    const struct lki_run_lock *a = left, *b = right;
    return strcmp(a->label, b->label);
}

static int order_locks(const struct lki_cli *cli, struct lki_run_options *options)
{
    qsort(options->locks, options->lock_count, sizeof(options->locks[0]), compare_locks);
    for (size_t i = 1; i < options->lock_count; i++)
        if (strcmp(options->locks[i - 1].label, options->locks[i].label) == 0)
            return lki_cli_usage(cli, "lock '%s' is given twice", options->locks[i].label);
    return -1;
}

int lki_run_options_parse(struct lki_cli *cli, int argc, char **argv,
                          struct lki_run_options *out_options)
{
    struct raw_options raw = {.mode = LK_EXCLUSIVE};
    *out_options = (struct lki_run_options){
        .timeout_ns = LK_WAIT_FOREVER,
        .conflict_code = LKI_EXIT_CONFLICT,
    };
    int option, code = -1;
    while ((option = getopt_long(argc, argv, "+l:sxeunw:E:c:FoqhV", long_options, NULL)) != -1) {
        code = parse_option(cli, option, &raw, out_options);
        if (code >= 0)
            return code;
    }
    code = lki_cli_check_output_options(cli, false);
    if (code > 0)
        return code;
    if (raw.no_fork && raw.close)
        return lki_cli_usage(cli, "the --no-fork and --close options are incompatible");
    code = parse_command(cli, argc, argv, &raw, out_options);
    if (code >= 0)
        return code;
    for (size_t i = 0; i < out_options->lock_count; i++)
        if (out_options->locks[i].mode == 0)
            out_options->locks[i].mode = raw.mode;
    if (raw.nonblock)
        out_options->timeout_ns = 0;
    return order_locks(cli, out_options);
}

void lki_run_options_deinit(struct lki_run_options *options)
{
    for (size_t i = 0; i < options->lock_count; i++) {
        free(options->locks[i].label);
        free(options->locks[i].segment);
    }
    free(options->locks);
    options->locks = NULL;
    options->lock_count = 0;
}
