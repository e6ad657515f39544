/* SPDX-License-Identifier: MIT */
/* lockkeeper seg dump NAME: the data of a segment, as bytes or as hex. It is read through the
 * descriptor and not through a map: a hole stays a hole, and a file truncated meanwhile is a short
 * read. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "client/admin.h"
#include "client/cli/cli.h"
#include "client/cli/hex.h"
#include "client/cli/text.h"
#include "common/cleanup.h"
#include "common/fd.h"

static const char help[] = "Usage: lockkeeper seg dump [options] NAME\n"
                           "\n"
                           "Writes the data of a segment to stdout. No lock is taken: what is "
                           "written to meanwhile may be half\n"
                           "old and half new.\n"
                           "\n"
                           "      --out FILE     write to FILE, which must not exist yet\n"
                           "      --offset N     begin here; bytes, or with K, M, G, T\n"
                           "      --length N     so many bytes (default: all the rest)\n"
                           "      --hex          offset, hexadecimal and text, equal lines as '*'; "
                           "also without --hex when\n"
                           "                     stdout is a terminal\n"
                           "      --socket PATH  the broker to ask; see 'lockkeeper where'\n"
                           "  -h, --help         show this help\n"
                           "  -V, --version      show the version\n"
                           "\n"
                           "EXIT STATUS\n"
                           "  0 written; 1 no such segment, or FILE exists; 64 wrong usage, also "
                           "an offset or length beyond the\n"
                           "  end; 65 the segment has no data, or its file was truncated; 66 no "
                           "broker; 71 system error, also\n"
                           "  a full disk; 76 protocol; 77 not permitted\n"
                           "\n"
                           "EXAMPLES\n"
                           "  lockkeeper seg dump frames --length 256 --hex\n"
                           "  lockkeeper seg dump frames --out frames.bin\n";

enum { OUT = LKI_OPTION_OWN, OFFSET, LENGTH, HEX };

static const struct option long_options[] = {
    {"out", required_argument, NULL, OUT},
    {"offset", required_argument, NULL, OFFSET},
    {"length", required_argument, NULL, LENGTH},
    {"hex", no_argument, NULL, HEX},
    LKI_OPTIONS_COMMON,
    {NULL, 0, NULL, 0},
};

struct wanted {
    const char *out_path; /* NULL: stdout */
    uint64_t offset;
    uint64_t length_bytes;
    bool has_length;
    bool hex;
};

static int parse_bytes(const struct lki_cli *cli, const char *option, uint64_t *out_bytes)
{
    if (lki_text_parse_size(optarg, out_bytes) < 0)
        return lki_cli_usage(cli, "%s %s: give bytes, or a number with K, M, G or T", option,
                             optarg);
    return -1;
}

static int parse_option(struct lki_cli *cli, int option, struct wanted *wanted)
{
    switch (option) {
    case OUT:
        wanted->out_path = optarg;
        return -1;
    case OFFSET:
        return parse_bytes(cli, "--offset", &wanted->offset);
    case LENGTH:
        wanted->has_length = true;
        return parse_bytes(cli, "--length", &wanted->length_bytes);
    case HEX:
        wanted->hex = true;
        return -1;
    default:
        return lki_cli_common_option(cli, option, help);
    }
}

/* Cuts offset and length to what there is, or complains. Returns -1 to carry on. */
static int check_range(const struct lki_cli *cli, uint64_t size_bytes, struct wanted *wanted)
{
    if (wanted->offset > size_bytes)
        return lki_cli_usage(cli,
                             "--offset %" PRIu64 ": beyond the end; the data has %" PRIu64 " bytes",
                             wanted->offset, size_bytes);
    uint64_t rest = size_bytes - wanted->offset;
    if (!wanted->has_length)
        wanted->length_bytes = rest;
    if (wanted->length_bytes > rest)
        return lki_cli_usage(
            cli, "--length %" PRIu64 ": beyond the end; behind that offset are %" PRIu64 " bytes",
            wanted->length_bytes, rest);
    return -1;
}

static int copy(const struct lki_cli *cli, int fd, const struct wanted *wanted, FILE *out)
{
    static unsigned char buffer[256 * 1024];
    struct lki_hex hex = {.offset = wanted->offset};
    uint64_t done = 0;
    while (done < wanted->length_bytes) {
        uint64_t left = wanted->length_bytes - done;
        size_t want = left < sizeof(buffer) ? (size_t)left : sizeof(buffer);
        ssize_t n = pread(fd, buffer, want, (off_t)(wanted->offset + done));
        if (n <= 0) {
            lki_cli_complain("%s: stopped at byte %" PRIu64 ": %s", cli->command,
                             wanted->offset + done,
                             n < 0 ? strerror(errno) : "the file behind the segment was truncated");
            return n < 0 ? LKI_EXIT_OS : LKI_EXIT_DATA;
        }
        if (wanted->hex)
            lki_hex_print(&hex, buffer, (size_t)n, out);
        else if (fwrite(buffer, 1, (size_t)n, out) != (size_t)n)
            break; /* ferror() is looked at by the caller */
        done += (uint64_t)n;
    }
    if (wanted->hex)
        lki_hex_finish(&hex, out);
    return LKI_EXIT_OK;
}

/* Into a new file, which does not stay if it is not whole. */
static int copy_to_file(const struct lki_cli *cli, int fd, const struct wanted *wanted)
{
    int out_fd = open(wanted->out_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    FILE *out = out_fd < 0 ? NULL : fdopen(out_fd, "w");
    if (!out) {
        int error = errno;
        if (out_fd >= 0 && close(out_fd) == 0)
            unlink(wanted->out_path);
        lki_cli_complain("%s: cannot make '%s': %s; choose another --out", cli->command,
                         wanted->out_path, strerror(error));
        return lki_cli_exit_code(error == EEXIST || error == EACCES || error == EROFS ? -error
                                                                                      : -ENOSPC);
    }
    int code = copy(cli, fd, wanted, out);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        lki_cli_complain("%s: cannot write '%s': %s", cli->command, wanted->out_path,
                         strerror(errno));
        code = LKI_EXIT_OS;
    }
    if (code != LKI_EXIT_OK)
        unlink(wanted->out_path);
    return code;
}

static int dump(const struct lki_cli *cli, const char *name, struct wanted *wanted)
{
    LKI_CLEANUP(lki_cli_close_session) struct lk_session *session = NULL;
    int code = lki_cli_open(cli, false, &session);
    if (code > 0)
        return code;
    struct lk_segment_options options = {.size = sizeof(options), .flags = LK_READ_ONLY};
    struct lk_segment *segment;
    int r = lk_segment_open(session, name, &options, &segment);
    if (r < 0)
        return lki_cli_refusal(r);
    int fd = lki_admin_data_fd(segment);
    if (fd < 0) {
        lki_cli_complain("%s: '%s' has no data, only locks; see: lockkeeper ls %s", cli->command,
                         name, name);
        return LKI_EXIT_DATA;
    }
    code = check_range(cli, lk_segment_size(segment), wanted);
    if (code >= 0)
        return code;
    if (wanted->out_path)
        return copy_to_file(cli, fd, wanted);
    return lki_cli_finish(copy(cli, fd, wanted, stdout));
}

int lki_cli_seg_dump(struct lki_cli *cli, int argc, char **argv)
{
    struct wanted wanted = {0};
    int option;
    while ((option = getopt_long(argc, argv, "qhV", long_options, NULL)) != -1) {
        int code = parse_option(cli, option, &wanted);
        if (code >= 0)
            return code;
    }
    if (cli->json)
        return lki_cli_usage(cli, "--json: bytes are no JSON; there is --hex");
    if (argc - optind != 1)
        return lki_cli_usage(cli, "exactly one NAME, please");
    if (!wanted.out_path && isatty(STDOUT_FILENO))
        wanted.hex = true;
    return dump(cli, argv[optind], &wanted);
}
