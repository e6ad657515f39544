/* SPDX-License-Identifier: MIT */
#include "tests/hostile/fake.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fd.h"
#include "engine/layout.h"
#include "proto/channel.h"
#include "tests/hostile/wire.h"
#include "tests/support/process.h"

#define LOCKS 4u
#define ATTACHMENTS 4u
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static uint64_t area_bytes(void)
{
    return lki_area_bytes(LOCKS, ATTACHMENTS);
}

static int make_memory(uint64_t bytes, int seals)
{
    int fd = memfd_create("fake", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    test_check(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0, "memfd");
    test_check(seals == 0 || fcntl(fd, F_ADD_SEALS, seals) == 0, "seals");
    return fd;
}

/* A control area that is right but for what spoil does to it. */
static int make_area(void (*spoil)(struct lki_header *header))
{
    const struct lki_area_config config = {.locks = LOCKS,
                                           .attachments_max = ATTACHMENTS,
                                           .data_bytes = 4096,
                                           .data_bytes_max = 4096,
                                           .state = LKI_SEGMENT_PUBLISHED};
    struct lki_area area;
    int fd = make_memory(area_bytes(), SEALS);
    void *base = mmap(NULL, area_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    test_check(base != MAP_FAILED && lki_area_format(base, &config, &area) == 0, "area");
    if (spoil)
        spoil(base);
    munmap(base, area_bytes());
    return fd;
}

static void spoil_locks(struct lki_header *header)
{
    header->locks = UINT32_MAX;
}

static void spoil_attachments(struct lki_header *header)
{
    header->attachments = UINT32_MAX;
}

static void spoil_offset(struct lki_header *header)
{
    header->cold_offset = UINT64_MAX - 63;
}

static void spoil_version(struct lki_header *header)
{
    header->version_major = LKI_LAYOUT_MAJOR + 1;
}

static void spoil_magic(struct lki_header *header)
{
    header->magic++;
}

struct lie {
    struct lki_message message;
    int fds[5];
    size_t count;
};

/* The truth, to begin with. */
static void start_lie(struct lie *lie, uint64_t id, void (*spoil)(struct lki_header *header))
{
    *lie = (struct lie){
        .message = {.type = LKI_REPLY_OPENED,
                    .id = id,
                    .as.opened = {.created = true,
                                  .segment = 1,
                                  .attachment = 1,
                                  .area_bytes = area_bytes(),
                                  .data_bytes_max = 4096}},
        .fds = {make_area(spoil), make_memory(4096, SEALS)},
        .count = 2,
    };
}

static void replace_fd(struct lie *lie, size_t i, int taken_fd)
{
    close(lie->fds[i]);
    lie->fds[i] = taken_fd;
}

static void invent(struct lie *lie, unsigned number, uint64_t id)
{
    static void (*const spoils[])(struct lki_header *) = {spoil_locks, spoil_attachments,
                                                          spoil_offset, spoil_version, spoil_magic};
    struct lki_opened *opened = &lie->message.as.opened;
    start_lie(lie, id, number < LKI_ARRAY_LENGTH(spoils) ? spoils[number] : NULL);
    switch (number) {
    case 5: /* nothing is there */
        lie->count = 0;
        break;
    case 6: /* not memory at all */
        replace_fd(lie, 0, open("/dev/zero", O_RDWR | O_CLOEXEC));
        break;
    case 7: /* could be cut under our map */
        replace_fd(lie, 0, make_memory(area_bytes(), 0));
        break;
    case 8: /* shorter than said */
        replace_fd(lie, 0, make_memory(4096, SEALS));
        break;
    case 9: /* empty */
        replace_fd(lie, 0, make_memory(area_bytes(), SEALS));
        break;
    case 10:
        opened->area_bytes = UINT64_MAX;
        break;
    case 11:
        opened->attachment = ATTACHMENTS + 1;
        break;
    case 12:
        opened->data_bytes_max = UINT64_MAX;
        break;
    case 13:
        replace_fd(lie, 1, make_memory(4096, 0));
        break;
    case 14: /* a device as the file of a segment */
        opened->file = true;
        replace_fd(lie, 1, open("/dev/zero", O_RDWR | O_CLOEXEC));
        break;
    case 15: /* an answer to something else */
        lie->message.type = LKI_REPLY_LIST_PAGE;
        lie->message.as.list_page = (struct lki_list_page){.count = 0};
        break;
    case 16:
        lie->message.id += 1000;
        break;
    default:
        break;
    }
}

/* Returns the id of the OPEN; the hello comes before it. */
static uint64_t await_open(int fd)
{
    static struct lki_arena arena;
    static uint8_t buffer[LKI_REQUEST_BYTES_MAX];
    struct lki_message message = {.type = LKI_MESSAGE_NONE};
    int fds[LKI_RECORD_FDS_MAX];
    size_t count;
    const char *reason;
    while (message.type != LKI_REQUEST_OPEN)
        if (lki_channel_receive(fd, &arena, buffer, LKI_DIRECTION_REQUEST, LKI_CHANNEL_WAIT,
                                &message, fds, &count, &reason) != 1)
            return 0;
    return message.id;
}

static void serve(int fd, unsigned number)
{
    struct lie lie;
    uint64_t id = await_open(fd);
    if (id == 0)
        return;
    if (number == FAKE_LIES - 1) { /* no record at all */
        (void)hostile_send_bytes(fd, "\xff\xff\xff", 3, NULL, 0);
        return;
    }
    invent(&lie, number, id);
    int r = lki_channel_send(fd, &lie.message, lie.fds, lie.count, LKI_CHANNEL_WAIT);
    test_check(r == 0, "lie %u: %s", number, strerror(-r));
    close(lie.fds[0]);
    close(lie.fds[1]);
}

void fake_serve(const char *path, int ready)
{
    struct sockaddr_un address;
    socklen_t length_bytes;
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    test_check(lki_socket_address(path, &address, &length_bytes) == 0, "%s", path);
    test_check(bind(listener, (struct sockaddr *)&address, length_bytes) == 0 &&
                   chmod(path, 0666) == 0 && listen(listener, 8) == 0,
               "listen at %s", path);
    test_event_post(ready);
    for (unsigned number = 0;; number = (number + 1) % FAKE_LIES) {
        LKI_CLEANUP(lki_close_p) int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        test_check(fd >= 0, "accept");
        serve(fd, number);
    }
}
