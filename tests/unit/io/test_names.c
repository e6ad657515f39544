/* SPDX-License-Identifier: MIT */
/* What an earlier broker left in PATH.names, and when it does not count. */
#include "broker/io/names.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/fd.h"

#define SLOTS 4
#define BOOT_ID_OFFSET 16 /* where the header may be scribbled on: magic and size stay */

static char folder[] = "/tmp/lk-test-names-XXXXXX";
static int folder_fd = -1;
static struct lkd_names_owner self;

/* Who we are, as the kernel tells it to a broker. */
static void ask_who_we_are(void)
{
    int ends[2];
    struct lkd_peer_info info;
    cr_assert(eq(int, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0));
    cr_assert(eq(int, lkd_peer_ask(ends[0], LKD_PEER_PIDFD_BEST, &info), 0));
    self = (struct lkd_names_owner){.key = info.key, .pid = info.peer.pid};
    lkd_peer_info_deinit(&info);
    (void)lki_close(ends[0]);
    (void)lki_close(ends[1]);
}

/* A broker that noted a name of ours and was lost. */
static void leave_a_name(void)
{
    static const uint8_t name[] = "build";
    const struct lkd_name_change change = {
        .index = 1, .present = true, .name_kind = 1, .name_id = 1000, .name_bytes = 5, .name = name};
    struct lkd_names names;
    cr_assert(eq(int, lkd_names_open(&names, folder_fd, "s", SLOTS, NULL), 0));
    cr_assert(eq(int, lkd_names_note(&names, &change, &self), 0));
    lkd_names_close(&names);
}

static void setup(void)
{
    cr_assert(ne(ptr, mkdtemp(folder), NULL));
    folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ask_who_we_are();
    leave_a_name();
}

static void teardown(void)
{
    (void)unlinkat(folder_fd, "s.names", 0);
    folder_fd = lki_close(folder_fd);
    cr_expect(eq(int, rmdir(folder), 0));
}

TestSuite(names, .init = setup, .fini = teardown, .timeout = 60);

/* How many names the next broker carries over. */
static size_t carried(void)
{
    struct lkd_names names;
    cr_assert(eq(int, lkd_names_open(&names, folder_fd, "s", SLOTS, NULL), 0));
    size_t count = names.carried_count;
    lkd_names_close(&names);
    return count;
}

static void scribble(off_t offset, char byte)
{
    int fd = openat(folder_fd, "s.names", O_WRONLY | O_CLOEXEC);
    cr_assert(eq(sz, (size_t)pwrite(fd, &byte, 1, offset), 1));
    (void)lki_close(fd);
}

Test(names, of_a_process_that_lives_are_carried_over)
{
    cr_expect(eq(sz, carried(), 1));
    cr_expect(eq(sz, carried(), 1), "and once more");
}

Test(names, of_another_boot_are_not)
{
    scribble(BOOT_ID_OFFSET, '!');
    cr_expect(eq(sz, carried(), 0));
}

Test(names, in_a_file_of_somebody_else_are_not)
{
    if (geteuid() != 0)
        cr_skip_test("only root can give a file away");
    cr_assert(eq(int, fchownat(folder_fd, "s.names", 65534, 65534, 0), 0));
    cr_expect(eq(sz, carried(), 0));
}
