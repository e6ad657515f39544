/* SPDX-License-Identifier: MIT */
/* Samples of several series, taken in rounds: sample i of each series belongs to round i. A series
 * may be compared with others of its group: the ratio is the median of the ratios of each round, so
 * that what the machine does for a while does not count for one side only. Groups of one family
 * differ in one number (of processes, say) and make one table and one plot. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_SERIES_MAX 32
#define BENCH_COMPARISONS_MAX 3
#define BENCH_NO_BASE (-1)

/* Counts of times: 16 slots for each power of two, so off by at most 6 %. */
#define BENCH_HISTOGRAM_STEPS 16u
#define BENCH_HISTOGRAM_SLOTS (61u * BENCH_HISTOGRAM_STEPS)

struct bench_histogram {
    uint64_t count;
    uint64_t max_ns;
    uint32_t slots[BENCH_HISTOGRAM_SLOTS];
};

enum bench_better {
    BENCH_LESS, /* times */
    BENCH_MORE, /* rates */
};

/* With another series of the group. */
struct bench_comparison {
    int base;
    double goal;  /* the ratio is to be at most, or at least, this; 0: no goal */
    double limit; /* beyond this something is broken, however busy the machine is; 0: none */
};

struct bench_series {
    const char *name; /* borrowed: static, or of a peer */
    double *samples;  /* in the group's unit */
    size_t count;
    struct bench_comparison comparisons[BENCH_COMPARISONS_MAX];
    size_t comparison_count;
    double bound;                  /* a goal of the median itself; 0: none */
    struct bench_histogram *curve; /* of all rounds together; NULL: only the samples are known */
};

struct bench_group {
    const char *case_name;
    char name[80];
    char family[80];        /* empty: none */
    const char *curve_name; /* what the series' curves are of; NULL: of what the name says */
    const char *x_name;     /* of a family: what differs ... */
    double x;               /* ... and how much of it this is */
    const char *unit;       /* "ns", "1/s", ... */
    enum bench_better better;
    size_t rounds;
    size_t series_count;
    struct bench_series series[BENCH_SERIES_MAX];
};

struct bench_report {
    struct bench_group **groups; /* owned */
    size_t count;
    const char *case_name; /* whose groups are added now */
    uint64_t took_ns;      /* all of it */
};

struct bench_summary {
    double median, low, high;
    double ratios[BENCH_COMPARISONS_MAX];
};

/* A new group, which the report owns. */
struct bench_group *bench_group_add(struct bench_report *report, const char *unit,
                                    enum bench_better better, size_t rounds, const char *format,
                                    ...) __attribute__((format(printf, 5, 6)));

/* Makes the group a member of the family that its name so far names, and completes its name. */
void bench_group_join(struct bench_group *group, const char *x_name, double x);
void bench_report_deinit(struct bench_report *report);

/* Returns the index of the new series. */
int bench_series_add(struct bench_group *group, const char *name);

/* BENCH_NO_BASE if there is none. */
int bench_series_find(const struct bench_group *group, const char *name);

/* Compares it with another. Does nothing if either is BENCH_NO_BASE: it was not chosen. */
void bench_series_compare(struct bench_group *group, int series, int base, double goal,
                          double limit);
void bench_sample(struct bench_group *group, int series, double value);

/* Adds to the series' own times. */
void bench_series_curve(struct bench_group *group, int series, const struct bench_histogram *times);

struct bench_summary bench_summarise(const struct bench_group *group, size_t series);

bool bench_series_meets(const struct bench_group *group, size_t series, size_t comparison);
bool bench_series_in_bound(const struct bench_group *group, size_t series);
bool bench_report_within_limits(const struct bench_report *report);

void bench_histogram_add(struct bench_histogram *histogram, uint64_t ns);
void bench_histogram_merge(struct bench_histogram *into, const struct bench_histogram *other);

/* 0 <= part <= 1; the upper edge of the slot, and at most the largest. 0 without values. */
double bench_histogram_quantile(const struct bench_histogram *histogram, double part);
