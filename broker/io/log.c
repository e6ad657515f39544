/* SPDX-License-Identifier: MIT */
#include "broker/io/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/printable.h"

/* A client can make us log; it must not fill a disk. */
#define LINES_PER_SECOND_MAX 50u

static struct {
    enum lkd_log_level least;
    bool journal;
    bool with_time;
    uint64_t second_began_ns;
    uint32_t lines_this_second;
    uint64_t dropped;
} state = {.least = LKD_LOG_INFO};

static const char *level_name(enum lkd_log_level level)
{
    switch (level) {
    case LKD_LOG_ERROR:
        return "error: ";
    case LKD_LOG_WARNING:
        return "warning: ";
    case LKD_LOG_INFO:
        return "";
    case LKD_LOG_DEBUG:
        return "debug: ";
    }
    return "";
}

int lkd_log_level_parse(const char *name, enum lkd_log_level *out_level)
{
    static const struct {
        const char *name;
        enum lkd_log_level level;
    } levels[] = {
        {"error", LKD_LOG_ERROR},
        {"warning", LKD_LOG_WARNING},
        {"info", LKD_LOG_INFO},
        {"debug", LKD_LOG_DEBUG},
    };
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        if (strcmp(name, levels[i].name) == 0) {
            *out_level = levels[i].level;
            return 0;
        }
    }
    return -EINVAL;
}

/* systemd names the stream that it connected to stderr, so that a redirection is noticed. */
static bool stderr_is_journal(const struct stat *status)
{
    const char *stream = getenv("JOURNAL_STREAM");
    if (stream == NULL)
        return false;
    unsigned long long device = 0;
    unsigned long long inode = 0;
    if (sscanf(stream, "%llu:%llu", &device, &inode) != 2)
        return false;
    return device == (unsigned long long)status->st_dev &&
           inode == (unsigned long long)status->st_ino;
}

void lkd_log_start(enum lkd_log_level least)
{
    struct stat status;
    state.least = least;
    bool known = fstat(STDERR_FILENO, &status) == 0;
    state.journal = known && stderr_is_journal(&status);
    state.with_time = known && S_ISREG(status.st_mode);
}

void lkd_log_forked(void)
{
    state.second_began_ns = lki_clock_now_ns();
    state.lines_this_second = 0;
    state.dropped = 0;
}

size_t lkd_log_escape(const char *text, char *out_line, size_t capacity_bytes)
{
    size_t used = 0;
    while (*text != '\0') {
        size_t bytes = *text == '\\' ? 0 : lki_printable_bytes(text);
        size_t need = bytes > 0 ? bytes : 4;
        if (used + need + 1 > capacity_bytes)
            break;
        if (bytes > 0)
            memcpy(out_line + used, text, bytes);
        else
            (void)snprintf(out_line + used, 5, "\\x%02x", (unsigned char)*text);
        used += need;
        text += bytes > 0 ? bytes : 1;
    }
    out_line[used] = '\0';
    return used;
}

/* A full pipe must not stop the broker: writes only what can be taken at once. A pipe that polls
 * writable takes PIPE_BUF (4096) bytes, and no line is longer. */
static bool write_line(const char *line, size_t length_bytes)
{
    struct pollfd stream = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&stream, 1, 0) <= 0 || !(stream.revents & POLLOUT))
        return false;
    return write(STDERR_FILENO, line, length_bytes) == (ssize_t)length_bytes;
}

static void put(enum lkd_log_level level, const char *text)
{
    char escaped[1024];
    (void)lkd_log_escape(text, escaped, sizeof(escaped));
    char when[32] = "";
    if (state.with_time) {
        time_t now = time(NULL);
        struct tm broken;
        if (gmtime_r(&now, &broken) != NULL)
            (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ ", &broken);
    }
    char line[1200];
    int length = state.journal ? snprintf(line, sizeof(line), "<%d>%s\n", (int)level, escaped)
                               : snprintf(line, sizeof(line), "%slockkeeperd: %s%s\n", when,
                                          level_name(level), escaped);
    if (length <= 0 || !write_line(line, (size_t)length))
        state.dropped++;
}

/* Whether one more line may be written in this second. */
static bool take_turn(void)
{
    uint64_t now_ns = lki_clock_now_ns();
    if (now_ns - state.second_began_ns >= LKI_NS_PER_S) {
        uint64_t dropped = state.dropped;
        state.second_began_ns = now_ns;
        state.lines_this_second = 0;
        state.dropped = 0;
        if (dropped > 0) {
            char text[64];
            (void)snprintf(text, sizeof(text), "%llu lines were left out here",
                           (unsigned long long)dropped);
            put(LKD_LOG_WARNING, text);
        }
    }
    if (state.lines_this_second >= LINES_PER_SECOND_MAX) {
        state.dropped++;
        return false;
    }
    state.lines_this_second++;
    return true;
}

void lkd_log_line(enum lkd_log_level level, const char *format, ...)
{
    if (level > state.least || !take_turn())
        return;
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    put(level, text);
}
