/* SPDX-License-Identifier: MIT */
/* The report as tables for people, and as JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include <jansson.h>

#include "bench/bench.h"
#include "bench/figure.h"

#define NAME_WIDTH 36

void bench_machine_look(struct bench_machine *machine)
{
    char line[256];
    double load[1] = {-1};
    struct utsname system = {.release = "?"};
    (void)uname(&system);
    *machine = (struct bench_machine){.processors = bench_processors()};
    if (getloadavg(load, 1) == 1)
        machine->load = load[0];
    snprintf(machine->release, sizeof(machine->release), "%.60s", system.release);
    snprintf(machine->processor, sizeof(machine->processor), "unknown processor");
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL || colon[1] == '\0')
            continue;
        snprintf(machine->processor, sizeof(machine->processor), "%.*s",
                 (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (file != NULL)
        fclose(file);
}

struct cell {
    char text[40];
};

/* Three digits that mean something, whatever the size. */
static struct cell value_text(const struct bench_group *group, double value)
{
    static const char *const times[] = {"ns", "us", "ms", "s"};
    static const char *const counts[] = {"", "k", "M", "G"};
    bool is_time = strcmp(group->unit, "ns") == 0;
    struct cell cell;
    unsigned power = 0;
    while (fabs(value) >= 999.5 && power < 3) {
        value /= 1000;
        power++;
    }
    int digits = fabs(value) >= 99.95 ? 0 : fabs(value) >= 9.995 ? 1 : 2;
    snprintf(cell.text, sizeof(cell.text), "%.*f%s%s", digits, value, is_time ? " " : "",
             is_time ? times[power] : counts[power]);
    return cell;
}

/* Behind the name: nothing for times, which have theirs at each figure. */
static const char *unit_text(const struct bench_group *group)
{
    return strcmp(group->unit, "ns") == 0 ? "" : strcmp(group->unit, "1") == 0 ? "" : group->unit;
}

static void print_head(FILE *out, const struct bench_group *group, const char *name)
{
    fprintf(out, "\n%s (%s%s%zu round%s", name, unit_text(group), *unit_text(group) ? ", " : "",
            group->rounds, group->rounds == 1 ? "" : "s");
}

static void print_goal(FILE *out, const struct bench_group *group, const char *goal, bool met)
{
    fprintf(out, ", goal %s %s: %s", group->better == BENCH_LESS ? "at most" : "at least", goal,
            met ? "met" : "MISSED");
}

/* What it is compared with. In a family only goals: the other figures stand beside it. */
static void print_comparisons(FILE *out, const struct bench_group *group, size_t index,
                              bool goals_only, const char *before)
{
    const struct bench_series *series = &group->series[index];
    struct bench_summary summary = bench_summarise(group, index);
    for (size_t c = 0; c < series->comparison_count; c++) {
        const struct bench_comparison *comparison = &series->comparisons[c];
        if (goals_only && comparison->goal <= 0)
            continue;
        fprintf(out, "%s%.2f of '%s'", before, summary.ratios[c],
                group->series[comparison->base].name);
        char goal[24];
        snprintf(goal, sizeof(goal), "%g", comparison->goal);
        if (comparison->goal > 0)
            print_goal(out, group, goal, bench_series_meets(group, index, c));
        before = "; ";
    }
    if (series->bound > 0) {
        fprintf(out, "%s%s", before, value_text(group, summary.median).text);
        print_goal(out, group, value_text(group, series->bound).text,
                   bench_series_in_bound(group, index));
    }
}

static void print_group(FILE *out, const struct bench_group *group)
{
    bool curves = false;
    for (size_t i = 0; i < group->series_count; i++)
        curves = curves || group->series[i].curve;
    print_head(out, group, group->name);
    fprintf(out, ")\n  %-*s %10s %10s %10s", NAME_WIDTH, "", "median", "lowest", "highest");
    fprintf(out, curves ? " %10s %10s\n" : "\n", "p99", "p99.9");
    for (size_t i = 0; i < group->series_count; i++) {
        const struct bench_series *series = &group->series[i];
        struct bench_summary summary = bench_summarise(group, i);
        fprintf(out, "  %-*s %10s %10s %10s", NAME_WIDTH, series->name,
                value_text(group, summary.median).text, value_text(group, summary.low).text,
                value_text(group, summary.high).text);
        if (series->curve)
            fprintf(out, " %10s %10s",
                    value_text(group, bench_histogram_quantile(series->curve, 0.99)).text,
                    value_text(group, bench_histogram_quantile(series->curve, 0.999)).text);
        else if (curves)
            fprintf(out, " %10s %10s", "", "");
        print_comparisons(out, group, i, false, "  ");
        fputc('\n', out);
    }
}

/* Those of the family of the first one, which are all behind it. */
static size_t find_family(const struct bench_report *report, size_t first,
                          const struct bench_group **out_members, size_t capacity)
{
    size_t count = 0;
    for (size_t g = first; g < report->count && count < capacity; g++)
        if (strcmp(report->groups[g]->family, report->groups[first]->family) == 0)
            out_members[count++] = report->groups[g];
    return count;
}

static bool is_first_of_family(const struct bench_report *report, size_t index)
{
    for (size_t g = 0; g < index; g++)
        if (strcmp(report->groups[g]->family, report->groups[index]->family) == 0)
            return false;
    return true;
}

static void print_family(FILE *out, const struct bench_group *const *members, size_t count)
{
    const struct bench_group *first = members[0];
    print_head(out, first, first->family);
    fprintf(out, ": median, lowest - highest)\n  %-*s", NAME_WIDTH - 12, "");
    for (size_t g = 0; g < count; g++) {
        char head[48];
        snprintf(head, sizeof(head), "%g %s", members[g]->x, members[g]->x_name);
        fprintf(out, " %28s", head);
    }
    fputc('\n', out);
    for (size_t i = 0; i < first->series_count; i++) {
        fprintf(out, "  %-*s", NAME_WIDTH - 12, first->series[i].name);
        for (size_t g = 0; g < count; g++) {
            struct bench_summary summary = bench_summarise(members[g], i);
            char range[96];
            snprintf(range, sizeof(range), "%s - %s", value_text(first, summary.low).text,
                     value_text(first, summary.high).text);
            fprintf(out, " %8s %19s", value_text(first, summary.median).text, range);
        }
        fputc('\n', out);
    }
    for (size_t i = 0; i < first->series_count; i++)
        for (size_t g = 0; g < count; g++) {
            char before[80];
            snprintf(before, sizeof(before), "  %s, %g %s: ", first->series[i].name, members[g]->x,
                     members[g]->x_name);
            bool has_goal = members[g]->series[i].bound > 0;
            for (size_t c = 0; c < members[g]->series[i].comparison_count; c++)
                has_goal = has_goal || members[g]->series[i].comparisons[c].goal > 0;
            if (!has_goal)
                continue;
            print_comparisons(out, members[g], i, true, before);
            fputc('\n', out);
        }
}

void bench_print_table(FILE *out, const struct bench_report *report)
{
    const struct bench_group *members[32];
    for (size_t g = 0; g < report->count; g++) {
        if (!*report->groups[g]->family)
            print_group(out, report->groups[g]);
        else if (is_first_of_family(report, g))
            print_family(out, members,
                         find_family(report, g, members, sizeof(members) / sizeof(*members)));
    }
}

static json_t *comparisons_json(const struct bench_group *group, size_t index)
{
    const struct bench_series *series = &group->series[index];
    struct bench_summary summary = bench_summarise(group, index);
    json_t *list = json_array();
    for (size_t c = 0; c < series->comparison_count; c++) {
        const struct bench_comparison *comparison = &series->comparisons[c];
        json_t *object = json_pack("{s:s, s:f}", "base", group->series[comparison->base].name,
                                   "ratio", summary.ratios[c]);
        if (comparison->goal > 0) {
            json_object_set_new(object, "goal", json_real(comparison->goal));
            json_object_set_new(object, "met", json_boolean(bench_series_meets(group, index, c)));
        }
        json_array_append_new(list, object);
    }
    return list;
}

static json_t *series_json(const struct bench_group *group, size_t index)
{
    const struct bench_series *series = &group->series[index];
    struct bench_summary summary = bench_summarise(group, index);
    json_t *samples = json_array();
    for (size_t i = 0; i < series->count; i++)
        json_array_append_new(samples, json_real(series->samples[i]));
    json_t *object = json_pack("{s:s, s:f, s:f, s:f, s:o, s:o}", "name", series->name, "median",
                               summary.median, "lowest", summary.low, "highest", summary.high,
                               "samples", samples, "compared", comparisons_json(group, index));
    if (series->bound > 0) {
        json_object_set_new(object, "goal", json_real(series->bound));
        json_object_set_new(object, "met", json_boolean(bench_series_in_bound(group, index)));
    }
    if (series->curve) {
        static const double parts[] = {0.5, 0.9, 0.99, 0.999, 0.9999};
        json_t *curve = json_pack("{s:I, s:f}", "count", (json_int_t)series->curve->count, "max_ns",
                                  (double)series->curve->max_ns);
        for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
            char key[24];
            snprintf(key, sizeof(key), "p%g_ns", parts[i] * 100);
            json_object_set_new(curve, key,
                                json_real(bench_histogram_quantile(series->curve, parts[i])));
        }
        json_object_set_new(object, "times", curve);
    }
    return object;
}

static json_t *group_json(const struct bench_group *group)
{
    json_t *series = json_array();
    for (size_t i = 0; i < group->series_count; i++)
        json_array_append_new(series, series_json(group, i));
    json_t *object =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:o}", "case", group->case_name, "name", group->name,
                  "unit", group->unit, "better", group->better == BENCH_LESS ? "less" : "more",
                  "rounds", (json_int_t)group->rounds, "series", series);
    if (*group->family) {
        json_object_set_new(object, "family", json_string(group->family));
        json_object_set_new(object, group->x_name, json_real(group->x));
    }
    return object;
}

int bench_print_json(FILE *out, const struct bench *bench, const struct bench_machine *machine,
                     const struct bench_report *report)
{
    json_t *groups = json_array();
    json_t *peers = json_array();
    for (size_t g = 0; g < report->count; g++)
        json_array_append_new(groups, group_json(report->groups[g]));
    for (size_t i = 0; i < bench->peer_count; i++)
        json_array_append_new(peers, json_pack("{s:s, s:s}", "name", bench->peers[i]->name, "what",
                                               bench->peers[i]->what));
    json_t *root = json_pack(
        "{s:s, s:{s:s, s:i, s:s}, s:f, s:f, s:f, s:o, s:o}", "schema", "lockkeeper.bench/1",
        "machine", "processor", machine->processor, "processors", (int)machine->processors, "linux",
        machine->release, "load_average", machine->load, "seconds", (double)bench->cell_ns / 1e9,
        "took_s", (double)report->took_ns / 1e9, "peers", peers, "groups", groups);
    int r = root ? json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : -1;
    json_decref(root);
    fputc('\n', out);
    return r;
}
