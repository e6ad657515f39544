/* SPDX-License-Identifier: MIT */
#include "common/place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static char base[64];
static char run[96];
static char tmp[96];
static struct lki_place_roots roots;
static struct lki_places places;

static void setup(void)
{
    snprintf(base, sizeof(base), "/tmp/lk-place-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(base), NULL));
    snprintf(run, sizeof(run), "%s/run", base);
    snprintf(tmp, sizeof(tmp), "%s/tmp", base);
    cr_assert(eq(int, mkdir(run, 0755), 0));
    cr_assert(eq(int, mkdir(tmp, 0777), 0));
    roots = (struct lki_place_roots){.run_directory = run, .tmp_directory = tmp};
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", base);
    cr_assert(eq(int, system(command), 0));
}

/* base/relative, in a buffer that lives until the next call. */
static const char *below(const char *relative)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", base, relative);
    return path;
}

static void make_directory(const char *relative, mode_t mode)
{
    cr_assert(eq(int, mkdir(below(relative), 0700), 0), "%s", relative);
    cr_assert(eq(int, chmod(below(relative), mode), 0));
}

static void make_fallback(mode_t mode)
{
    char name[64];
    snprintf(name, sizeof(name), "tmp/lockkeeper-%u", getuid());
    make_directory(name, mode);
}

static void make_user_directory(void)
{
    char name[64];
    make_directory("run/user", 0755);
    snprintf(name, sizeof(name), "run/user/%u", getuid());
    make_directory(name, 0700);
}

static void find(void)
{
    lki_places_find_in(&roots, NULL, getuid(), &places);
}

TestSuite(place, .init = setup, .fini = teardown, .timeout = 20);

Test(place, an_explicit_path_is_the_only_candidate)
{
    roots.environment = "/from/environment";
    lki_places_find_in(&roots, "/explicit.sock", getuid(), &places);
    cr_assert(eq(sz, places.count, 1));
    cr_expect(eq(int, places.entries[0].kind, LKI_PLACE_EXPLICIT));
    cr_expect(eq(int, places.entries[0].result, 0));
    cr_expect(eq(str, places.entries[0].path, "/explicit.sock"));
}

Test(place, the_environment_is_the_only_candidate_unless_empty)
{
    roots.environment = "/from/environment";
    find();
    cr_assert(eq(sz, places.count, 1));
    cr_expect(eq(int, places.entries[0].kind, LKI_PLACE_ENVIRONMENT));

    roots.environment = "";
    find();
    cr_assert(eq(sz, places.count, 3));
}

Test(place, a_path_that_does_not_fit_is_refused_and_not_cut)
{
    char path[LKI_SOCKET_PATH_BYTES_MAX + 2];
    memset(path, 'x', sizeof(path));
    path[0] = '/';

    path[LKI_SOCKET_PATH_BYTES_MAX] = '\0';
    lki_places_find_in(&roots, path, getuid(), &places);
    cr_expect(eq(int, places.entries[0].result, 0), "107 bytes fit");

    path[LKI_SOCKET_PATH_BYTES_MAX] = 'x';
    path[LKI_SOCKET_PATH_BYTES_MAX + 1] = '\0';
    lki_places_find_in(&roots, path, getuid(), &places);
    cr_expect(eq(int, places.entries[0].result, -ENAMETOOLONG));
    cr_expect(eq(str, places.entries[0].path, ""));
    cr_expect(ne(ptr, strstr(places.entries[0].reason, "too long"), NULL));
}

Test(place, a_broker_starts_in_the_fallback_where_the_user_has_no_run_directory)
{
    find();
    cr_assert(eq(sz, places.start, 2));
    struct lki_place *place = &places.entries[places.start];
    cr_expect(eq(int, place->result, -ENOENT));

    cr_assert(eq(int, lki_place_prepare(place, getuid()), 0));
    find();
    cr_expect(eq(int, places.entries[2].result, 0));
}

Test(place, a_broker_starts_in_the_run_directory_of_the_user)
{
    make_user_directory();
    find();
    cr_assert(eq(sz, places.start, 1));
    struct lki_place *place = &places.entries[places.start];
    cr_assert(eq(int, lki_place_prepare(place, getuid()), 0));

    struct stat status;
    char directory[256];
    snprintf(directory, sizeof(directory), "%s/user/%u/lockkeeper", run, getuid());
    cr_assert(eq(int, lstat(directory, &status), 0));
    cr_expect(eq(u32, status.st_mode & 07777, 0700));
}

Test(place, a_fallback_directory_open_to_others_is_not_used)
{
    make_fallback(0711);
    find();
    cr_expect(eq(int, places.entries[2].result, -EPERM));
    cr_expect(eq(int, lki_place_prepare(&places.entries[2], getuid()), -EPERM));
}

Test(place, a_fallback_directory_of_somebody_else_is_not_used)
{
    make_fallback(0700);
    char name[64];
    snprintf(name, sizeof(name), "tmp/lockkeeper-%u", getuid() + 1);
    make_directory(name, 0700); /* ours, at the place of another uid */
    lki_places_find_in(&roots, NULL, getuid() + 1, &places);
    cr_expect(eq(int, places.entries[2].result, -EPERM));
}

Test(place, a_link_in_place_of_the_fallback_directory_is_not_used)
{
    char target[256];
    make_directory("elsewhere", 0700);
    snprintf(target, sizeof(target), "%s", below("elsewhere"));
    char name[64];
    snprintf(name, sizeof(name), "tmp/lockkeeper-%u", getuid());
    cr_assert(eq(int, symlink(target, below(name)), 0));
    find();
    cr_expect(eq(int, places.entries[2].result, -ENOTDIR));
    cr_expect(eq(int, lki_place_prepare(&places.entries[2], getuid()), -ENOTDIR));
}
