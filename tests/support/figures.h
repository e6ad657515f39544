/* SPDX-License-Identifier: MIT */
/* Medians and ranges of what was measured, and how they are printed. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct test_figures {
    uint64_t *values_ns;
    size_t count;
    size_t capacity;
};

void test_figures_init(struct test_figures *figures, size_t capacity);
void test_figures_deinit(struct test_figures *figures);
void test_figures_add(struct test_figures *figures, uint64_t value_ns);

/* Sorts. 0 <= percent <= 100; 50 is the median. Zero without values. */
uint64_t test_figures_percentile(struct test_figures *figures, unsigned percent);

/* "name: median 0.41 ms, 0.30 .. 1.22 ms, 50 rounds; load 0.20" */
void test_figures_print_ms(struct test_figures *figures, const char *name);
