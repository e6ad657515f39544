/* SPDX-License-Identifier: MIT */
/* replay PATH...: feeds the target every file, and every file in each folder. Stands in for libFuzzer
 * where there is none, so that what was found once stays found with any compiler. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "fuzz.h"

#define INPUT_BYTES_MAX (1u << 20)

static unsigned count;

static int fail(const char *path)
{
    fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
    return -1;
}

static int feed_file(const char *path)
{
    uint8_t *data = malloc(INPUT_BYTES_MAX);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = data && fd >= 0 ? read(fd, data, INPUT_BYTES_MAX) : -1;
    (void)lki_close(fd); /* before: a target may play with descriptors */
    /* A copy of exactly its size: the sanitizer sees the first byte read behind it. */
    uint8_t *exact = bytes >= 0 ? malloc((size_t)bytes + (bytes == 0)) : NULL;
    if (exact) {
        memcpy(exact, data, (size_t)bytes);
        fprintf(stderr, "%s\n", path); /* before: the one that ends us has to be known */
        LLVMFuzzerTestOneInput(exact, (size_t)bytes);
        count++;
    }
    free(exact);
    free(data);
    return exact ? 0 : fail(path);
}

static int feed(const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0)
        return fail(path);
    if (!S_ISDIR(status.st_mode))
        return feed_file(path);
    struct dirent **entries;
    int count_of_entries = scandir(path, &entries, NULL, alphasort);
    if (count_of_entries < 0)
        return fail(path);
    int r = 0;
    for (int i = 0; i < count_of_entries; i++) {
        char inner[4096];
        int length = snprintf(inner, sizeof(inner), "%s/%s", path, entries[i]->d_name);
        if (r == 0 && entries[i]->d_name[0] != '.')
            r = length > 0 && (size_t)length < sizeof(inner) ? feed_file(inner) : -1;
        free(entries[i]);
    }
    free(entries);
    return r;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (feed(argv[i]) < 0)
            return 1;
    if (count == 0) {
        fputs("replay: there is no input\n", stderr);
        return 1;
    }
    printf("replay: %u inputs\n", count);
    return 0;
}
