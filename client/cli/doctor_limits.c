/* SPDX-License-Identifier: MIT */
/* doctor: what the broker was told to allow at most, beside what there is. Its own defaults fit
 * themselves, so only what somebody chose is looked at, as its command line has it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/doctor.h"

#define ARGUMENTS_BYTES 4096u
#define OPTION "--limit"

enum limited { SESSIONS, SEGMENTS, BYTES, LIMITED };

static const char *const names[LIMITED] = {"sessions", "segments", "bytes"};

/* A number, perhaps with K, M, G or T behind it; 0 for what is none. */
static uint64_t read_amount(const char *text)
{
    static const char suffixes[] = "KMGT";
    char *end;
    uint64_t amount = strtoull(text, &end, 10);
    const char *suffix = *end != '\0' ? strchr(suffixes, *end) : NULL;
    return suffix != NULL ? amount << (10 * (suffix - suffixes + 1)) : amount;
}

/* WHAT=N */
static void read_limit(const char *text, uint64_t limits[LIMITED])
{
    for (int i = 0; i < LIMITED; i++) {
        size_t bytes = strlen(names[i]);
        if (strncmp(text, names[i], bytes) == 0 && text[bytes] == '=')
            limits[i] = read_amount(text + bytes + 1);
    }
}

/* Of the process; 0: nobody has said. */
static void read_limits(int32_t pid, uint64_t limits[LIMITED])
{
    char path[64], arguments[ARGUMENTS_BYTES];
    snprintf(path, sizeof(path), "/proc/%" PRId32 "/cmdline", pid);
    FILE *file = fopen(path, "re");
    size_t length = file ? fread(arguments, 1, sizeof(arguments) - 1, file) : 0;
    if (file)
        (void)fclose(file);
    arguments[length] = '\0';
    bool expected = false;
    for (size_t at = 0; at < length; at += strlen(arguments + at) + 1) {
        const char *argument = arguments + at;
        if (expected)
            read_limit(argument, limits);
        expected = strcmp(argument, OPTION) == 0;
        if (strncmp(argument, OPTION "=", sizeof(OPTION)) == 0)
            read_limit(argument + sizeof(OPTION), limits);
    }
}

/* What it needs descriptors for when it is full. */
static void look_at_descriptors(struct lki_doctor *doctor, const uint64_t limits[LIMITED],
                                uint64_t files_max)
{
    uint64_t sessions = limits[SESSIONS] ? limits[SESSIONS] : doctor->used->sessions;
    uint64_t segments = limits[SEGMENTS] ? limits[SEGMENTS] : doctor->used->segments;
    uint64_t needed = lki_doctor_files_for(sessions, segments);
    bool scarce = needed > files_max;
    lki_doctor_tell(doctor, scarce ? LKI_HEALTH_WARNING : LKI_HEALTH_OK, "limits",
                    scarce ? "give it a smaller --limit, or more files: 'ulimit -n', or "
                             "LimitNOFILE= of its unit"
                           : NULL,
                    "with %" PRIu64 " sessions and %" PRIu64
                    " segments the broker needs about %" PRIu64 " files, and may open %" PRIu64,
                    sessions, segments, needed, files_max);
}

/* Memory and swap together, in bytes; 0: not known. */
static uint64_t memory_bytes(void)
{
    char line[128];
    unsigned long long memory = 0, swap = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file)) {
        (void)sscanf(line, "MemTotal: %llu", &memory);
        (void)sscanf(line, "SwapTotal: %llu", &swap);
    }
    (void)fclose(file);
    return (uint64_t)(memory + swap) * 1024;
}

static void look_at_bytes(struct lki_doctor *doctor, uint64_t limit)
{
    uint64_t there = memory_bytes();
    bool scarce = limit > there;
    if (there == 0)
        return;
    lki_doctor_tell(doctor, scarce ? LKI_HEALTH_WARNING : LKI_HEALTH_OK, "limit-bytes",
                    scarce ? "segments take memory when they are written to, files none: give it "
                             "a smaller --limit bytes=N if all may be written"
                           : NULL,
                    "segments may have %" PRIu64 " MiB together, and memory and swap are %" PRIu64
                    " MiB",
                    limit >> 20, there >> 20);
}

void lki_doctor_look_at_limits(struct lki_doctor *doctor, uint64_t files_max)
{
    uint64_t limits[LIMITED] = {0};
    if (doctor->used->peer_pid <= 0)
        return;
    read_limits(doctor->used->peer_pid, limits);
    if ((limits[SESSIONS] || limits[SEGMENTS]) && files_max > 0)
        look_at_descriptors(doctor, limits, files_max);
    if (limits[BYTES])
        look_at_bytes(doctor, limits[BYTES]);
}
