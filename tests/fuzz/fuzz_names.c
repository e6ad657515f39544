/* SPDX-License-Identifier: MIT */
/* The two files beside the socket that a broker reads from its predecessor: PATH.names and PATH.lock,
 * with anything in them. The names that are carried over are whole and of a process that lives, also
 * when they are read a second time; the epoch is one that may be used, and above the last. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/io/instance.h"
#include "broker/io/names.h"
#include "broker/io/peer.h"
#include "fuzz.h"

#define RECORDS_AT 4096
#define RECORD_BYTES 320u
#define NOW_S 1000000u

static char directory[64];
static int directory_fd = -1;
static struct lkd_process_key own_key;

static void remove_directory(void)
{
    static const char *const files[] = {"s.names", "s.names.new", "s.lock", "s"};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        (void)unlinkat(directory_fd, files[i], 0);
    (void)rmdir(directory);
}

static void setup(void)
{
    int pair[2];
    struct lkd_peer_info info;
    const char *parent = getenv("TMPDIR");
    (void)snprintf(directory, sizeof(directory), "%s/fuzz-names-XXXXXX", parent ? parent : "/tmp");
    FUZZ_CHECK(mkdtemp(directory) != NULL);
    directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    FUZZ_CHECK(directory_fd >= 0 && atexit(remove_directory) == 0);
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    FUZZ_CHECK(lkd_peer_ask(pair[0], LKD_PEER_PIDFD_BEST, &info) == 0);
    own_key = info.key;
    lkd_peer_info_deinit(&info);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

static void write_file(const char *name, const void *bytes, size_t count)
{
    int fd = openat(directory_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0 && write(fd, bytes, count) == (ssize_t)count && close(fd) == 0);
}

/* --- PATH.names --- */

static struct lkd_names open_names(void)
{
    struct lkd_names names;
    FUZZ_CHECK(lkd_names_open(&names, directory_fd, "s", 4, NULL) == 0);
    return names;
}

static void check_carried(const struct lkd_names *names)
{
    for (size_t i = 0; i < names->carried_count; i++) {
        struct lkd_name_change name;
        struct lkd_names_owner owner;
        lkd_names_carried(names, i, &name, &owner);
        FUZZ_CHECK(name.present && name.name_bytes >= 1 && name.name_bytes <= LKI_NAME_BYTES_MAX);
        FUZZ_CHECK(owner.pid == getpid() && owner.key.first == own_key.first &&
                   owner.key.second == own_key.second);
    }
}

/* A file as a broker leaves it, for two records of ours; then bytes of it are changed. */
static void play_names(struct fuzz_input *input)
{
    static uint8_t file[RECORDS_AT + 8 * RECORD_BYTES];
    const struct lkd_names_owner owner = {.key = own_key, .pid = getpid()};
    (void)unlinkat(directory_fd, "s.names", 0);
    struct lkd_names names = open_names();
    uint32_t notes = fuzz_below(input, 4);
    for (uint32_t i = 0; i < notes; i++) {
        size_t bytes;
        const uint8_t *text = fuzz_bytes(input, LKI_NAME_BYTES_MAX, &bytes);
        const struct lkd_name_change name = {.index = i,
                                             .present = bytes > 0,
                                             .name_kind = fuzz_below(input, 3),
                                             .name_id = fuzz_byte(input),
                                             .name_bytes = (uint32_t)bytes,
                                             .name = text};
        FUZZ_CHECK(lkd_names_note(&names, &name, &owner) == 0);
    }
    ssize_t length = pread(names.fd, file, sizeof(file), 0);
    FUZZ_CHECK(length >= 48);
    (void)close(names.fd);
    free(names.carried);

    while (input->left > 0) {
        size_t bytes, at = fuzz_number(input, 2) % sizeof(file);
        const uint8_t *patch = fuzz_bytes(input, sizeof(file) - at, &bytes);
        memcpy(file + at, patch, bytes);
        if ((ssize_t)(at + bytes) > length)
            length = (ssize_t)(at + bytes);
    }
    write_file("s.names", file, (size_t)length);
    names = open_names();
    check_carried(&names);
    size_t carried = names.carried_count;
    (void)close(names.fd);
    free(names.carried);
    names = open_names(); /* what was carried over is carried over again */
    check_carried(&names);
    FUZZ_CHECK(names.carried_count == carried, "%zu of %zu are carried on", names.carried_count,
               carried);
    lkd_names_close(&names);
    FUZZ_CHECK((faccessat(directory_fd, "s.names", F_OK, 0) == 0) == (carried > 0));
}

/* --- PATH.lock --- */

static void play_lock(struct fuzz_input *input)
{
    char path[96];
    struct lkd_instance instance;
    struct lkd_instance_problem problem;
    unsigned long long pid, epoch_s;
    char text[64] = "";
    memcpy(text, input->next, input->left < 63 ? input->left : 63);
    write_file("s.lock", input->next, input->left);
    (void)snprintf(path, sizeof(path), "%s/s", directory);
    int r = lkd_instance_open(&instance, path, 0600, NOW_S, &problem);
    FUZZ_CHECK(r == 0, "%d: %s", r, problem.text);
    FUZZ_CHECK(instance.token_epoch_s >= NOW_S && instance.token_epoch_s <= LKD_TOKEN_EPOCH_S_MAX);
    /* What a broker has written, it never goes below. */
    if (sscanf(text, "%llu %llu", &pid, &epoch_s) == 2 && text[0] >= '0' && text[0] <= '9' &&
        strspn(text, "0123456789 \n") == strlen(text) && strlen(text) < 40 &&
        epoch_s < LKD_TOKEN_EPOCH_S_MAX - 64) /* a number beyond is nobody's */
        FUZZ_CHECK(instance.token_epoch_s > epoch_s, "%llu were used", epoch_s);
    lkd_instance_close(&instance);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct fuzz_input input = {data, size_bytes};
    if (directory_fd < 0)
        setup();
    if (fuzz_byte(&input) & 1)
        play_lock(&input);
    else
        play_names(&input);
    return 0;
}
