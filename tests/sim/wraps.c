/* SPDX-License-Identifier: MIT */
/* The system calls of the client library, and some functions right above them: the linker puts these
 * in their places (--wrap), in all that is linked in. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "client/connect.h"
#include "common/assert.h"
#include "proto/channel.h"
#include "tests/sim/kernel_fds.h"
#include "tests/sim/stores.h"

/* --- Time and processors --- */

uint64_t __wrap_lki_clock_now_ns(void);
int __wrap_get_nprocs(void);
void __wrap_lki_assert_failed(const char *expression, const char *file, int line)
    __attribute__((noreturn));

uint64_t __wrap_lki_clock_now_ns(void)
{
    return sim.now_ns;
}

/* One: a waiter sleeps at once, it does not spin first. */
int __wrap_get_nprocs(void)
{
    return 1;
}

void __wrap_lki_assert_failed(const char *expression, const char *file, int line)
{
    const char *name = strrchr(file, '/');
    sim_fail("assertion failed: %s (%s:%d)", expression, name ? name + 1 : file, line);
}

/* --- Futexes and barriers --- */

long __wrap_syscall(long number, ...);

static uint64_t time_of(const struct timespec *limit)
{
    return limit ? (uint64_t)limit->tv_sec * LKI_NS_PER_S + (uint64_t)limit->tv_nsec
                 : LKI_TIME_NEVER;
}

static void sleep_on(_Atomic uint32_t *futex, uint32_t value, const struct timespec *limit)
{
    struct sim_task *self = sim.current;
    uint64_t until_ns = time_of(limit);
    sim_step("futex");
    if (atomic_load_explicit(futex, memory_order_seq_cst) != value)
        return;
    if (sim_faults() && sim_chance(sim.plan.spurious_wake)) { /* a signal, say */
        uint64_t soon_ns = sim.now_ns + sim_between(0, LKI_NS_PER_MS);
        until_ns = soon_ns < until_ns ? soon_ns : until_ns;
    }
    self->futex = futex;
    sim_block(until_ns);
    self->futex = NULL;
}

static long futex_call(_Atomic uint32_t *futex, int operation, uint32_t value,
                       const struct timespec *limit)
{
    if (operation == FUTEX_WAIT_BITSET) {
        sleep_on(futex, value, limit);
        return 0;
    }
    LKI_ASSERT(operation == FUTEX_WAKE);
    sim_step("wake");
    if (sim.broken == SIM_BREAK_LOSES_CLIENT_WAKES && sim_chance(30))
        return 0;
    kernel_wake_futex(futex);
    return 0;
}

long __wrap_syscall(long number, ...)
{
    va_list arguments;
    long r;
    va_start(arguments, number);
    if (number == SYS_membarrier) {
        r = stores_membarrier(va_arg(arguments, int));
    } else {
        LKI_ASSERT(number == SYS_futex);
        _Atomic uint32_t *futex = va_arg(arguments, _Atomic uint32_t *);
        int operation = va_arg(arguments, int);
        uint32_t value = va_arg(arguments, uint32_t);
        r = futex_call(futex, operation, value, va_arg(arguments, const struct timespec *));
    }
    va_end(arguments);
    return r;
}

/* --- The channel --- */

int __wrap_lki_connect(const char *explicit_path, uint32_t flags, int *out_fd,
                       char out_path[LKI_SOCKET_PATH_BYTES_MAX + 1]);
int __wrap_lki_channel_send(int socket_fd, const struct lki_message *message, const int *fds,
                            size_t fd_count, enum lki_channel_flags flags);
int __wrap_lki_channel_send_both(int socket_fd, const struct lki_message *first,
                                 const struct lki_message *second, const int *fds, size_t fd_count,
                                 enum lki_channel_flags flags);
int __wrap_lki_channel_receive(int socket_fd, struct lki_arena *arena, uint8_t *buffer,
                               enum lki_direction direction, enum lki_channel_flags flags,
                               struct lki_message *out, int *out_fds, size_t *out_fd_count,
                               const char **out_reason);
int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *limit,
                 const sigset_t *mask);

int __wrap_lki_connect(const char *explicit_path, uint32_t flags, int *out_fd,
                       char out_path[LKI_SOCKET_PATH_BYTES_MAX + 1])
{
    (void)explicit_path;
    (void)flags;
    sim_step("connect");
    strcpy(out_path, "/run/simulated");
    *out_fd = kernel_connect(sim.current->process);
    return 0;
}

int __wrap_lki_channel_send(int socket_fd, const struct lki_message *message, const int *fds,
                            size_t fd_count, enum lki_channel_flags flags)
{
    (void)fds;
    LKI_ASSERT(fd_count == 0);
    sim_step("send");
    if (flags & LKI_CHANNEL_NO_WAIT && sim_faults() && sim_chance(sim.plan.lose_hint)) {
        sim_seen.lost_hints++;
        if (message->type == LKI_REQUEST_NUDGE)
            sim.nudge_lost_ns = sim.now_ns;
        sim_note("cannot send %s now", lki_message_type_name(message->type));
        return -EAGAIN;
    }
    int r = kernel_send_request(socket_fd, message);
    sim_note("sends %s %llu: %d", lki_message_type_name(message->type),
             (unsigned long long)message->id, r);
    sim_step("sent");
    return r;
}

int __wrap_lki_channel_send_both(int socket_fd, const struct lki_message *first,
                                 const struct lki_message *second, const int *fds, size_t fd_count,
                                 enum lki_channel_flags flags)
{
    int r = __wrap_lki_channel_send(socket_fd, first, NULL, 0, flags);
    if (r < 0)
        return r;
    if (sim_chance(200))
        return 1;
    return __wrap_lki_channel_send(socket_fd, second, fds, fd_count, flags) < 0 ? 1 : 2;
}

int __wrap_lki_channel_receive(int socket_fd, struct lki_arena *arena, uint8_t *buffer,
                               enum lki_direction direction, enum lki_channel_flags flags,
                               struct lki_message *out, int *out_fds, size_t *out_fd_count,
                               const char **out_reason)
{
    (void)buffer;
    (void)out_reason;
    LKI_ASSERT(direction == LKI_DIRECTION_REPLY);
    struct sim_area *area = NULL;
    *out_fd_count = 0;
    sim_step("receive");
    if (!(flags & LKI_CHANNEL_NO_WAIT))
        kernel_await_reply(socket_fd, LKI_TIME_NEVER);
    int r = kernel_receive_reply(socket_fd, arena, out, &area);
    if (r == 1) {
        sim_note("receives %s %llu", lki_message_type_name(out->type), (unsigned long long)out->id);
        if (area) {
            uint32_t index = 0;
            while (kernel.areas[index] != area)
                index++;
            out_fds[(*out_fd_count)++] = fds_take(FD_AREA, (int)index, sim.current->process);
        }
        sim_step("received");
    }
    return r;
}

int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *limit,
                 const sigset_t *mask)
{
    (void)mask;
    LKI_ASSERT(count == 1);
    sim_step("poll");
    kernel_await_reply(fds->fd, lki_time_add(sim.now_ns, time_of(limit)));
    return kernel_reply_is_there(fds->fd) ? 1 : 0;
}

/* --- Descriptors and memory --- */

int __real_close(int fd);
void *__real_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *address, size_t bytes);
int __wrap_close(int fd);
int __wrap_fcntl(int fd, int command, ...);
off_t __wrap_lseek(int fd, off_t offset, int whence);
void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *address, size_t bytes);
int __wrap_madvise(void *address, size_t bytes, int advice);

int __wrap_close(int fd)
{
    if (!fds_get(fd))
        return __real_close(fd);
    sim_step("close");
    fds_close(fd);
    return 0;
}

int __wrap_fcntl(int fd, int command, ...)
{
    const struct sim_fd *entry = fds_get(fd);
    LKI_ASSERT(entry);
    if (command == F_GET_SEALS)
        return F_SEAL_SHRINK | F_SEAL_GROW;
    LKI_ASSERT(command == F_DUPFD_CLOEXEC);
    return fds_take(FD_OTHER, 0, sim.current->process);
}

off_t __wrap_lseek(int fd, off_t offset, int whence)
{
    const struct sim_fd *entry = fds_get(fd);
    LKI_ASSERT(entry && entry->kind == FD_AREA && offset == 0 && whence == SEEK_END);
    return (off_t)kernel.areas[entry->index]->bytes;
}

void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    if (!sim.current)
        return __real_mmap(address, bytes, protection, flags, fd, offset);
    if (flags & MAP_ANONYMOUS)
        return calloc(1, bytes); /* its owner's, like all of the heap */
    const struct sim_fd *entry = fds_get(fd);
    LKI_ASSERT(entry && entry->kind == FD_AREA && offset == 0);
    struct sim_area *area = kernel.areas[entry->index];
    if (!area->made)
        sim_fail("a client maps segment %u, which was dropped", area->number);
    maps_add(area, sim.current->process);
    return area->base;
}

int __wrap_munmap(void *address, size_t bytes)
{
    if (!sim.current)
        return __real_munmap(address, bytes);
    struct sim_area *area = kernel_area_at(address);
    if (area)
        maps_remove(area, sim.current->process);
    else
        free(address);
    return 0;
}

int __wrap_madvise(void *address, size_t bytes, int advice)
{
    (void)address;
    (void)bytes;
    (void)advice;
    return 0;
}
