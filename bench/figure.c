/* SPDX-License-Identifier: MIT */
#include "bench/figure.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "bench/bench.h"

static double load_average(void)
{
    double load[1] = {0};
    return getloadavg(load, 1) == 1 ? load[0] : -1;
}

void bench_group_init(struct bench_group *group, const char *name, size_t rounds)
{
    *group = (struct bench_group){.name = name, .rounds = rounds};
}

void bench_group_deinit(struct bench_group *group)
{
    for (size_t i = 0; i < group->series_count; i++)
        free(group->series[i].samples);
    *group = (struct bench_group){0};
}

int bench_group_add(struct bench_group *group, const char *name, int base, double goal,
                    double limit)
{
    if (group->series_count == BENCH_SERIES_MAX)
        bench_fail("%s: too many series", group->name);
    struct bench_series *series = &group->series[group->series_count];
    *series = (struct bench_series){.name = name,
                                    .samples = calloc(group->rounds, sizeof(double)),
                                    .base = base,
                                    .goal = goal,
                                    .limit = limit};
    if (!series->samples)
        bench_fail("%s: no memory", group->name);
    return (int)group->series_count++;
}

void bench_sample(struct bench_group *group, int index, double value_ns)
{
    struct bench_series *series = &group->series[index];
    if (series->count == group->rounds)
        bench_fail("%s: too many samples", series->name);
    series->samples[series->count++] = value_ns;
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
    double *values = calloc(count ? count : 1, sizeof(double));

    if (!values)
        bench_fail("no memory");
    if (count == 0) {
        free(values);
        return summary;
    }
    if (series->base != BENCH_NO_BASE) {
        for (size_t i = 0; i < count; i++)
            values[i] = series->samples[i] / group->series[series->base].samples[i];
        summary.ratio = median(values, count);
    }
    memcpy(values, series->samples, count * sizeof(double));
    summary.median = median(values, count);
    summary.low = values[0];
    summary.high = values[count - 1];
    free(values);
    return summary;
}

static bool meets_goal(const struct bench_series *series, const struct bench_summary *summary)
{
    return series->goal <= 0 || summary->ratio <= series->goal;
}

bool bench_group_within_limits(const struct bench_group *group)
{
    for (size_t i = 0; i < group->series_count; i++) {
        struct bench_summary summary = bench_summarise(group, i);
        if (group->series[i].limit > 0 && summary.ratio > group->series[i].limit)
            return false;
    }
    return true;
}

void bench_print_table(FILE *out, const struct bench_group *groups, size_t count)
{
    for (size_t g = 0; g < count; g++) {
        const struct bench_group *group = &groups[g];
        fprintf(out, "%s (%zu rounds, load %.2f)\n", group->name, group->rounds, load_average());
        fprintf(out, "  %-44s %10s %10s %10s  %s\n", "", "median ns", "lowest", "highest", "ratio");
        for (size_t i = 0; i < group->series_count; i++) {
            const struct bench_series *series = &group->series[i];
            struct bench_summary summary = bench_summarise(group, i);
            fprintf(out, "  %-44s %10.1f %10.1f %10.1f", series->name, summary.median, summary.low,
                    summary.high);
            if (series->base != BENCH_NO_BASE)
                fprintf(out, "  %.2f of '%s'", summary.ratio, group->series[series->base].name);
            if (series->goal > 0)
                fprintf(out, ", goal %.2f: %s", series->goal,
                        meets_goal(series, &summary) ? "met" : "MISSED");
            fputc('\n', out);
        }
    }
}

static json_t *series_json(const struct bench_group *group, size_t index)
{
    const struct bench_series *series = &group->series[index];
    struct bench_summary summary = bench_summarise(group, index);
    json_t *object =
        json_pack("{s:s, s:f, s:f, s:f}", "name", series->name, "median_ns", summary.median,
                  "lowest_ns", summary.low, "highest_ns", summary.high);
    if (series->base != BENCH_NO_BASE) {
        json_object_set_new(object, "base", json_string(group->series[series->base].name));
        json_object_set_new(object, "ratio", json_real(summary.ratio));
    }
    if (series->goal > 0) {
        json_object_set_new(object, "goal", json_real(series->goal));
        json_object_set_new(object, "met", json_boolean(meets_goal(series, &summary)));
    }
    return object;
}

int bench_print_json(FILE *out, const struct bench_group *groups, size_t count)
{
    json_t *list = json_array();
    for (size_t g = 0; g < count; g++) {
        json_t *series = json_array();
        for (size_t i = 0; i < groups[g].series_count; i++)
            json_array_append_new(series, series_json(&groups[g], i));
        json_array_append_new(list, json_pack("{s:s, s:I, s:o}", "name", groups[g].name, "rounds",
                                              (json_int_t)groups[g].rounds, "series", series));
    }
    json_t *root = json_pack("{s:f, s:o}", "load_average", load_average(), "groups", list);
    int r = root ? json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : -1;
    json_decref(root);
    fputc('\n', out);
    return r;
}
