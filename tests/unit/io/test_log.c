/* SPDX-License-Identifier: MIT */
#include "broker/io/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

TestSuite(log, .timeout = 20);

static int ends[2];

/* From here on the log goes into a pipe. */
static void redirect_to_pipe(int flags)
{
    cr_assert(eq(int, pipe2(ends, O_CLOEXEC | flags), 0));
    cr_assert(ge(int, dup2(ends[1], STDERR_FILENO), 0));
}

static const char *logged(void)
{
    static char text[65536];
    cr_assert(eq(int, fcntl(ends[0], F_SETFL, O_NONBLOCK), 0));
    ssize_t length = read(ends[0], text, sizeof(text) - 1);
    text[length > 0 ? length : 0] = '\0';
    return text;
}

Test(log, control_bytes_are_escaped_and_utf8_is_not)
{
    char line[64];
    cr_expect(eq(sz, lkd_log_escape("a\x1b[2Jb\nc\\d\x7f", line, sizeof(line)), strlen(line)));
    cr_expect(eq(str, line, "a\\x1b[2Jb\\x0ac\\x5cd\\x7f"));
    (void)lkd_log_escape("Zo\xc3\xab", line, sizeof(line));
    cr_expect(eq(str, line, "Zo\xc3\xab"));
    /* U+009B begins an escape sequence, as one byte and as UTF-8; so may what is no UTF-8 at all. */
    (void)lkd_log_escape("\x9b"
                         "2J\xc2\x9b"
                         "2J\xff",
                         line, sizeof(line));
    cr_expect(eq(str, line, "\\x9b2J\\xc2\\x9b2J\\xff"));
}

Test(log, what_does_not_fit_is_cut_at_a_whole_escape)
{
    char line[8];
    cr_expect(eq(sz, lkd_log_escape("ab\n\n", line, sizeof(line)), 6));
    cr_expect(eq(str, line, "ab\\x0a"));
}

Test(log, a_line_names_the_daemon_and_the_level)
{
    redirect_to_pipe(0);
    lkd_log_start(LKD_LOG_INFO);
    lkd_log_line(LKD_LOG_WARNING, "dropped pid %d: %s", 12, "so\nthere");
    lkd_log_line(LKD_LOG_DEBUG, "too much detail");
    cr_expect(eq(str, (char *)logged(), "lockkeeperd: warning: dropped pid 12: so\\x0athere\n"));
}

Test(log, behind_journald_a_line_has_its_priority)
{
    struct stat status;
    char stream[64];
    redirect_to_pipe(0);
    cr_assert(eq(int, fstat(STDERR_FILENO, &status), 0));
    snprintf(stream, sizeof(stream), "%lu:%lu", status.st_dev, status.st_ino);
    cr_assert(eq(int, setenv("JOURNAL_STREAM", stream, 1), 0));
    lkd_log_start(LKD_LOG_INFO);
    lkd_log_line(LKD_LOG_WARNING, "text");
    cr_expect(eq(str, (char *)logged(), "<4>text\n"));
}

Test(log, a_journal_stream_that_is_not_stderr_changes_nothing)
{
    redirect_to_pipe(0);
    cr_assert(eq(int, setenv("JOURNAL_STREAM", "1:2", 1), 0));
    lkd_log_start(LKD_LOG_INFO);
    lkd_log_line(LKD_LOG_ERROR, "text");
    cr_expect(eq(str, (char *)logged(), "lockkeeperd: error: text\n"));
}

Test(log, a_full_pipe_drops_lines_instead_of_blocking)
{
    char fill[4096] = {0};
    redirect_to_pipe(O_NONBLOCK);
    while (write(ends[1], fill, sizeof(fill)) > 0)
        continue;
    /* Blocking as it would be for a daemon; the test's time-out catches a write that blocks. */
    cr_assert(eq(int, fcntl(ends[1], F_SETFL, 0), 0));
    lkd_log_start(LKD_LOG_INFO);
    lkd_log_line(LKD_LOG_INFO, "nobody reads this");
}

Test(log, a_flood_is_cut)
{
    redirect_to_pipe(0);
    lkd_log_start(LKD_LOG_INFO);
    for (int i = 0; i < 500; i++)
        lkd_log_line(LKD_LOG_INFO, "x");
    size_t lines = 0;
    for (const char *c = logged(); *c != '\0'; c++)
        lines += *c == '\n';
    /* A second may end meanwhile, and then a second batch with its note comes. */
    cr_expect(le(sz, lines, 101));
    cr_expect(ge(sz, lines, 50));
}

Test(log, a_forked_process_has_lines_of_its_own)
{
    redirect_to_pipe(0);
    lkd_log_start(LKD_LOG_INFO);
    for (int i = 0; i < 500; i++)
        lkd_log_line(LKD_LOG_INFO, "x");
    (void)logged();
    lkd_log_forked();
    lkd_log_line(LKD_LOG_INFO, "took over");
    cr_expect(eq(str, (char *)logged(), "lockkeeperd: took over\n"));
}

Test(log, levels_have_names)
{
    enum lkd_log_level level = LKD_LOG_ERROR;
    cr_expect(eq(int, lkd_log_level_parse("debug", &level), 0));
    cr_expect(eq(int, level, LKD_LOG_DEBUG));
    cr_expect(eq(int, lkd_log_level_parse("loud", &level), -EINVAL));
}
