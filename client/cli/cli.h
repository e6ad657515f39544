/* SPDX-License-Identifier: MIT */
/* What the subcommands share: the global options, the dispatch table, opening a session, and
 * refusals in the form "lockkeeper: what: why; who; next step" with an exit code of sysexits.h. One
 * thread. */
#pragma once

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

struct lk_session;

/* Exit codes, those of flock(1) where it has one. Documented in docs/lockkeeper.1. */
enum lki_cli_exit {
    LKI_EXIT_OK = 0,
    LKI_EXIT_CONFLICT = 1,     /* busy, timed out; exists, or does not exist */
    LKI_EXIT_RING = 3,         /* graph: sessions wait for each other in a ring */
    LKI_EXIT_USAGE = 64,       /* the command line, or a value on it, is wrong */
    LKI_EXIT_DATA = 65,        /* a file is not what it should be */
    LKI_EXIT_NO_BROKER = 66,   /* nobody answers at the socket */
    LKI_EXIT_CANNOT_EXEC = 69, /* run: the command cannot be executed */
    LKI_EXIT_INTERNAL = 70,
    LKI_EXIT_OS = 71,       /* the system refused: memory, descriptors, disk space */
    LKI_EXIT_LOST = 75,     /* lock lost, or chosen to end a deadlock: trying again may help */
    LKI_EXIT_PROTOCOL = 76, /* the broker speaks another version */
    LKI_EXIT_DENIED = 77,   /* not permitted */
};

struct lki_cli {
    char command[32];        /* "run", "seg ls": for messages and hints */
    char title[48];          /* "lockkeeper run": what getopt_long() starts its complaints with */
    const char *socket_path; /* --socket; NULL: found by the library */
    const char *columns;     /* -o of tables; NULL: the default ones */
    bool json;
    bool quiet;
    bool raw;
    bool no_headings;
};

/* A subcommand: gets its own arguments, argv[0] being its name; returns the exit code. */
typedef int (*lki_cli_command_fn)(struct lki_cli *cli, int argc, char **argv);

struct lki_cli_command {
    const char *name;
    const char *summary;
    lki_cli_command_fn run;
};

int lki_cli_bench(struct lki_cli *cli, int argc, char **argv);
int lki_cli_run(struct lki_cli *cli, int argc, char **argv);
int lki_cli_ls(struct lki_cli *cli, int argc, char **argv);
int lki_cli_why(struct lki_cli *cli, int argc, char **argv);
int lki_cli_where(struct lki_cli *cli, int argc, char **argv);
int lki_cli_release(struct lki_cli *cli, int argc, char **argv);
int lki_cli_graph(struct lki_cli *cli, int argc, char **argv);
int lki_cli_doctor(struct lki_cli *cli, int argc, char **argv);
int lki_cli_monitor(struct lki_cli *cli, int argc, char **argv);
int lki_cli_seg(struct lki_cli *cli, int argc, char **argv);
int lki_cli_seg_create(struct lki_cli *cli, int argc, char **argv);
int lki_cli_seg_ls(struct lki_cli *cli, int argc, char **argv);
int lki_cli_seg_stat(struct lki_cli *cli, int argc, char **argv);
int lki_cli_seg_dump(struct lki_cli *cli, int argc, char **argv);
int lki_cli_seg_rm(struct lki_cli *cli, int argc, char **argv);

/* Reads the options before a subcommand and runs it. The table ends with a NULL name; argv[0] is
 * the name of the group ("lockkeeper", "seg"). Returns the exit code. */
int lki_cli_run_group(struct lki_cli *cli, const struct lki_cli_command *table, const char *help,
                      int argc, char **argv);

/* Values of options without a short form. A subcommand's own start at LKI_OPTION_OWN. */
enum {
    LKI_OPTION_SOCKET = 256,
    LKI_OPTION_JSON,
    LKI_OPTION_RAW,
    LKI_OPTION_NO_HEADINGS,
    LKI_OPTION_OWN = 300,
};

/* Rows of `struct option` for every subcommand, for those that read, and for those that print
 * tables. */
#define LKI_OPTIONS_COMMON                                                                         \
    {"socket", required_argument, NULL, LKI_OPTION_SOCKET}, {"quiet", no_argument, NULL, 'q'},     \
        {"help", no_argument, NULL, 'h'},                                                          \
    {                                                                                              \
        "version", no_argument, NULL, 'V'                                                          \
    }
#define LKI_OPTIONS_READ                                                                           \
    LKI_OPTIONS_COMMON,                                                                            \
    {                                                                                              \
        "json", no_argument, NULL, LKI_OPTION_JSON                                                 \
    }
#define LKI_OPTIONS_TABLE                                                                          \
    LKI_OPTIONS_READ, {"raw", no_argument, NULL, LKI_OPTION_RAW},                                  \
        {"no-headings", no_argument, NULL, LKI_OPTION_NO_HEADINGS},                                \
    {                                                                                              \
        "output", required_argument, NULL, 'o'                                                     \
    }

/**
 * Handles what getopt_long() returned if it is one of the options above.
 * Returns: -1 to carry on, else the exit code with which the command ends (help and version are
 * printed, an unknown option has been complained about)
 */
int lki_cli_common_option(struct lki_cli *cli, int option, const char *help);

/* Complains about --json before a command that prints nothing to read, about -o, --raw and
 * --no-headings together with --json. Returns 0 or LKI_EXIT_USAGE. */
int lki_cli_check_output_options(const struct lki_cli *cli, bool reads);

/* Opens a session to the broker; starts one only if `autostart`. Prints the refusal itself.
 * Returns 0 or the exit code. */
int lki_cli_open(const struct lki_cli *cli, bool autostart, struct lk_session **out_session);

/* For LKI_CLEANUP on a session; NULL is fine. */
void lki_cli_close_session(struct lk_session **session);

/* Prints "lockkeeper: " and the line to stderr. Refusals are printed under -q too: an exit code
 * alone is no answer. The line must not end with a newline. Control bytes are replaced. */
void lki_cli_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Complains and points to --help. Returns LKI_EXIT_USAGE. */
int lki_cli_usage(const struct lki_cli *cli, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Complains about a failed library call: what the library says about it. Returns the exit code. */
int lki_cli_refusal(int result);

/* The exit code for a negative result of the library. Pure. */
int lki_cli_exit_code(int result);

/* Complains if the code is LKI_EXIT_OS and nobody has said why yet: of the many places where memory
 * may run out. Returns the code. */
int lki_cli_explain(int code);

/* Flushes and closes stdout: a full disk must not look like success. Returns code, or LKI_EXIT_OS
 * with a complaint. */
int lki_cli_finish(int code);
