/* SPDX-License-Identifier: MIT */
/* lockkeeper seg create: a segment that outlives this command. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include "client/cli/cli.h"
#include "client/cli/text.h"
#include "common/bounds.h"
#include "common/cleanup.h"
#include "common/fd.h"

static const char help[] =
    "Usage: lockkeeper seg create [options] NAME\n"
    "\n"
    "Makes a segment: anonymous memory, or a file that everybody maps.\n"
    "\n"
    "  --size SIZE    of its data: bytes, or with K, M, G, T. Without: a segment of locks alone,\n"
    "                 or with --file the file's size\n"
    "  --max SIZE     it may grow up to here (default: --size)\n"
    "  --locks N      entries of its lock table (default 16)\n"
    "  --mode MODE    permission bits, octal (default 0600)\n"
    "  --file PATH    offer this file as its data. With --size it is made if it does not exist, "
    "and\n"
    "                 extended if it is empty\n"
    "  --reserve      allocate the memory now\n"
    "  --keep         the default: it lives until 'lockkeeper seg rm'. A segment that is not kept "
    "ends\n"
    "                 with its last user, which would be this command\n"
    "  --socket PATH  the broker to use; see 'lockkeeper where'\n"
    "  -h, --help     show this help\n"
    "  -V, --version  show the version\n"
    "\n"
    "EXIT STATUS\n"
    "  0 made; 1 it exists; 64 wrong usage, also a name or size that cannot be; 65 the file is "
    "none\n"
    "  that can be mapped; 66 no broker; 71 system error; 76 protocol; 77 not permitted\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper seg create frames --size 64M --max 1G\n"
    "  lockkeeper seg create journal --file /var/tmp/journal.bin --size 16M\n";

enum { SIZE = LKI_OPTION_OWN, MAX, LOCKS, MODE, FILE_PATH, RESERVE, KEEP };

static const struct option long_options[] = {
    {"size", required_argument, NULL, SIZE},
    {"max", required_argument, NULL, MAX},
    {"locks", required_argument, NULL, LOCKS},
    {"mode", required_argument, NULL, MODE},
    {"file", required_argument, NULL, FILE_PATH},
    {"reserve", no_argument, NULL, RESERVE},
    {"keep", no_argument, NULL, KEEP},
    LKI_OPTIONS_COMMON,
    {NULL, 0, NULL, 0},
};

struct wanted {
    const char *file_path;
    struct lk_segment_options options;
};

static int parse_size(const struct lki_cli *cli, const char *option, uint64_t *out_bytes)
{
    int r = lki_text_parse_size(optarg, out_bytes);
    if (r == -EINVAL)
        return lki_cli_usage(cli, "%s %s: not a size; give bytes, or a number with K, M, G or T",
                             option, optarg);
    if (r < 0 || *out_bytes > LKI_SEGMENT_BYTES_MAX)
        return lki_cli_usage(cli, "%s %s: too large; a segment has at most %s", option, optarg,
                             lki_text_size(LKI_SEGMENT_BYTES_MAX).text);
    if (*out_bytes == 0)
        return lki_cli_usage(cli,
                             "%s %s: no size for data; leave %s out for a segment of locks alone",
                             option, optarg, option);
    return -1;
}

static int parse_locks(const struct lki_cli *cli, uint32_t *out_locks)
{
    uint64_t locks;
    if (lki_text_parse_count(optarg, LKI_LOCKS_MAX, &locks) < 0 || locks == 0)
        return lki_cli_usage(cli, "--locks %s: give a number from 1 to %u", optarg, LKI_LOCKS_MAX);
    *out_locks = (uint32_t)locks;
    return -1;
}

static int parse_mode(const struct lki_cli *cli, uint32_t *out_mode)
{
    char *end;
    unsigned long mode = strtoul(optarg, &end, 8);
    if (*optarg < '0' || *optarg > '7' || *end || mode > 0777 || mode == 0)
        return lki_cli_usage(cli, "--mode %s: give permission bits, octal, such as 0660", optarg);
    *out_mode = (uint32_t)mode;
    return -1;
}

static int parse_option(struct lki_cli *cli, int option, struct wanted *wanted)
{
    switch (option) {
    case SIZE:
        return parse_size(cli, "--size", &wanted->options.size_bytes);
    case MAX:
        return parse_size(cli, "--max", &wanted->options.size_max_bytes);
    case LOCKS:
        return parse_locks(cli, &wanted->options.locks);
    case MODE:
        return parse_mode(cli, &wanted->options.mode);
    case FILE_PATH:
        wanted->file_path = optarg;
        return -1;
    case RESERVE:
        wanted->options.flags |= LK_RESERVE;
        return -1;
    case KEEP:
        return -1;
    default:
        return lki_cli_common_option(cli, option, help);
    }
}

/* Opens the file to offer. Returns -1 to carry on, else the exit code. */
static int open_file(const struct wanted *wanted, int *out_fd)
{
    /* Without a size there would be nothing to extend a new file to. O_NONBLOCK: a FIFO must not
     * hang us; it is refused later, as no regular file. */
    int create = wanted->options.size_bytes ? O_CREAT : 0;
    *out_fd = open(wanted->file_path, O_RDWR | O_CLOEXEC | O_NONBLOCK | create, 0666);
    if (*out_fd >= 0)
        return -1;
    int error = errno;
    bool could_make = error == ENOENT && !create;
    lki_cli_complain("seg create: cannot open '%s' for reading and writing: %s; %s%s",
                     wanted->file_path, strerror(error),
                     could_make ? "give --size to make it" : "see: ls -ld ",
                     could_make ? "" : wanted->file_path);
    return error == EACCES || error == EPERM || error == EROFS ? LKI_EXIT_DENIED
           : error == EISDIR                                   ? LKI_EXIT_DATA
                                                               : LKI_EXIT_OS;
}

static int create(const struct lki_cli *cli, const char *name, const struct wanted *wanted)
{
    LKI_CLEANUP(lki_close_p) int fd = -1;
    if (wanted->file_path) {
        int code = open_file(wanted, &fd);
        if (code >= 0)
            return code;
    }
    LKI_CLEANUP(lki_cli_close_session) struct lk_session *session = NULL;
    int code = lki_cli_open(cli, true, &session);
    if (code > 0)
        return code;
    struct lk_segment *segment;
    int r = wanted->file_path ? lk_segment_offer(session, name, fd, &wanted->options, &segment)
                              : lk_segment_open(session, name, &wanted->options, &segment);
    if (r == -EEXIST) { /* the library's advice is for programs */
        lki_cli_complain("cannot create '%s': it exists (EEXIST); see: lockkeeper seg stat %s",
                         name, name);
        return lki_cli_exit_code(r);
    }
    if (r < 0)
        return lki_cli_refusal(r);
    lk_segment_close(segment);
    return LKI_EXIT_OK;
}

int lki_cli_seg_create(struct lki_cli *cli, int argc, char **argv)
{
    struct wanted wanted = {
        .options = {.size = sizeof(wanted.options), .flags = LK_CREATE_NEW | LK_KEEP}};
    int option;
    while ((option = getopt_long(argc, argv, "qhV", long_options, NULL)) != -1) {
        int code = parse_option(cli, option, &wanted);
        if (code >= 0)
            return code;
    }
    int code = lki_cli_check_output_options(cli, false);
    if (code > 0)
        return code;
    if (argc - optind != 1)
        return lki_cli_usage(cli, "exactly one NAME, please");
    struct lk_segment_options *options = &wanted.options;
    if (options->size_max_bytes && options->size_max_bytes < options->size_bytes)
        return lki_cli_usage(cli, "--max is less than --size");
    if (options->size_max_bytes && !options->size_bytes && !wanted.file_path)
        return lki_cli_usage(cli, "--max without --size");
    return create(cli, argv[optind], &wanted);
}
