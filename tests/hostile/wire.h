/* SPDX-License-Identifier: MIT */
/* The protocol spoken by hand: what the client library would never send can be sent here. Whatever
 * an attacker may meet (a refusal, a dropped connection) is a result; what can only be the test's
 * own mistake aborts it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/channel.h"

struct hostile_reply {
    struct lki_message message; /* its bytes live until the next reply is received */
    int fds[LKI_RECORD_FDS_MAX];
    size_t fd_count;
};

/* Connects, with a receive time-out of 10 s. Returns the socket or -errno. */
int hostile_connect(const char *socket_path);

/* The same, and says hello; aborts when refused. */
int hostile_greet(const char *socket_path);

/* Sends one record of these bytes with count descriptors. Returns as sendmsg(2), or -errno. */
ssize_t hostile_send_bytes(int fd, const void *bytes, size_t size_bytes, const int *fds,
                           size_t count);

/* Sends a request. Returns as lki_channel_send(). */
int hostile_send(int fd, const struct lki_message *request);

/* Receives a reply. Returns as lki_channel_receive(). */
int hostile_receive(int fd, struct hostile_reply *out_reply);
void hostile_reply_close(struct hostile_reply *reply);

/* Sends a request, again to a worker that took over, and receives replies until its own has come;
 * the others' are dropped. Returns the
 * reply's status (of an OPENED, LKI_STATUS_OK), or -errno when there was none. */
int hostile_call(int fd, const struct lki_message *request, struct hostile_reply *out_reply);

/* True when the connection ends within 10 s; reads replies away. */
bool hostile_is_dropped(int fd);

/* Requests. */
struct lki_message hostile_hello(void);
struct lki_message hostile_open(uint64_t id, const char *name, uint32_t flags, uint64_t size_bytes);
struct lki_message hostile_list(uint64_t id, uint32_t what);
struct lki_message hostile_acquire(uint64_t id, uint32_t segment, uint32_t lock,
                                   uint64_t deadline_ns);

/* Opens a segment; the descriptors are closed. Returns its number; aborts when refused. */
uint32_t hostile_open_segment(int fd, const struct lki_message *request);
