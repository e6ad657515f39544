/* SPDX-License-Identifier: MIT */
/* planted WHAT
 *
 * Does wrong what a sanitizer has to see, and returns 0. A build in which nobody sees it checks
 * nothing. WHAT: leak, leak-in-child, overflow, use-after-free, overflow-in-child, undefined. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/process.h"

static volatile int zero; /* what no compiler may know */

static int leak(void *unused)
{
    static void *volatile kept;
    (void)unused;
    kept = malloc(77);
    printf("%p is lost\n", kept);
    kept = NULL;
    return 0;
}

static int overflow(void *unused)
{
    int *numbers = calloc(4, sizeof(*numbers));
    (void)unused;
    test_check(numbers != NULL, "calloc");
    printf("beyond the end: %d\n", numbers[4 + zero]);
    free(numbers);
    return 0;
}

static int use_after_free(void *unused)
{
    int *numbers = calloc(4, sizeof(*numbers));
    (void)unused;
    test_check(numbers != NULL, "calloc");
    int *volatile stale = numbers;
    free(numbers);
    printf("after the end: %d\n", stale[zero]);
    return 0;
}

static int undefined(void *unused)
{
    (void)unused;
    int largest = INT_MAX - zero;
    printf("beyond the largest: %d\n", largest + 1);
    return 0;
}

/* As the tests' own children: what it did wrong has to come through its parent. */
static int in_child(int (*body)(void *))
{
    test_reap_success(test_spawn(body, NULL));
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "leak") == 0)
        return leak(NULL);
    if (strcmp(what, "leak-in-child") == 0)
        return in_child(leak);
    if (strcmp(what, "overflow") == 0)
        return overflow(NULL);
    if (strcmp(what, "overflow-in-child") == 0)
        return in_child(overflow);
    if (strcmp(what, "use-after-free") == 0)
        return use_after_free(NULL);
    if (strcmp(what, "undefined") == 0)
        return undefined(NULL);
    fprintf(stderr, "nothing is called '%s'\n", what);
    return 2;
}
