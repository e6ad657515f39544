/* SPDX-License-Identifier: MIT */
/* A control area made in memory and sessions attached to it, with no broker or a socket whose other
 * end the test holds: for what the client library does by itself. */
#pragma once

#include <stdint.h>

#include "client/segment.h"
#include "engine/layout.h"

#define AREA_LOCKS 24

struct area_fixture {
    int area_fd;
    int data_fd;
    void *base;
    struct lki_area area;
    uint32_t slots;
};

void area_fixture_init(struct area_fixture *fixture);
void area_fixture_deinit(struct area_fixture *fixture);

/* The OPENED that a broker would send for the next slot, with its descriptors. */
void area_fixture_opened(struct area_fixture *fixture, struct lki_record *out_record);

/* A session with no connection (socket_fd -1), or over the socket, which is consumed; and its
 * attachment. */
struct lk_segment *area_fixture_attach(struct area_fixture *fixture, int socket_fd);

/* What the broker does after the death of the session's process. */
void area_fixture_repair(struct area_fixture *fixture, const struct lk_segment *segment);
