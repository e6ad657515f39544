/* SPDX-License-Identifier: MIT */
/* What a kernel is to broker and clients: sockets that keep records in order and are cut when their
 * process ends, descriptors, futexes, memory that is mapped. Records are bytes: both sides go through
 * the real codec. */
#pragma once

#include "engine/layout.h"
#include "proto/message.h"
#include "tests/sim/sim.h"

#define SIM_LOCKS_MAX 4u
#define SIM_AREAS_MAX 2048u
#define SIM_SOCKETS_MAX 4096

struct sim_record;

struct sim_queue {
    struct sim_record *first;
    struct sim_record *last;
    uint64_t visible_ns; /* when the last one can be seen: nothing overtakes */
};

struct sim_socket {
    int index;
    int process;
    bool client_open;
    bool broker_open;
    bool accepted;
    bool
        reset; /* its client ended with replies unread: of what it had sent only one-way releases count */
    bool resuming;   /* RESUMED was sent and not answered: the worker hears nothing */
    uint64_t end_ns; /* client closed: when that can be seen */
    struct sim_queue to_broker;
    struct sim_queue to_client;
    uint8_t *ids; /* by request id: see kernel.c */
    uint64_t ids_count;
};

/* What the oracle knows of one lock. */
struct sim_lock {
    bool damaged;
    bool to_exit;     /* the writer's hold */
    int writer;       /* task that was told it holds it exclusively, or SIM_NOBODY */
    int updater;      /* the same for update: nobody beside it but readers */
    uint32_t readers; /* tasks, as bits */
    uint64_t last_token;
    uint64_t let_go; /* token of the last exclusive hold whose release has returned */
    uint64_t writes;
};

/* The control area of one segment, from its making until nobody has it any more. */
struct sim_area {
    uint32_t number;
    bool made;     /* the worker has it */
    uint32_t maps; /* of living clients */
    uint64_t bytes;
    char *base; /* aligned to pages */
    struct lki_area view;
    bool viewed;
    struct sim_lock locks[SIM_LOCKS_MAX];
};

struct sim_kernel {
    struct sim_socket sockets[SIM_SOCKETS_MAX];
    int socket_count;
    int first_open; /* all before are closed on both sides */
    struct sim_area *areas[SIM_AREAS_MAX];
    uint32_t area_count;
    uint8_t *ledger;
    uint64_t ledger_bytes;
};

extern struct sim_kernel kernel;

void kernel_init(void);

/* --- Sockets, the broker's side --- */

/* Sends a message; areas that go along by number. False: the client has closed. */
bool kernel_send_reply(struct sim_socket *socket, const struct lki_message *message,
                       struct sim_area *area);

/* The type of a request that its client has sent. */
enum lki_message_type kernel_type_asked(struct sim_socket *socket, uint64_t id);

/* Takes the next record that can be seen. 1: *out is valid until the next call; 0: the client has
 * ended and nothing is left; -EAGAIN. */
int kernel_receive_request(struct sim_socket *socket, struct lki_message *out);

/* Leaves the next one-way release in its place if it is first in the queue, seen or not when `last` says that
 * nothing more is to come: 1 and the message, else 0. */
int kernel_peek_one_way(struct sim_socket *socket, bool last, struct lki_message *out);
/* Whether anything was sent, or will be no more, that the broker has not heard, seen or not. */
bool kernel_has_requests(const struct sim_socket *socket);

/* Whether a one-way release of this hold was sent, and not heard. */
bool kernel_has_released(uint32_t segment, uint32_t attachment, uint32_t lock);

/* Takes it out. */
void kernel_skip_request(struct sim_socket *socket);

/* When the next record or the end can be seen; LKI_TIME_NEVER. */
uint64_t kernel_request_due_ns(const struct sim_socket *socket);
void kernel_close_broker_side(struct sim_socket *socket);

/* --- The client's side; fd is what lki_connect() gave --- */
int kernel_connect(int process);
struct sim_socket *kernel_socket_of(int fd);
int kernel_send_request(int fd, const struct lki_message *message);
bool kernel_reply_is_there(int fd);

/* Sleeps until something can be received, or the connection has ended, or until_ns. */
void kernel_await_reply(int fd, uint64_t until_ns);

/* All that a process had, when it ends. */
void kernel_end_process(int process);

/* --- Memory --- */
struct sim_area *kernel_make_area(uint32_t number, uint64_t bytes);
struct sim_area *kernel_find_area(uint32_t number); /* that the worker has; NULL */
struct sim_area *kernel_area_at(const void *base);  /* NULL */
void kernel_drop_area(struct sim_area *area);       /* by the worker */

/* --- Futexes --- */
void kernel_wake_futex(const _Atomic uint32_t *futex);

/* Nothing is on its way to the worker. */
bool kernel_is_quiet(void);
