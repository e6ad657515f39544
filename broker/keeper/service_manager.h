/* SPDX-License-Identifier: MIT */
/* The service manager that started us, if one did: what it left to us (descriptors, the watchdog's
 * interval) and what we tell it (readiness, status, descriptors to keep for a successor). Owns one
 * datagram socket, the address to send to, and the inherited descriptors that nobody has taken.
 *
 * Speaks systemd's protocol itself: environment variables in, datagrams out; sd_listen_fds(3),
 * sd_notify(3) and sd_watchdog_enabled(3) describe it. Nothing here blocks, logs, or fails a start:
 * without a manager every call does nothing and returns 0. For the main process alone, since the
 * manager listens to that one only; one thread. No libuv. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/* The manager puts the names of all descriptors into one variable, and execve(2) takes 128 KiB of a
 * variable: more than this cannot come back, however long the names are. */
#define LKD_SERVICE_FDS_MAX 65536u
#define LKD_SERVICE_FD_NAME_BYTES_MAX 255u
#define LKD_SERVICE_MESSAGE_BYTES_MAX 4095u /* longer ones are dropped by the manager */

/* The name under which a broker that made its own socket has the manager keep it. A socket unit
 * passes one under another name; then the file belongs to the manager. */
#define LKD_SERVICE_OWN_LISTENER "own-listener"

/* A descriptor that the manager passed. */
struct lkd_inherited {
    int fd;           /* -1: taken */
    const char *name; /* "unknown" when none was given */
    bool is_listener; /* a socket that listens, of whatever family and type */
};

struct lkd_service {
    int socket_fd; /* -1: there is nobody to tell */
    struct sockaddr_un address;
    socklen_t address_bytes;
    uint64_t watchdog_ns; /* without a WATCHDOG=1 for so long, we are killed; 0: no watchdog */
    struct lkd_inherited *inherited;
    size_t inherited_count;
    char *names; /* what inherited[].name points into */
};

/* Told of each value that was ignored, in a line for people: what, why. */
typedef void (*lkd_service_problem_fn)(const char *text, void *user);

/**
 * Reads and unsets NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID, LISTEN_FDS, LISTEN_PID and
 * LISTEN_FDNAMES, so that no child takes them for its own, and makes the inherited descriptors
 * close-on-exec. A wrong value counts as absent. Descriptors that are addressed to another process
 * are left alone. Call it before threads are started and before anything is opened.
 */
void lkd_service_open(struct lkd_service *service, lkd_service_problem_fn on_problem, void *user);

/* For a process that a client started: what stands in the environment is the client's, and its
 * manager must not hear of us. Unsets the variables, and leaves a service without a manager. */
void lkd_service_open_none(struct lkd_service *service);

/* Closes the socket and what is inherited and was not taken. Does not tell the manager. */
void lkd_service_close(struct lkd_service *service);

bool lkd_service_is_managed(const struct lkd_service *service);

/* --- What we were left --- */

/* Takes a descriptor out: it is the caller's from here on. */
int lkd_inherited_take(struct lkd_inherited *inherited);

/**
 * The first inherited socket that listens and has not been taken; NULL: none.
 * @own: the one that an earlier broker made and stored, else one that the manager made
 */
struct lkd_inherited *lkd_service_find_listener(struct lkd_service *service, bool own);

/* --- What we tell. All return 0, also without a manager; -EAGAIN (its queue is full: try again
 * later), -EMSGSIZE, -EINVAL, or what sendmsg(2) says; then nothing was sent. --- */

/* Sends assignments, separated by line feeds: READY=1, STOPPING=1, WATCHDOG=1, MAINPID=..., ... */
int lkd_service_notify(struct lkd_service *service, const char *assignments);

/* Sends STATUS=, which `systemctl status` shows; about 500 bytes, the rest is cut. Control characters
 * and what is not UTF-8 become '?': a line feed would begin another assignment, and the manager
 * drops a status that is not UTF-8. */
int lkd_service_status(struct lkd_service *service, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/**
 * Has the manager keep a duplicate of fd, which it passes to our successor under this name. The
 * same file twice is kept once, under its first name.
 * @name: 1 to 255 printable ASCII characters without ':', else -EINVAL
 * @fd:   borrowed
 * The manager does not answer: when its store is full (FileDescriptorStoreMax=), or it closed the
 * door (NotifyAccess=), that shows in its log alone.
 */
int lkd_service_store(struct lkd_service *service, const char *name, int fd);

/* Has the manager drop every descriptor of this name. */
int lkd_service_forget(struct lkd_service *service, const char *name);

/* How long to wait between two WATCHDOG=1, in milliseconds; 0: there is no watchdog. A third of the
 * interval, so that one late one does no harm. */
uint64_t lkd_service_ping_interval_ms(const struct lkd_service *service);
