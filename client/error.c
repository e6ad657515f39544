/* SPDX-License-Identifier: MIT */
#include "client/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include "common/cleanup.h"
#include "common/printable.h"

/* Room for the report of a deadlock, with every session in its ring. */
static _Thread_local char text[3072];

/* The codes whose usual words would mislead here; the C library knows the others. */
static const struct {
    int result;
    const char *words;
} own_words[] = {
    {0, "done"},
    {1, "done: created, or held although an owner died inside"},
    {-EBUSY, "somebody else holds the lock"},
    {-ETIMEDOUT, "the time ran out before the lock was free"},
    {-EDEADLK, "the wait would never end"},
    {-ENOLCK, "no room for another shared hold"},
    {-ESTALE, "the handle has ended: closed, inherited by fork, or about something replaced"},
    {-EPERM, "not the holder"},
    {-EOWNERDEAD, "an owner died inside and nobody has repaired the data"},
    {-EAGAIN, "not now: try again"},
    {-ERANGE, "beyond the lock table"},
    {-ECONNREFUSED, "no broker answers"},
    {-ECONNRESET, "the broker is gone"},
    {-EUSERS, "all attachments of the segment are taken"},
    {-EDQUOT, "a quota of the broker is used up"},
    {-EIO, "the file was truncated under its map"},
    {-ECANCELED, "cancelled"},
    {-EALREADY, "an asynchronous acquire of this lock is pending"},
};

const char *lk_strerror(int result)
{
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(own_words); i++)
        if (own_words[i].result == result)
            return own_words[i].words;
    const char *words = result < 0 && result > -4096 ? strerrordesc_np(-result) : NULL;
    return words ? words : "unknown code";
}

const char *lk_last_error(void)
{
    return text[0] ? text : "no call of this thread has failed";
}

const char *lki_error_name(int result)
{
    const char *name = result < 0 && result > -4096 ? strerrorname_np(-result) : NULL;
    return name ? name : "unknown code";
}

/* Writes at text + used; returns how much of the buffer is used then. */
__attribute__((format(printf, 2, 0))) static size_t append(size_t used, const char *format,
                                                           va_list arguments)
{
    int written = vsnprintf(text + used, sizeof(text) - used, format, arguments);
    if (written < 0)
        return used;
    /* Names come from anywhere, and texts go to terminals and logs; a cut may split a character. */
    (void)lki_printable(text + used);
    size_t end = used + (size_t)written;
    return end < sizeof(text) ? end : sizeof(text) - 1;
}

int lki_fail(int result, const char *format, ...)
{
    int saved = errno;
    va_list arguments;
    va_start(arguments, format);
    size_t used = append(0, format, arguments);
    va_end(arguments);
    (void)snprintf(text + used, sizeof(text) - used, " (%s)", lki_error_name(result));
    errno = saved;
    return result;
}

int lki_fail_hint(int result, const char *format, ...)
{
    int saved = errno;
    size_t used = strlen(text);
    used += (size_t)snprintf(text + used, sizeof(text) - used, "; ");
    if (used < sizeof(text)) {
        va_list arguments;
        va_start(arguments, format);
        append(used, format, arguments);
        va_end(arguments);
    }
    errno = saved;
    return result;
}
