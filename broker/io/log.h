/* SPDX-License-Identifier: MIT */
/* The daemon's log: one line per event on stderr, "lockkeeperd: warning: TEXT". Behind journald's
 * stream the line gets its <N> priority instead; in a file it begins with the time. Control bytes
 * are escaped, so that a name or a command cannot draw on a terminal. Never blocks: when stderr
 * takes nothing, or too many lines come in a second, lines are counted and dropped. One thread. */
#pragma once

#include <stddef.h>

enum lkd_log_level { /* the priorities of syslog(3) */
                     LKD_LOG_ERROR = 3,
                     LKD_LOG_WARNING = 4,
                     LKD_LOG_INFO = 6,
                     LKD_LOG_DEBUG = 7,
};

/* Finds out where stderr goes. Lines above `least` are left out. Call again after stderr was
 * replaced. */
void lkd_log_start(enum lkd_log_level least);

/* In a process that was forked by another that logs: what that one may write in this second, and has left
 * out, is not its own. */
void lkd_log_forked(void);

/* Logs one line. The text needs no final newline. */
void lkd_log_line(enum lkd_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Copies text with control bytes, DEL and backslashes as \xNN, cut to fit and zero-terminated;
 * bytes of UTF-8 pass. Returns the length. Pure. */
size_t lkd_log_escape(const char *text, char *out_line, size_t capacity_bytes);

/* "error", "warning", "info" or "debug". Returns 0, or -EINVAL. */
int lkd_log_level_parse(const char *name, enum lkd_log_level *out_level);
