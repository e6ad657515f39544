/* SPDX-License-Identifier: MIT */
/* Text and numbers: what people write on a command line and read in a table. Pure, except for the
 * two that look a user or a process up. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A size in bytes: digits, and K, M, G or T (powers of 1024; "KiB" and "KB" too). Returns 0,
 * -EINVAL (not a size) or -ERANGE (does not fit in 64 bits). */
int lki_text_parse_size(const char *text, uint64_t *out_bytes);

/* A whole number in decimal digits, at most max. Returns 0, -EINVAL or -ERANGE. */
int lki_text_parse_count(const char *text, uint64_t max, uint64_t *out_count);

/* Seconds with a fraction, as flock(1) takes them: "5", "0.5", "1e-1". Returns 0, -EINVAL, or
 * -ERANGE (negative, or more than 500 years). */
int lki_text_parse_seconds(const char *text, uint64_t *out_ns);

struct lki_text {
    char text[64];
};

/* "0.4s", "2m13s", "1h02m", "3d02h". */
struct lki_text lki_text_duration(uint64_t ns);

/* "64M", "1.8G", "512": at most four characters and a letter, powers of 1024. */
struct lki_text lki_text_size(uint64_t bytes);

/* The name of a user, else its number. */
struct lki_text lki_text_user(uid_t uid);

/* "shared" or "exclusive"; "-" for anything else. */
const char *lki_text_mode(uint32_t mode);

/* "SEGMENT", "SEGMENT#3" or "SEGMENT#orders", newly allocated. Lock 0 without a name is the
 * segment's own name: the plain named lock. NULL: no memory. */
char *lki_text_lock_label(const char *segment, uint32_t lock, const char *lock_name);

/* Splits "SEGMENT#LOCK" in place: cuts label at '#'. *out_lock is the lock's name or NULL;
 * *out_index its number if the name is all digits or missing (0). Returns true if the lock goes by
 * index. -1 in *out_index: digits that are no index. */
bool lki_text_split_label(char *label, const char **out_lock, int64_t *out_index);

/* The command line of a process with spaces between its arguments and control bytes replaced, newly
 * allocated; NULL if /proc does not show it. */
char *lki_text_command_line(pid_t pid);
