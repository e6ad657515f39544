/* SPDX-License-Identifier: MIT */
#include "tests/support/figures.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/support/process.h"
#include "tests/support/watch.h"

void test_figures_init(struct test_figures *figures, size_t capacity)
{
    *figures = (struct test_figures){.values_ns = calloc(capacity, sizeof(uint64_t)),
                                     .capacity = capacity};
    test_check(figures->values_ns != NULL, "memory for %zu figures", capacity);
}

void test_figures_deinit(struct test_figures *figures)
{
    free(figures->values_ns);
    *figures = (struct test_figures){0};
}

void test_figures_add(struct test_figures *figures, uint64_t value_ns)
{
    test_check(figures->count < figures->capacity, "room for %zu figures", figures->capacity);
    figures->values_ns[figures->count++] = value_ns;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

uint64_t test_figures_percentile(struct test_figures *figures, unsigned percent)
{
    if (figures->count == 0)
        return 0;
    qsort(figures->values_ns, figures->count, sizeof(uint64_t), compare);
    return figures->values_ns[(figures->count - 1) * percent / 100];
}

void test_figures_print_ms(struct test_figures *figures, const char *name)
{
    printf("%s: median %.3f ms, %.3f .. %.3f ms, %zu rounds; load %.2f\n", name,
           (double)test_figures_percentile(figures, 50) / 1e6,
           (double)test_figures_percentile(figures, 0) / 1e6,
           (double)test_figures_percentile(figures, 100) / 1e6, figures->count,
           test_load_average());
    fflush(stdout);
}
