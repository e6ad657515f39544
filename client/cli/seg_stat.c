/* SPDX-License-Identifier: MIT */
/* lockkeeper seg stat NAME: one segment, and how many of its locks are in use. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include <lockkeeper/lockkeeper.h>

#include "client/cli/cli.h"
#include "client/cli/seg_text.h"
#include "client/cli/text.h"
#include "common/cleanup.h"

static const char help[] =
    "Usage: lockkeeper seg stat [options] NAME\n"
    "\n"
    "Shows one segment: its size, owner, flags, who uses it, and how many of its locks are in "
    "use.\n"
    "\n"
    "      --json         the same, schema lockkeeper.seg-stat/1; sizes in bytes\n"
    "      --socket PATH  the broker to ask; see 'lockkeeper where'\n"
    "  -h, --help         show this help\n"
    "  -V, --version      show the version\n"
    "\n"
    "EXIT STATUS\n"
    "  0 shown; 1 there is no such segment; 64 wrong usage; 66 no broker; 71 system error;\n"
    "  76 protocol; 77 not permitted\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper seg stat frames\n"
    "  lockkeeper seg stat --json frames | jq .size_bytes\n";

static const struct option long_options[] = {
    LKI_OPTIONS_READ,
    {NULL, 0, NULL, 0},
};

struct usage {
    size_t held;
    size_t waiting;
    size_t damaged;
};

static struct usage count_usage(const struct lki_listing *locks)
{
    struct usage usage = {0};
    size_t position = 0;
    struct lki_listing_lock lock;
    while ((lock = lki_listing_next_lock(locks, &position)).count > 0) {
        usage.waiting += lock.count - lock.holders;
        if (lock.holders && lock.first->is.state == LKI_ENTRY_DAMAGED)
            usage.damaged++;
        else if (lock.holders)
            usage.held++;
    }
    return usage;
}

static void print_text(const struct lki_listing_entry *segment, struct usage usage)
{
    const struct lki_list_entry *is = &segment->is;
    struct lki_text flags = lki_seg_flags(is);
    printf("Name:     %s\n", segment->name);
    printf("Kind:     %s\n", lki_seg_kind(is));
    if (lki_seg_has_data(is)) {
        printf("Size:     %" PRIu64 " bytes (%s)\n", is->size_bytes,
               lki_text_size(is->size_bytes).text);
        printf("Maximum:  %" PRIu64 " bytes (%s)\n", is->size_max_bytes,
               lki_text_size(is->size_max_bytes).text);
    }
    printf("Owner:    %s (uid %" PRIu32 "), mode %04" PRIo32 "\n", lki_text_user(is->uid).text,
           is->uid, is->mode);
    printf("Flags:    %s\n", *flags.text ? flags.text : "none");
    printf("Sessions: %" PRIu32 "\n", is->attachments);
    printf("Locks:    %" PRIu32 ", %zu held, %zu damaged, %zu waiters\n", is->locks, usage.held,
           usage.damaged, usage.waiting);
}

static int print_json(const struct lki_listing_entry *segment, struct usage usage)
{
    json_t *object = lki_seg_json(segment);
    json_object_set_new(object, "schema", json_string("lockkeeper.seg-stat/1"));
    json_object_set_new(object, "locks_held", json_integer((json_int_t)usage.held));
    json_object_set_new(object, "locks_damaged", json_integer((json_int_t)usage.damaged));
    json_object_set_new(object, "waiters", json_integer((json_int_t)usage.waiting));
    return lki_cli_print_json(object);
}

int lki_cli_seg_stat(struct lki_cli *cli, int argc, char **argv)
{
    int option;
    while ((option = getopt_long(argc, argv, "qhV", long_options, NULL)) != -1) {
        int code = lki_cli_common_option(cli, option, help);
        if (code >= 0)
            return code;
    }
    if (argc - optind != 1)
        return lki_cli_usage(cli, "exactly one NAME, please");
    int code = lki_cli_check_output_options(cli, true);
    if (code > 0)
        return code;
    LKI_CLEANUP(lki_cli_close_session) struct lk_session *session = NULL;
    code = lki_cli_open(cli, false, &session);
    if (code > 0)
        return code;
    LKI_CLEANUP(lki_listing_deinit) struct lki_listing segments = {0};
    LKI_CLEANUP(lki_listing_deinit) struct lki_listing locks = {0};
    int r = lki_listing_read(session, LKI_LIST_SEGMENTS, argv[optind], &segments);
    if (r == 0 && segments.count == 0) {
        lki_cli_complain(
            "seg stat: there is no segment '%s' that you may see; see: lockkeeper seg ls",
            argv[optind]);
        return LKI_EXIT_CONFLICT;
    }
    if (r == 0)
        r = lki_listing_read(session, LKI_LIST_LOCKS, argv[optind], &locks);
    if (r < 0)
        return lki_cli_refusal(r);
    struct usage usage = count_usage(&locks);
    if (cli->json)
        return print_json(&segments.entries[0], usage);
    print_text(&segments.entries[0], usage);
    return lki_cli_finish(LKI_EXIT_OK);
}
