/* SPDX-License-Identifier: MIT */
/* What the service manager is told of the memory of segments, as their records come, change and go.
 * A socket plays the manager. */
#include "broker/keeper/store.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/fd.h"

static const struct lkd_limits limits = {
    .max = {[LKD_SESSIONS] = 4, [LKD_SEGMENTS] = 4, [LKD_ATTACHMENTS] = 4}};

static int manager_fd = -1;
static int memory_fd = -1;
static void *memory;
static struct lkd_service service;
static struct lkd_ledger ledger;
static struct lkd_store store;

static void on_problem(const char *text, void *user)
{
    (void)user;
    cr_expect(eq(str, (char *)text, ""), "no problem is told");
}

static void setup(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char text[64];
    int length = snprintf(text, sizeof(text), "@lk-test-store-%d", getpid());
    memcpy(address.sun_path + 1, text + 1, (size_t)length - 1); /* an abstract name */
    manager_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    cr_assert(eq(int,
                 bind(manager_fd, (struct sockaddr *)&address,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length)),
                 0));
    setenv("NOTIFY_SOCKET", text, 1);
    lkd_service_open(&service, on_problem, NULL);
    memory_fd = memfd_create("test", MFD_CLOEXEC);
    cr_assert(eq(int, ftruncate(memory_fd, (off_t)lkd_ledger_bytes(&limits)), 0));
    memory = mmap(NULL, lkd_ledger_bytes(&limits), PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    cr_assert(ne(ptr, memory, MAP_FAILED));
    cr_assert(eq(int, lkd_ledger_view(&ledger, memory, &limits), 0));
    cr_assert(eq(int, lkd_store_init(&store, &service, &limits, -1), 0));
}

static void teardown(void)
{
    lkd_store_deinit(&store);
    lkd_service_close(&service);
    (void)munmap(memory, lkd_ledger_bytes(&limits));
    memory_fd = lki_close(memory_fd);
    manager_fd = lki_close(manager_fd);
}

TestSuite(store, .init = setup, .fini = teardown, .timeout = 60);

static struct lkd_segment_record *make(uint32_t number)
{
    struct lkd_segment_record *record = lkd_ledger_take_segment(&ledger);
    record->number = number;
    record->area_fd = memory_fd;
    record->data_fd = LKD_NO_FD;
    record->read_only_fd = LKD_NO_FD;
    lkd_record_enter(&record->state, LKD_RECORD_LIVE);
    return record;
}

/* Updates, and writes what the manager was told: "+name" for each that it stores, "-name" for each
 * that it drops. The descriptors go with the datagrams. */
static const char *told(void)
{
    static char all[256];
    char text[256];
    ssize_t length;

    cr_assert(lkd_store_update(&store, &ledger, memory_fd));
    all[0] = '\0';
    while ((length = recv(manager_fd, text, sizeof(text) - 1, 0)) >= 0) {
        text[length] = '\0';
        char *name = strstr(text, "FDNAME=");
        if (!name)
            continue;
        name += strlen("FDNAME=");
        name[strcspn(name, "\n")] = '\0';
        strcat(all, strncmp(text, "FDSTOREREMOVE", 13) == 0 ? "-" : "+");
        strcat(all, name);
    }
    return all;
}

Test(store, segments_are_stored_once_and_dropped_when_they_end)
{
    struct lkd_segment_record *record = make(5);
    cr_expect(eq(str, (char *)told(), "+ledger+a5"));
    cr_expect(eq(str, (char *)told(), ""));
    lkd_ledger_give_segment(&ledger, record);
    cr_expect(eq(str, (char *)told(), "-a5"));
}

Test(store, a_record_that_has_another_segment_by_now_is_told_anew)
{
    struct lkd_segment_record *record = make(5);
    told();
    lkd_ledger_give_segment(&ledger, record);
    cr_assert(eq(ptr, make(6), record));
    cr_expect(eq(str, (char *)told(), "-a5+a6"), "not that 6 has the memory of 5");
}
