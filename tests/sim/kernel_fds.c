/* SPDX-License-Identifier: MIT */
#include "tests/sim/kernel_fds.h"

#include <string.h>

#include "common/assert.h"

#define FDS_MAX 1024
#define MAPS_MAX 512

static struct sim_fd fds[FDS_MAX];
static int fds_used; /* none is in use from here on */

static struct {
    struct sim_area *area; /* NULL: free */
    int process;
} maps[MAPS_MAX];

void fds_init(void)
{
    memset(fds, 0, sizeof(fds));
    memset(maps, 0, sizeof(maps));
    fds_used = 0;
}

int fds_take(enum fd_kind kind, int index, int process)
{
    int at = 0;
    while (at < FDS_MAX && fds[at].kind != FD_FREE)
        at++;
    if (at == FDS_MAX)
        sim_fail("descriptors leak: %d are open", at);
    fds[at] = (struct sim_fd){.kind = kind, .index = index, .process = process};
    if (at >= fds_used)
        fds_used = at + 1;
    return SIM_FD_FIRST + at;
}

const struct sim_fd *fds_get(int fd)
{
    int at = fd - SIM_FD_FIRST;
    return at >= 0 && at < FDS_MAX && fds[at].kind != FD_FREE ? &fds[at] : NULL;
}

static void close_entry(struct sim_fd *entry, bool cut)
{
    struct sim_fd closed = *entry;
    entry->kind = FD_FREE;
    if (closed.kind == FD_SOCKET)
        kernel_close_client_side(&kernel.sockets[closed.index], cut);
}

void fds_close(int fd)
{
    if (!fds_get(fd))
        sim_fail("descriptor %d is closed twice", fd - SIM_FD_FIRST);
    close_entry(&fds[fd - SIM_FD_FIRST], false);
}

void fds_close_all(int process)
{
    for (int at = 0; at < fds_used; at++)
        if (fds[at].kind != FD_FREE && fds[at].process == process)
            close_entry(&fds[at], sim_chance(500));
    for (int at = 0; at < MAPS_MAX; at++) {
        if (!maps[at].area || maps[at].process != process)
            continue;
        maps[at].area->maps--;
        maps[at].area = NULL;
    }
}

void maps_add(struct sim_area *area, int process)
{
    int at = 0;
    while (at < MAPS_MAX && maps[at].area)
        at++;
    if (at == MAPS_MAX)
        sim_fail("maps leak: there are %d", at);
    maps[at].area = area;
    maps[at].process = process;
    area->maps++;
}

void maps_remove(struct sim_area *area, int process)
{
    for (int at = 0; at < MAPS_MAX; at++) {
        if (maps[at].area != area || maps[at].process != process)
            continue;
        maps[at].area = NULL;
        area->maps--;
        return;
    }
    LKI_ASSERT(false);
}
