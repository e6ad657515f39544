/* SPDX-License-Identifier: MIT */
/* Descriptors of client processes: numbers beyond those of any real one. */
#pragma once

#include <stdbool.h>

#include "tests/sim/kernel.h"

#define SIM_FD_FIRST 1000000

enum fd_kind {
    FD_FREE,
    FD_SOCKET, /* index: of the socket */
    FD_AREA,   /* index: of the area */
    FD_OTHER,  /* a duplicate of anything */
};

struct sim_fd {
    enum fd_kind kind;
    int index;
    int process;
};

void fds_init(void);
int fds_take(enum fd_kind kind, int index, int process);
const struct sim_fd *fds_get(int fd); /* NULL: none of these */
void fds_close(int fd);
void fds_close_all(int process); /* as its end does */

struct lki_arena;
int kernel_receive_reply(int fd, struct lki_arena *arena, struct lki_message *out,
                         struct sim_area **out_area);
void kernel_close_client_side(struct sim_socket *socket, bool cut);

/* Maps of a process, to be counted. */
void maps_add(struct sim_area *area, int process);
void maps_remove(struct sim_area *area, int process);
