/* SPDX-License-Identifier: MIT */
#include "area_fixture.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "engine/repair.h"

#define DATA_BYTES (1u << 20)

static int sealed_memory(uint64_t bytes)
{
    int fd = memfd_create("lockkeeper-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    cr_assert(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
    return fd;
}

void area_fixture_init(struct area_fixture *fixture)
{
    uint64_t bytes = lki_area_bytes(AREA_LOCKS, 8);
    fixture->slots = 0;
    fixture->area_fd = sealed_memory(bytes);
    fixture->data_fd = sealed_memory(DATA_BYTES);
    fixture->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fixture->area_fd, 0);
    cr_assert(fixture->base != MAP_FAILED);
    const struct lki_area_config config = {
        .locks = AREA_LOCKS,
        .attachments_max = 8,
        .patience_ns = LKI_PATIENCE_DEFAULT_NS,
        .data_bytes = DATA_BYTES / 2,
        .data_bytes_max = DATA_BYTES,
        .sequence_start = UINT64_C(7) << 32,
        .state = LKI_SEGMENT_PUBLISHED,
    };
    cr_assert(lki_area_format(fixture->base, &config, &fixture->area) == 0);
}

void area_fixture_deinit(struct area_fixture *fixture)
{
    (void)munmap(fixture->base, fixture->area.area_bytes);
    (void)close(fixture->area_fd);
    (void)close(fixture->data_fd);
}

void area_fixture_opened(struct area_fixture *fixture, struct lki_record *out_record)
{
    uint32_t id = lki_attachment_open(&fixture->area, ++fixture->slots, 1, 0);
    *out_record = (struct lki_record){
        .message = {.type = LKI_REPLY_OPENED,
                    .as.opened = {.segment = 5,
                                  .attachment = id,
                                  .area_bytes = fixture->area.area_bytes,
                                  .data_bytes_max = DATA_BYTES}},
        .fds = {fcntl(fixture->area_fd, F_DUPFD_CLOEXEC, 0),
                fcntl(fixture->data_fd, F_DUPFD_CLOEXEC, 0)},
        .fd_count = 2,
    };
}

struct lk_segment *area_fixture_attach(struct area_fixture *fixture, int socket_fd)
{
    struct lk_session *session = NULL;
    struct lk_segment *segment = NULL;
    struct lki_record record;
    cr_assert(lki_session_new(socket_fd, "/nowhere", &session) == 0);
    area_fixture_opened(fixture, &record);
    cr_assert(lki_segment_attach(session, "build", 0, &record, &segment) == 0);
    lki_record_deinit(&record);
    return segment;
}

static void wake_nobody(void *user, uint32_t slot, bool brokered)
{
    (void)user;
    (void)slot;
    (void)brokered;
}

void area_fixture_repair(struct area_fixture *fixture, const struct lk_segment *segment)
{
    struct lki_repair repair;
    const struct lki_death death = {
        .pid = 4711, .uid = 1000, .cause = LK_CAUSE_EXITED, .when_ns = 99, .command = "train.py"};
    lki_repair_begin(&repair, &fixture->area, segment->attached);
    while (!lki_repair_step(&repair, &death, 1000, wake_nobody, NULL))
        continue;
}
