/* SPDX-License-Identifier: MIT */
/* Samples of several series, taken in rounds: sample i of each series belongs to round i. A series
 * may be compared with another of its group: the ratio is the median of the ratios of each round.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define BENCH_SERIES_MAX 6
#define BENCH_NO_BASE (-1)

struct bench_series {
    const char *name;
    double *samples; /* nanoseconds */
    size_t count;
    int base;     /* index of the series it is compared with, or BENCH_NO_BASE */
    double goal;  /* the ratio is to be at most this; 0: no goal */
    double limit; /* beyond this something is broken, however busy the machine is */
};

struct bench_group {
    const char *name;
    size_t rounds;
    size_t series_count;
    struct bench_series series[BENCH_SERIES_MAX];
};

struct bench_summary {
    double median, low, high; /* nanoseconds */
    double ratio;             /* 0 without a base */
};

void bench_group_init(struct bench_group *group, const char *name, size_t rounds);
void bench_group_deinit(struct bench_group *group);

/* Returns the index of the new series. */
int bench_group_add(struct bench_group *group, const char *name, int base, double goal,
                    double limit);
void bench_sample(struct bench_group *group, int series, double value_ns);

struct bench_summary bench_summarise(const struct bench_group *group, size_t series);
bool bench_group_within_limits(const struct bench_group *group);

void bench_print_table(FILE *out, const struct bench_group *groups, size_t count);
/* Returns 0, or -1 when it cannot be written. */
int bench_print_json(FILE *out, const struct bench_group *groups, size_t count);
