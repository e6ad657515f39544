/* SPDX-License-Identifier: MIT */
/* What the fuzz targets share: the entry that libFuzzer calls, a reader that turns its bytes into
 * choices, and the check that makes a finding. A target keeps nothing from one input to the next.
 *
 * The same targets are built without libFuzzer, around the main() of replay.c, and are then fed the
 * kept inputs of tests/fuzz/corpus/. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The target. Returns 0; whatever is wrong ends the process. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

/* Choices out of an input. Behind its end all of them are 0, so that any prefix is an input too. */
struct fuzz_input {
    const uint8_t *next;
    size_t left;
};

static inline uint8_t fuzz_byte(struct fuzz_input *input)
{
    if (input->left == 0)
        return 0;
    input->left--;
    return *input->next++;
}

/* A number from 0 to count - 1, of one byte: count <= 256. */
static inline uint32_t fuzz_below(struct fuzz_input *input, uint32_t count)
{
    return fuzz_byte(input) % count;
}

static inline uint64_t fuzz_number(struct fuzz_input *input, unsigned bytes)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < bytes; i++)
        number |= (uint64_t)fuzz_byte(input) << (8 * i);
    return number;
}

static inline uint32_t fuzz_u32(struct fuzz_input *input)
{
    return (uint32_t)fuzz_number(input, 4);
}

static inline uint64_t fuzz_u64(struct fuzz_input *input)
{
    return fuzz_number(input, 8);
}

/* The next bytes as they are, at most max; their number comes first, in one byte. */
static inline const uint8_t *fuzz_bytes(struct fuzz_input *input, size_t max, size_t *out_bytes)
{
    size_t bytes = fuzz_byte(input);
    bytes = bytes < max ? bytes : max;
    bytes = bytes < input->left ? bytes : input->left;
    const uint8_t *start = input->next;
    input->next += bytes;
    input->left -= bytes;
    *out_bytes = bytes;
    return start;
}

/* Called by fuzz_fail() first; need not return. NULL, as a rule. */
extern void (*fuzz_on_fail)(void);

/* Prints the place and the words, and aborts: a finding. */
void fuzz_fail(const char *file, int line, const char *expression, const char *format, ...)
    __attribute__((noreturn, cold));

/* FUZZ_CHECK(condition) or FUZZ_CHECK(condition, "words", ...). */
#define FUZZ_CHECK(...) FUZZ_CHECK_(__VA_ARGS__, "")
#define FUZZ_CHECK_(condition, ...)                                                                \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                                \
    } while (0)
