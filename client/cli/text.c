/* SPDX-License-Identifier: MIT */
#include "client/cli/text.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"
#include "common/printable.h"

static int parse_digits(const char *text, const char **out_end, uint64_t *out_value)
{
    /* strtoull() takes "-1" and " 1" for numbers. */
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno)
        return -ERANGE;
    *out_end = end;
    *out_value = value;
    return 0;
}

int lki_text_parse_size(const char *text, uint64_t *out_bytes)
{
    const char *end;
    uint64_t value;
    int r = parse_digits(text, &end, &value);
    if (r < 0)
        return r;
    static const char units[] = "KMGT";
    unsigned shift = 0;
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        shift = 10 * (unsigned)(unit - units + 1);
        end++;
        if (strcasecmp(end, "iB") == 0 || strcasecmp(end, "B") == 0)
            end += strlen(end);
    }
    if (*end)
        return -EINVAL;
    if (shift && value > UINT64_MAX >> shift)
        return -ERANGE;
    *out_bytes = value << shift;
    return 0;
}

int lki_text_parse_count(const char *text, uint64_t max, uint64_t *out_count)
{
    const char *end;
    uint64_t value;
    int r = parse_digits(text, &end, &value);
    if (r < 0)
        return r;
    if (*end)
        return -EINVAL;
    if (value > max)
        return -ERANGE;
    *out_count = value;
    return 0;
}

int lki_text_parse_seconds(const char *text, uint64_t *out_ns)
{
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end || isnan(seconds))
        return -EINVAL;
    if (signbit(seconds) ? seconds != 0 : seconds > 500.0 * 365 * 86400)
        return -ERANGE;
    *out_ns = (uint64_t)(seconds * (double)LKI_NS_PER_S);
    return 0;
}

struct lki_text lki_text_duration(uint64_t ns)
{
    struct lki_text out;
    uint64_t tenths = ns / (LKI_NS_PER_S / 10);
    uint64_t s = tenths / 10;
    if (s < 60)
        snprintf(out.text, sizeof(out.text), "%" PRIu64 ".%" PRIu64 "s", s, tenths % 10);
    else if (s < 3600)
        snprintf(out.text, sizeof(out.text), "%" PRIu64 "m%02" PRIu64 "s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out.text, sizeof(out.text), "%" PRIu64 "h%02" PRIu64 "m", s / 3600, s / 60 % 60);
    else
        snprintf(out.text, sizeof(out.text), "%" PRIu64 "d%02" PRIu64 "h", s / 86400,
                 s / 3600 % 24);
    return out;
}

struct lki_text lki_text_size(uint64_t bytes)
{
    struct lki_text out;
    static const char units[] = "KMGTPE";
    if (bytes < 1024) {
        snprintf(out.text, sizeof(out.text), "%" PRIu64, bytes);
        return out;
    }
    unsigned unit = 0;
    while (unit < 5 && bytes >> (10 * (unit + 2)))
        unit++;
    unsigned shift = 10 * (unit + 1);
    uint64_t whole = bytes >> shift;
    /* Rounded down: a size shown is never more than there is. */
    uint64_t tenth = ((bytes >> (shift - 10)) & 1023) * 10 / 1024;
    if (tenth && whole < 100)
        snprintf(out.text, sizeof(out.text), "%" PRIu64 ".%" PRIu64 "%c", whole, tenth,
                 units[unit]);
    else
        snprintf(out.text, sizeof(out.text), "%" PRIu64 "%c", whole, units[unit]);
    return out;
}

struct lki_text lki_text_user(uid_t uid)
{
    struct lki_text out;
    struct passwd entry, *found = NULL;
    char buffer[4096];
    if (getpwuid_r(uid, &entry, buffer, sizeof(buffer), &found) == 0 && found)
        snprintf(out.text, sizeof(out.text), "%s", found->pw_name);
    else
        snprintf(out.text, sizeof(out.text), "%u", (unsigned)uid);
    return out;
}

const char *lki_text_mode(uint32_t mode)
{
    switch (mode) {
    case LK_SHARED:
        return "shared";
    case LK_EXCLUSIVE:
        return "exclusive";
    case LK_UPDATE:
        return "update";
    default:
        return "-";
    }
}

char *lki_text_lock_label(const char *segment, uint32_t lock, const char *lock_name)
{
    char *label = NULL;
    int r;
    if (lock_name && *lock_name)
        r = asprintf(&label, "%s#%s", segment, lock_name);
    else if (lock > 0)
        r = asprintf(&label, "%s#%" PRIu32, segment, lock);
    else
        r = asprintf(&label, "%s", segment);
    return r < 0 ? NULL : label;
}

bool lki_text_split_label(char *label, const char **out_lock, int64_t *out_index)
{
    *out_lock = NULL;
    *out_index = 0;
    char *hash = strchr(label, '#');
    if (!hash)
        return true;
    *hash = '\0';
    *out_lock = hash + 1;
    if (**out_lock == '\0' || (*out_lock)[strspn(*out_lock, "0123456789")] != '\0')
        return false;
    uint64_t index;
    *out_index = lki_text_parse_count(*out_lock, UINT32_MAX, &index) < 0 ? -1 : (int64_t)index;
    return true;
}

char *lki_text_command_line(pid_t pid)
{
    char path[64], buffer[4096];
    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    LKI_CLEANUP(lki_close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    ssize_t n = read(fd, buffer, sizeof(buffer) - 1);
    if (n <= 0)
        return NULL;
    if (buffer[n - 1] == '\0')
        n--;
    buffer[n] = '\0';
    for (ssize_t i = 0; i < n; i++)
        if (buffer[i] == '\0')
            buffer[i] = ' ';
    return strdup(lki_printable(buffer));
}
