/* SPDX-License-Identifier: MIT */
/* lockkeeper release --force NAME --reason TEXT: ends whoever holds a lock. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include "client/admin.h"
#include "client/cli/cli.h"
#include "client/cli/listing.h"
#include "client/cli/text.h"
#include "common/bounds.h"
#include "common/cleanup.h"

static const char help[] =
    "Usage: lockkeeper release --force [options] NAME --reason TEXT\n"
    "\n"
    "Ends the process that holds a lock, or all that hold it shared: SIGTERM, and SIGKILL 2 s "
    "later\n"
    "(60 s while a debugger has stopped it). Waits until the lock is free or somebody else's; its\n"
    "next holder is told that the last one died inside. NAME is a segment, which means its lock "
    "0,\n"
    "SEGMENT#3 or SEGMENT#orders. Where a lease would take the hold away (LK_EXPIRY_FENCE), that "
    "is\n"
    "done instead. Only the holder itself can release a lock without force.\n"
    "\n"
    "Allowed to root, to the user whose broker it is, to the holder's user, and to the owner of "
    "the\n"
    "segment if the holder accepted it (LK_ACCEPT_KILL).\n"
    "\n"
    "      --force        really\n"
    "      --reason TEXT  why, at most 200 bytes; goes to the broker's log, with who asked\n"
    "  -q, --quiet        do not say what was done\n"
    "      --socket PATH  the broker to ask; see 'lockkeeper where'\n"
    "  -h, --help         show this help\n"
    "  -V, --version      show the version\n"
    "\n"
    "EXIT STATUS\n"
    "  0 released, or nobody held it; 1 there is no such lock, or its holder cannot end (stuck in\n"
    "  the kernel); 64 wrong usage, also without --force or --reason; 66 no broker; 71 system "
    "error;\n"
    "  76 protocol; 77 not permitted\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper release --force backup --reason 'hangs since the disk was full'\n";

enum { FORCE = LKI_OPTION_OWN, REASON };

static const struct option long_options[] = {
    {"force", no_argument, NULL, FORCE},
    {"reason", required_argument, NULL, REASON},
    LKI_OPTIONS_COMMON,
    {NULL, 0, NULL, 0},
};

struct wanted {
    const char *name;      /* as given */
    const char *segment;   /* its part before '#' */
    const char *lock_name; /* NULL: by number */
    int64_t index;
    bool force;
    const char *reason;
};

/* The line of one holder, or NULL. */
static const struct lki_listing_entry *find_holder(const struct wanted *wanted,
                                                   const struct lki_listing *listing)
{
    size_t position = 0;
    struct lki_listing_lock lock;
    while ((lock = lki_listing_next_lock(listing, &position)).count != 0) {
        bool asked_for = wanted->lock_name ? strcmp(lock.first->lock_name, wanted->lock_name) == 0
                                           : lock.first->is.lock == wanted->index;
        if (asked_for)
            return lock.holders > 0 && lock.first->is.state != LKI_ENTRY_DAMAGED ? lock.first
                                                                                 : NULL;
    }
    return NULL;
}

/* Without --force: who could release it. */
static int explain(const struct lki_cli *cli, struct lk_session *session,
                   const struct wanted *wanted)
{
    struct lki_listing listing;
    int r = lki_listing_read(session, LKI_LIST_LOCKS, wanted->segment, &listing);
    if (r < 0)
        return lki_cli_refusal(r);
    const struct lki_listing_entry *holder = find_holder(wanted, &listing);
    if (holder)
        r = lki_cli_usage(cli,
                          "only its holder can release '%s': %s[%" PRId32 "] of user %s; to end "
                          "that process, give --force and --reason",
                          wanted->name, *holder->command ? holder->command : "?", holder->is.pid,
                          lki_text_user(holder->is.uid).text);
    else
        r = lki_cli_usage(cli, "only a holder can release a lock, and nobody holds '%s'",
                          wanted->name);
    lki_listing_deinit(&listing);
    return r;
}

static int release(const struct lki_cli *cli, const struct wanted *wanted)
{
    LKI_CLEANUP(lki_cli_close_session) struct lk_session *session = NULL;
    uint64_t ended = 0;
    int code = lki_cli_open(cli, false, &session);
    if (code > 0)
        return code;
    if (!wanted->force)
        return explain(cli, session, wanted);
    int r = lki_admin_force_release(session, wanted->segment, (uint32_t)wanted->index,
                                    wanted->lock_name, wanted->reason, &ended);
    if (r < 0)
        return lki_cli_refusal(r);
    if (cli->quiet)
        return LKI_EXIT_OK;
    if (ended == 0)
        lki_cli_complain("%s: nobody holds it", wanted->name);
    else
        lki_cli_complain("%s: %" PRIu64 " %s ended", wanted->name, ended,
                         ended == 1 ? "hold was" : "holds were");
    return LKI_EXIT_OK;
}

static int parse_options(struct lki_cli *cli, int argc, char **argv, struct wanted *wanted)
{
    int option;
    while ((option = getopt_long(argc, argv, "qhV", long_options, NULL)) != -1) {
        int code = -1;
        if (option == FORCE)
            wanted->force = true;
        else if (option == REASON)
            wanted->reason = optarg;
        else
            code = lki_cli_common_option(cli, option, help);
        if (code >= 0)
            return code;
    }
    int code = lki_cli_check_output_options(cli, false);
    if (code > 0)
        return code;
    if (argc - optind != 1)
        return lki_cli_usage(cli, "exactly one NAME, please");
    if (wanted->force && (!wanted->reason || !*wanted->reason))
        return lki_cli_usage(cli, "--force needs a --reason: why do you end another process?");
    if (wanted->reason && strlen(wanted->reason) > LKI_REASON_BYTES_MAX)
        return lki_cli_usage(cli, "--reason: more than %u bytes", LKI_REASON_BYTES_MAX);
    wanted->name = argv[optind];
    return -1;
}

int lki_cli_release(struct lki_cli *cli, int argc, char **argv)
{
    struct wanted wanted = {.force = false};
    int code = parse_options(cli, argc, argv, &wanted);
    if (code >= 0)
        return code;
    LKI_CLEANUP(lki_free_p) char *segment = strdup(wanted.name);
    if (!segment)
        return LKI_EXIT_OS;
    wanted.segment = segment;
    if (lki_text_split_label(segment, &wanted.lock_name, &wanted.index))
        wanted.lock_name = NULL;
    if (wanted.index < 0 || (wanted.lock_name && !*wanted.lock_name))
        return lki_cli_usage(cli, "'%s': no lock has such a name", wanted.name);
    return release(cli, &wanted);
}
