/* SPDX-License-Identifier: MIT */
/* faults [--all] [--seed N] [--faults N] [--seconds N]
 *        [--only client|worker|keeper|successor] [--verbose] [--plant WHAT]
 *
 * Fails one call at a time, in the daemon or in a client of it, and looks whether anybody but the
 * requester notices. First the story is told once without a fault, to see which calls it makes from
 * where; then, for each of these call sites, each error that the call can give, and each time that
 * it comes by (--all), or a sample of N of these by the seed. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "tests/faults/list.h"
#include "tests/faults/stage.h"
#include "tests/support/process.h"

struct request {
    bool all;
    bool verbose;
    uint64_t seed;
    uint64_t faults;
    uint64_t seconds; /* the sample ends then too; 0: never */
    const char *only;
    uint32_t planted;
};

/* --- The list of all faults --- */

/* Every time that this site comes by. Who only waits is not worth more than a few. */
static void add_site(struct faults_list *list, const struct stage *stage, enum stage_side side,
                     uint32_t index, bool takeover)
{
    const struct faults_site *site = &stage->control[side]->sites[index];
    uint64_t count = stage->calls[side][index];
    bool waits = site->call == FAULTS_EPOLL_WAIT || site->call == FAULTS_POLL;
    /* Building the filter takes a thousand allocations, all from a few places, and one answer. */
    bool filter = strncmp(site->module, "libseccomp", 10) == 0;
    uint64_t most = filter ? 3 : waits ? 12 : UINT64_MAX;
    if (atomic_load(&site->ready) != 2 || (takeover && site->role != FAULTS_CHILD))
        return;
    /* A successor speaks with every client: whose record cannot be received is the one concerned,
     * also if it is the innocent one. */
    if (takeover && site->call == FAULTS_RECEIVE)
        return;
    for (uint64_t nth = 1; nth <= count && nth <= most; nth++)
        faults_list_add(list,
                        &(struct stage_fault){.side = side,
                                              .role = site->role,
                                              .call = site->call,
                                              .site = index,
                                              .nth = nth,
                                              .takeover = takeover},
                        FAULTS_ONCE_AND_LASTING);
}

static bool is_wanted(const struct request *request, enum stage_side side, bool takeover,
                      enum faults_role role)
{
    if (request->only == NULL)
        return true;
    const char *name = side == STAGE_CLIENT  ? "client"
                       : takeover            ? "successor"
                       : role == FAULTS_MAIN ? "keeper"
                                             : "worker";
    return strcmp(request->only, name) == 0;
}

/* Tells the story once, to see what there is. */
static void survey(struct faults_list *list, struct stage *stage, const struct request *request,
                   bool takeover)
{
    static const enum stage_side sides[] = {STAGE_CLIENT, STAGE_BROKER};
    const struct stage_fault none = {.call = FAULTS_CALLS, .takeover = takeover};
    (void)stage_try(stage, &none);
    for (size_t s = takeover ? 1 : 0; s < LKI_ARRAY_LENGTH(sides); s++)
        for (uint32_t i = 0; i < FAULTS_SITES_MAX; i++)
            if (is_wanted(request, sides[s], takeover, stage->control[sides[s]]->sites[i].role))
                add_site(list, stage, sides[s], i, takeover);
}

/* --- Options --- */

static uint32_t planted_by_name(const char *name)
{
    static const char *const names[] = {"none", "descriptor", "memory", "crash", "hang", "spread"};
    for (uint32_t i = 0; i < LKI_ARRAY_LENGTH(names); i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    fprintf(stderr, "faults: nothing to plant is called '%s'\n", name);
    exit(2);
}

static void parse(int argc, char **argv, struct request *request)
{
    static const struct option options[] = {
        {"all", no_argument, NULL, 'a'},          {"seed", required_argument, NULL, 's'},
        {"faults", required_argument, NULL, 'n'}, {"seconds", required_argument, NULL, 'k'},
        {"only", required_argument, NULL, 'o'},   {"plant", required_argument, NULL, 'p'},
        {"verbose", no_argument, NULL, 'v'},      {NULL, 0, NULL, 0}};
    *request = (struct request){.seed = (uint64_t)time(NULL), .faults = 300};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'a':
            request->all = true;
            break;
        case 's':
            request->seed = strtoull(optarg, NULL, 10);
            break;
        case 'n':
            request->faults = strtoull(optarg, NULL, 10);
            break;
        case 'k':
            request->seconds = strtoull(optarg, NULL, 10);
            break;
        case 'o':
            request->only = optarg;
            break;
        case 'p':
            request->planted = planted_by_name(optarg);
            break;
        case 'v':
            request->verbose = true;
            break;
        default:
            exit(2);
        }
    }
}

/* --- Running --- */

/* This program has the interposer inside too, since it forks the requesters: executes itself. */
static void load_interposer(char **argv)
{
    char path[64];
    if (getenv(FAULTS_VARIABLE) != NULL)
        return;
    (void)stage_new_control(path, sizeof(path));
    /* The descriptor has to be there after exec. */
    int fd = (int)strtol(strrchr(path, '/') + 1, NULL, 10);
    int kept = dup(fd);
    test_check(kept >= 0, "dup");
    (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), kept);
    stage_set_environment(path);
    (void)execv("/proc/self/exe", argv);
    perror("faults");
    exit(2);
}

static struct faults_control *own_control(void)
{
    int fd = (int)strtol(strrchr(getenv(FAULTS_VARIABLE), '/') + 1, NULL, 10);
    struct faults_control *control = stage_map_control(fd);
    stage_set_environment(NULL);
    return control;
}

int main(int argc, char **argv)
{
    static struct stage stage;
    struct request request;
    struct faults_list list = {.faults = NULL};
    parse(argc, argv, &request);
    load_interposer(argv);
    printf("seed %llu\n", (unsigned long long)request.seed);
    stage.verbose = request.verbose;
    stage_open(&stage, own_control());
    survey(&list, &stage, &request, false);
    survey(&list, &stage, &request, true);
    faults_list_shuffle(&list, request.seed);
    size_t total = list.count;
    size_t count = request.all || request.faults > total ? total : (size_t)request.faults;
    for (int side = 0; side < STAGE_SIDES; side++)
        atomic_store(&stage.control[side]->planted, request.planted);
    uint64_t end_ns =
        request.seconds > 0 ? lki_clock_now_ns() + request.seconds * LKI_NS_PER_S : LKI_TIME_NEVER;
    size_t tried = 0;
    while (tried < count && lki_clock_now_ns() < end_ns)
        (void)stage_try(&stage, &list.faults[tried++]);
    for (int side = 0; side < STAGE_SIDES; side++)
        atomic_store(&stage.control[side]->planted, 0);
    stage_close(&stage);
    free(list.faults);
    const struct stage_totals *totals = &stage.totals;
    printf("faults: seed %llu, %zu of %zu tried: %llu fired, %llu unnoticed, %llu refused and "
           "repeated, %llu needed new sessions, %llu ended a worker, %llu did not come up; %llu "
           "violations\n",
           (unsigned long long)request.seed, tried, total, (unsigned long long)totals->faults,
           (unsigned long long)totals->invisible, (unsigned long long)totals->refused,
           (unsigned long long)totals->lost, (unsigned long long)totals->replaced,
           (unsigned long long)totals->missed, (unsigned long long)totals->violations);
    return totals->violations > 0 ? 1 : 0;
}
