/* SPDX-License-Identifier: MIT */
#include "bench/figure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

struct bench_group *bench_group_add(struct bench_report *report, const char *unit,
                                    enum bench_better better, size_t rounds, const char *format,
                                    ...)
{
    struct bench_group **groups =
        realloc(report->groups, (report->count + 1) * sizeof(*report->groups));
    struct bench_group *group = calloc(1, sizeof(*group));
    va_list arguments;
    if (!groups || !group)
        bench_fail("no memory");
    report->groups = groups;
    report->groups[report->count++] = group;
    group->case_name = report->case_name;
    group->unit = unit;
    group->better = better;
    group->rounds = rounds;
    va_start(arguments, format);
    vsnprintf(group->name, sizeof(group->name), format, arguments);
    va_end(arguments);
    return group;
}

void bench_group_join(struct bench_group *group, const char *x_name, double x)
{
    size_t used = strlen(group->name);
    memcpy(group->family, group->name, sizeof(group->family));
    group->x_name = x_name;
    group->x = x;
    snprintf(group->name + used, sizeof(group->name) - used, ", %g %s", x, x_name);
}

void bench_report_deinit(struct bench_report *report)
{
    for (size_t g = 0; g < report->count; g++) {
        for (size_t i = 0; i < report->groups[g]->series_count; i++) {
            free(report->groups[g]->series[i].samples);
            free(report->groups[g]->series[i].curve);
        }
        free(report->groups[g]);
    }
    free(report->groups);
    *report = (struct bench_report){0};
}

int bench_series_add(struct bench_group *group, const char *name)
{
    if (group->series_count == BENCH_SERIES_MAX)
        bench_fail("%s: too many series", group->name);
    struct bench_series *series = &group->series[group->series_count];
    *series = (struct bench_series){.name = name, .samples = calloc(group->rounds, sizeof(double))};
    if (!series->samples)
        bench_fail("%s: no memory", group->name);
    return (int)group->series_count++;
}

int bench_series_find(const struct bench_group *group, const char *name)
{
    for (size_t i = 0; i < group->series_count; i++)
        if (strcmp(group->series[i].name, name) == 0)
            return (int)i;
    return BENCH_NO_BASE;
}

void bench_series_compare(struct bench_group *group, int index, int base, double goal, double limit)
{
    if (index == BENCH_NO_BASE || base == BENCH_NO_BASE)
        return;
    struct bench_series *series = &group->series[index];
    if (series->comparison_count == BENCH_COMPARISONS_MAX)
        bench_fail("%s: too many comparisons", series->name);
    series->comparisons[series->comparison_count++] =
        (struct bench_comparison){.base = base, .goal = goal, .limit = limit};
}

void bench_sample(struct bench_group *group, int index, double value)
{
    struct bench_series *series = &group->series[index];
    if (series->count == group->rounds)
        bench_fail("%s: too many samples", series->name);
    series->samples[series->count++] = value;
}

void bench_series_curve(struct bench_group *group, int index, const struct bench_histogram *times)
{
    struct bench_series *series = &group->series[index];
    if (!series->curve)
        series->curve = calloc(1, sizeof(*series->curve));
    if (!series->curve)
        bench_fail("%s: no memory", series->name);
    bench_histogram_merge(series->curve, times);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts values. */
static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(double), compare);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

struct bench_summary bench_summarise(const struct bench_group *group, size_t index)
{
    const struct bench_series *series = &group->series[index];
    struct bench_summary summary = {0};
    size_t count = series->count;
    if (count == 0)
        return summary;
    double *values = calloc(count, sizeof(double));
    if (!values)
        bench_fail("no memory");
    for (size_t c = 0; c < series->comparison_count; c++) {
        const struct bench_series *base = &group->series[series->comparisons[c].base];
        for (size_t i = 0; i < count; i++)
            values[i] = series->samples[i] / base->samples[i];
        summary.ratios[c] = median(values, count);
    }
    memcpy(values, series->samples, count * sizeof(double));
    summary.median = median(values, count);
    summary.low = values[0];
    summary.high = values[count - 1];
    free(values);
    return summary;
}

static bool meets(enum bench_better better, double value, double goal)
{
    return better == BENCH_LESS ? value <= goal : value >= goal;
}

bool bench_series_meets(const struct bench_group *group, size_t index, size_t comparison)
{
    double goal = group->series[index].comparisons[comparison].goal;
    return goal <= 0 ||
           meets(group->better, bench_summarise(group, index).ratios[comparison], goal);
}

bool bench_series_in_bound(const struct bench_group *group, size_t index)
{
    double bound = group->series[index].bound;
    return bound <= 0 || meets(group->better, bench_summarise(group, index).median, bound);
}

static bool series_within_limits(const struct bench_group *group, size_t index)
{
    const struct bench_series *series = &group->series[index];
    struct bench_summary summary = bench_summarise(group, index);
    for (size_t c = 0; c < series->comparison_count; c++)
        if (series->comparisons[c].limit > 0 &&
            !meets(group->better, summary.ratios[c], series->comparisons[c].limit))
            return false;
    return true;
}

bool bench_report_within_limits(const struct bench_report *report)
{
    bool within = true;
    for (size_t g = 0; g < report->count; g++)
        for (size_t i = 0; i < report->groups[g]->series_count; i++)
            within = series_within_limits(report->groups[g], i) && within;
    return within;
}

static unsigned slot_of(uint64_t ns)
{
    if (ns < BENCH_HISTOGRAM_STEPS)
        return (unsigned)ns;
    unsigned power = 63u - (unsigned)__builtin_clzll(ns); /* 4 and up */
    return (power - 3) * BENCH_HISTOGRAM_STEPS +
           (unsigned)((ns >> (power - 4)) % BENCH_HISTOGRAM_STEPS);
}

/* The first value that is too large for it. */
static double slot_end(unsigned slot)
{
    if (slot < BENCH_HISTOGRAM_STEPS)
        return slot + 1;
    unsigned power = slot / BENCH_HISTOGRAM_STEPS + 3;
    uint64_t step = UINT64_C(1) << (power - 4);
    return (double)(step * (BENCH_HISTOGRAM_STEPS + slot % BENCH_HISTOGRAM_STEPS + 1));
}

void bench_histogram_add(struct bench_histogram *histogram, uint64_t ns)
{
    histogram->count++;
    if (ns > histogram->max_ns)
        histogram->max_ns = ns;
    histogram->slots[slot_of(ns)]++;
}

void bench_histogram_merge(struct bench_histogram *into, const struct bench_histogram *other)
{
    into->count += other->count;
    if (other->max_ns > into->max_ns)
        into->max_ns = other->max_ns;
    for (unsigned i = 0; i < BENCH_HISTOGRAM_SLOTS; i++)
        into->slots[i] += other->slots[i];
}

double bench_histogram_quantile(const struct bench_histogram *histogram, double part)
{
    double wanted = part * (double)histogram->count;
    uint64_t seen = 0;
    for (unsigned i = 0; i < BENCH_HISTOGRAM_SLOTS; i++) {
        seen += histogram->slots[i];
        if (seen > 0 && (double)seen >= wanted)
            return slot_end(i) < (double)histogram->max_ns ? slot_end(i)
                                                           : (double)histogram->max_ns;
    }
    return (double)histogram->max_ns;
}
