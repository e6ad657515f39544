/* SPDX-License-Identifier: MIT */
/* Plots as SVG: no library, no script, no font of their own. One per family of groups (a line per
 * series, against what differs), and one per group whose times are known one by one (a line per
 * series: how much of them was over within which time). */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/bench.h"

#define WIDTH 860.0
#define HEIGHT 460.0
#define LEFT 80.0
#define RIGHT 230.0 /* where the names are */
#define TOP 50.0
#define BOTTOM 60.0
#define POINTS_MAX 64
#define LINES_MAX BENCH_SERIES_MAX

struct line {
    const char *name;
    double x[POINTS_MAX], y[POINTS_MAX];
    size_t points;
};

struct axis {
    const char *name;
    bool log;
    double low, high;
};

struct chart {
    const char *title;
    struct axis x, y;
    struct line lines[LINES_MAX];
    size_t line_count;
};

/* Told apart without colours too: the second half is dashed. */
static const char *const colours[] = {"#c2255c", "#1971c2", "#2f9e44", "#e8590c",
                                      "#6741d9", "#0c8599", "#868e96", "#9c6500"};
#define COLOURS (sizeof(colours) / sizeof(*colours))

static void put_text(FILE *out, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '&':
            fputs("&amp;", out);
            break;
        case '<':
            fputs("&lt;", out);
            break;
        default:
            fputc(*text, out);
        }
}

static void put_label(FILE *out, double x, double y, const char *anchor, const char *more,
                      const char *text)
{
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>", x, y, anchor, more);
    put_text(out, text);
    fputs("</text>\n", out);
}

static double place(const struct axis *axis, double value, double from, double to)
{
    double low = axis->log ? log10(axis->low) : axis->low;
    double high = axis->log ? log10(axis->high) : axis->high;
    double here = axis->log ? log10(value > axis->low ? value : axis->low) : value;
    return from + (here - low) / (high - low) * (to - from);
}

static double place_x(const struct chart *chart, double value)
{
    return place(&chart->x, value, LEFT, WIDTH - RIGHT);
}

static double place_y(const struct chart *chart, double value)
{
    return place(&chart->y, value, HEIGHT - BOTTOM, TOP);
}

/* Times with their units, other figures in thousands. */
static void tick_text(char *out, size_t capacity, const struct axis *axis, double value)
{
    static const char *const times[] = {" ns", " us", " ms", " s"};
    static const char *const counts[] = {"", "k", "M", "G"};
    bool is_time = strcmp(axis->name, "ns") == 0;
    unsigned power = 0;
    while (value >= 1000 && power < 3) {
        value /= 1000;
        power++;
    }
    snprintf(out, capacity, "%g%s", value, (is_time ? times : counts)[power]);
}

static void put_y_tick(FILE *out, const struct chart *chart, double value)
{
    char text[32];
    double y = place_y(chart, value);
    tick_text(text, sizeof(text), &chart->y, value);
    fprintf(out, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>\n", LEFT, y, WIDTH - RIGHT);
    put_label(out, LEFT - 8, y + 4, "end", "", text);
}

static void put_y_axis(FILE *out, const struct chart *chart)
{
    if (chart->y.log) {
        for (double value = chart->y.low; value <= chart->y.high * 1.001; value *= 10)
            put_y_tick(out, chart, value);
    } else {
        double step = pow(10, floor(log10(chart->y.high)));
        while (chart->y.high / step < 4)
            step /= 2;
        for (double value = 0; value <= chart->y.high * 1.001; value += step)
            put_y_tick(out, chart, value);
    }
    char more[80];
    snprintf(more, sizeof(more), " transform=\"rotate(-90 18 %.1f)\"", HEIGHT / 2);
    put_label(out, 18, HEIGHT / 2, "middle", more,
              strcmp(chart->y.name, "ns") == 0  ? "time"
              : strcmp(chart->y.name, "1") == 0 ? ""
                                                : chart->y.name);
}

/* At each value that a line has a point at; of percentiles at round ones. */
static void put_x_axis(FILE *out, const struct chart *chart, bool percentiles)
{
    static const struct {
        double x;
        const char *text;
    } parts[] = {{2, "50 %"}, {10, "90 %"}, {100, "99 %"}, {1000, "99.9 %"}, {10000, "99.99 %"}};
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts) && percentiles; i++)
        if (parts[i].x <= chart->x.high * 1.001)
            put_label(out, place_x(chart, parts[i].x), HEIGHT - BOTTOM + 20, "middle", "",
                      parts[i].text);
    for (size_t i = 0; i < chart->lines[0].points && !percentiles; i++) {
        char text[32];
        tick_text(text, sizeof(text), &chart->x, chart->lines[0].x[i]);
        put_label(out, place_x(chart, chart->lines[0].x[i]), HEIGHT - BOTTOM + 20, "middle", "",
                  text);
    }
    put_label(out, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, "middle", "", chart->x.name);
}

static void put_line(FILE *out, const struct chart *chart, size_t index)
{
    const struct line *line = &chart->lines[index];
    const char *dash = index >= 2 * COLOURS ? " stroke-dasharray=\"2 3\""
                       : index >= COLOURS   ? " stroke-dasharray=\"7 4\""
                                            : "";
    double y = TOP + 8 + 18 * (double)index;
    const char *kind = strncmp(line->name, "lockkeeper", 10) == 0 ? "line ours" : "line";
    fprintf(out, "<path class=\"%s\" stroke=\"%s\"%s d=\"M", kind, colours[index % COLOURS], dash);
    for (size_t i = 0; i < line->points; i++)
        fprintf(out, "%s%.1f %.1f", i ? "L" : "", place_x(chart, line->x[i]),
                place_y(chart, line->y[i]));
    fprintf(out, "\"/>\n<path class=\"%s\" stroke=\"%s\"%s d=\"M%.1f %.1fh24\"/>\n", kind,
            colours[index % COLOURS], dash, WIDTH - RIGHT + 16, y);
    put_label(out, WIDTH - RIGHT + 46, y + 4, "start", "", line->name);
}

static void put_chart(FILE *out, const struct chart *chart, bool percentiles)
{
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
            "viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" font-size=\"12\">\n"
            "<style>.grid{stroke:#dee2e6}.line{fill:none;stroke-width:1.5}.ours{stroke-width:3.5}"
            "text{fill:#212529}"
            "</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT);
    put_label(out, LEFT, 26, "start", " font-size=\"15\" font-weight=\"bold\"", chart->title);
    put_y_axis(out, chart);
    put_x_axis(out, chart, percentiles);
    for (size_t i = 0; i < chart->line_count; i++)
        put_line(out, chart, i);
    fputs("</svg>\n", out);
}

/* Room for all points; logarithmic if they lie far apart. */
static void fit(struct chart *chart)
{
    double low = INFINITY, high = 0;
    for (size_t l = 0; l < chart->line_count; l++)
        for (size_t i = 0; i < chart->lines[l].points; i++) {
            double y = chart->lines[l].y[i];
            if (y > 0 && y < low)
                low = y;
            if (y > high)
                high = y;
        }
    if (high <= 0)
        low = high = 1;
    chart->y.log = high > 20 * low;
    chart->y.low = chart->y.log ? pow(10, floor(log10(low))) : 0;
    chart->y.high = chart->y.log ? pow(10, ceil(log10(high))) : high * 1.05;
}

static int write_chart(const char *directory, struct chart *chart, bool percentiles)
{
    char path[PATH_MAX];
    char name[96];
    size_t used = 0;
    fit(chart);
    for (const char *from = chart->title; *from && used + 1 < sizeof(name); from++) {
        if (isalnum((unsigned char)*from))
            name[used++] = (char)tolower((unsigned char)*from);
        else if (used > 0 && name[used - 1] != '-')
            name[used++] = '-';
    }
    while (used > 0 && name[used - 1] == '-')
        used--;
    name[used] = '\0';
    if (snprintf(path, sizeof(path), "%s/%s.svg", directory, name) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    FILE *out = fopen(path, "we");
    if (!out)
        return -errno;
    put_chart(out, chart, percentiles);
    int failed = ferror(out);
    return fclose(out) != 0 || failed ? -EIO : 0;
}

static int plot_family(const char *directory, const struct bench_report *report, size_t first)
{
    static struct chart chart; /* large */
    const struct bench_group *head = report->groups[first];
    chart = (struct chart){.title = head->family,
                           .x = {.name = head->x_name, .low = head->x, .high = head->x},
                           .y = {.name = head->unit},
                           .line_count = head->series_count};
    for (size_t i = 0; i < head->series_count; i++)
        chart.lines[i].name = head->series[i].name;
    for (size_t g = first; g < report->count; g++) {
        const struct bench_group *group = report->groups[g];
        if (strcmp(group->family, head->family) != 0)
            continue;
        chart.x.low = fmin(chart.x.low, group->x);
        chart.x.high = fmax(chart.x.high, group->x);
        for (size_t i = 0; i < head->series_count && chart.lines[i].points < POINTS_MAX; i++) {
            struct line *line = &chart.lines[i];
            line->x[line->points] = group->x;
            line->y[line->points++] = bench_summarise(group, i).median;
        }
    }
    if (chart.x.high <= chart.x.low)
        return 0;                  /* a single column: no line */
    chart.x.log = chart.x.low > 0; /* they double, or more */
    return write_chart(directory, &chart, false);
}

static int plot_curves(const char *directory, const struct bench_group *group)
{
    static struct chart chart;
    char title[96];
    if (group->curve_name)
        snprintf(title, sizeof(title), "%s, %g %s, percentiles", group->curve_name, group->x,
                 group->x_name);
    else
        snprintf(title, sizeof(title), "%s, percentiles", group->name);
    chart = (struct chart){.title = title,
                           .x = {.name = "part of all", .log = true, .low = 1, .high = 2},
                           .y = {.name = "ns"}};
    for (size_t i = 0; i < group->series_count; i++) {
        const struct bench_histogram *curve = group->series[i].curve;
        if (!curve || curve->count < 10)
            continue;
        struct line *line = &chart.lines[chart.line_count++];
        line->name = group->series[i].name;
        /* As far as there are times to tell. */
        for (double x = 1; x <= 1e4 && x <= (double)curve->count; x *= 1.25) {
            line->x[line->points] = x;
            line->y[line->points++] = bench_histogram_quantile(curve, 1 - 1 / x);
            chart.x.high = fmax(chart.x.high, x);
        }
    }
    return chart.line_count > 0 ? write_chart(directory, &chart, true) : 0;
}

int bench_plot_into(const char *directory)
{
    struct stat status;
    if (mkdir(directory, 0777) == 0)
        return 0;
    if (errno != EEXIST || stat(directory, &status) < 0)
        return -errno;
    if (!S_ISDIR(status.st_mode))
        return -ENOTDIR;
    return access(directory, W_OK | X_OK) < 0 ? -errno : 0;
}

int bench_plot(const char *directory, const struct bench_report *report)
{
    for (size_t g = 0; g < report->count; g++) {
        const struct bench_group *group = report->groups[g];
        bool first = *group->family;
        for (size_t before = 0; before < g && first; before++)
            first = strcmp(report->groups[before]->family, group->family) != 0;
        int r = first ? plot_family(directory, report, g) : 0;
        if (r == 0)
            r = plot_curves(directory, group);
        if (r < 0)
            return r;
    }
    return 0;
}
