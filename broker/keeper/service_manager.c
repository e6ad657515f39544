/* SPDX-License-Identifier: MIT */
#include "broker/keeper/service_manager.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"
#include "common/printable.h"

#define FIRST_FD 3 /* where inherited descriptors begin */
#define PINGS_PER_INTERVAL 3

static const char unknown_name[] = "unknown"; /* as sd_listen_fds_with_names(3) has it */

/* Everything that a manager may set for one process alone. */
static const char *const variables[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                        "LISTEN_FDS",    "LISTEN_PID",    "LISTEN_FDNAMES"};

struct problems {
    lkd_service_problem_fn tell;
    void *user;
};

static void __attribute__((format(printf, 2, 3)))
complain(const struct problems *problems, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (problems->tell != NULL)
        problems->tell(text, problems->user);
}

/* --- Reading the environment --- */

/* A whole number without sign or blanks, at most max. */
static bool parse_number(const char *text, uint64_t max, uint64_t *out_number)
{
    char *end;
    if (text[0] < '0' || text[0] > '9') /* strtoull() takes blanks and signs */
        return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || number > max)
        return false;
    *out_number = number;
    return true;
}

static void read_address(struct lkd_service *service, const struct problems *problems)
{
    const char *text = getenv("NOTIFY_SOCKET");
    if (text == NULL || text[0] == '\0')
        return;
    size_t length = strlen(text);
    if ((text[0] != '/' && text[0] != '@') || length < 2) {
        complain(problems, "NOTIFY_SOCKET=%.64s ignored: neither a path nor @name", text);
        return;
    }
    if (length >= sizeof(service->address.sun_path)) {
        complain(problems, "NOTIFY_SOCKET ignored: %zu bytes, a socket address takes %zu", length,
                 sizeof(service->address.sun_path) - 1);
        return;
    }
    service->address.sun_family = AF_UNIX;
    memcpy(service->address.sun_path, text, length);
    service->address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    if (text[0] == '@')
        service->address.sun_path[0] = '\0'; /* abstract: its length is part of the name */
    else
        service->address_bytes++;
    /* Not connected: a manager that starts itself anew binds another socket to the same path. */
    service->socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (service->socket_fd < 0)
        complain(problems, "cannot talk to the service manager: socket: %s", strerror(errno));
}

static void read_watchdog(struct lkd_service *service, const struct problems *problems)
{
    const char *interval = getenv("WATCHDOG_USEC");
    const char *addressee = getenv("WATCHDOG_PID");
    uint64_t number;
    if (interval == NULL)
        return;
    if (addressee != NULL && (!parse_number(addressee, INT_MAX, &number) || number == 0)) {
        complain(problems, "WATCHDOG_USEC ignored: WATCHDOG_PID=%.64s is no pid", addressee);
        return;
    }
    if (addressee != NULL && number != (uint64_t)getpid())
        return; /* a parent's, which pings by itself */
    if (!parse_number(interval, UINT64_MAX / LKI_NS_PER_US, &number) || number == 0) {
        complain(problems, "WATCHDOG_USEC=%.64s ignored: not a number of microseconds", interval);
        return;
    }
    service->watchdog_ns = number * LKI_NS_PER_US;
}

/* How many descriptors are addressed to us. */
static size_t read_fd_count(const struct problems *problems)
{
    const char *count = getenv("LISTEN_FDS");
    const char *addressee = getenv("LISTEN_PID");
    uint64_t number;
    if (count == NULL)
        return 0;
    if (addressee == NULL || !parse_number(addressee, INT_MAX, &number)) {
        complain(problems, "LISTEN_FDS ignored: LISTEN_PID=%.64s is no pid",
                 addressee != NULL ? addressee : "");
        return 0;
    }
    if (number != (uint64_t)getpid()) {
        complain(problems, "LISTEN_FDS ignored: addressed to pid %llu, this is pid %ld",
                 (unsigned long long)number, (long)getpid());
        return 0;
    }
    if (!parse_number(count, LKD_SERVICE_FDS_MAX, &number)) {
        complain(problems, "LISTEN_FDS=%.64s ignored: not a number up to %u", count,
                 LKD_SERVICE_FDS_MAX);
        return 0;
    }
    return (size_t)number;
}

/* What a name in the protocol may be: printable ASCII without the separator. */
static bool is_name(const char *name)
{
    size_t length = 0;
    for (; name[length] != '\0'; length++)
        if (name[length] < ' ' || name[length] > '~' || name[length] == ':')
            return false;
    return length > 0 && length <= LKD_SERVICE_FD_NAME_BYTES_MAX;
}

/* Gives the descriptors their names, all or none: with one missing nobody knows whose it is. */
static void read_names(struct lkd_service *service, size_t count, const struct problems *problems)
{
    const char *list = getenv("LISTEN_FDNAMES");
    if (list == NULL)
        return;
    size_t found = 1;
    for (const char *c = list; *c != '\0'; c++)
        found += *c == ':';
    if (found != count) {
        complain(problems, "LISTEN_FDNAMES ignored: %zu names for %zu descriptors", found, count);
        return;
    }
    service->names = strdup(list);
    if (service->names == NULL) {
        complain(problems, "LISTEN_FDNAMES ignored: %s", strerror(ENOMEM));
        return;
    }
    char *rest = service->names;
    for (size_t i = 0; i < count; i++) {
        char *name = strsep(&rest, ":");
        if (is_name(name))
            service->inherited[i].name = name;
        else
            complain(problems, "LISTEN_FDNAMES: the name of descriptor %zu is not printable ASCII",
                     i + FIRST_FD);
    }
}

static bool listens(int fd)
{
    int listening = 0;
    socklen_t bytes = sizeof(listening);
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) == 0 && listening != 0;
}

static void read_fds(struct lkd_service *service, const struct problems *problems)
{
    size_t count = read_fd_count(problems);
    if (count == 0)
        return;
    service->inherited = calloc(count, sizeof(*service->inherited));
    for (size_t i = 0; i < count; i++) {
        int fd = FIRST_FD + (int)i;
        bool open = fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
        if (!open)
            complain(problems, "inherited descriptor %d ignored: %s", fd, strerror(errno));
        if (service->inherited != NULL)
            service->inherited[i] = (struct lkd_inherited){
                .fd = open ? fd : -1,
                .name = unknown_name,
                .is_listener = open && listens(fd),
            };
    }
    if (service->inherited == NULL) {
        complain(problems, "%zu inherited descriptors ignored: %s", count, strerror(ENOMEM));
        return;
    }
    service->inherited_count = count;
    read_names(service, count, problems);
}

/* --- Lifecycle --- */

void lkd_service_open_none(struct lkd_service *service)
{
    *service = (struct lkd_service){.socket_fd = -1};
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(variables); i++)
        (void)unsetenv(variables[i]);
}

void lkd_service_open(struct lkd_service *service, lkd_service_problem_fn on_problem, void *user)
{
    const struct problems problems = {.tell = on_problem, .user = user};
    struct lkd_service found = {.socket_fd = -1};
    read_fds(&found,
             &problems); /* first: the socket made below must not take one of their places */
    read_address(&found, &problems);
    read_watchdog(&found, &problems);
    lkd_service_open_none(service);
    *service = found;
}

void lkd_service_close(struct lkd_service *service)
{
    service->socket_fd = lki_close(service->socket_fd);
    for (size_t i = 0; i < service->inherited_count; i++)
        service->inherited[i].fd = lki_close(service->inherited[i].fd);
    free(service->inherited);
    free(service->names);
    *service = (struct lkd_service){.socket_fd = -1};
}

bool lkd_service_is_managed(const struct lkd_service *service)
{
    return service->socket_fd >= 0;
}

/* --- What we were left --- */

int lkd_inherited_take(struct lkd_inherited *inherited)
{
    return lki_steal_fd(&inherited->fd);
}

struct lkd_inherited *lkd_service_find_listener(struct lkd_service *service, bool own)
{
    for (size_t i = 0; i < service->inherited_count; i++) {
        struct lkd_inherited *inherited = &service->inherited[i];
        if (inherited->fd >= 0 && inherited->is_listener &&
            (strcmp(inherited->name, LKD_SERVICE_OWN_LISTENER) == 0) == own)
            return inherited;
    }
    return NULL;
}

/* --- What we tell --- */

/* One datagram, with fd unless that is -1. The kernel adds our credentials, since the manager's
 * socket asks for them. */
static int send_datagram(struct lkd_service *service, const char *text, size_t length_bytes, int fd)
{
    union { /* aligned for the header */
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    if (length_bytes > LKD_SERVICE_MESSAGE_BYTES_MAX)
        return -EMSGSIZE;
    if (service->socket_fd < 0)
        return 0;
    struct iovec body = {.iov_base = (void *)(uintptr_t)text, .iov_len = length_bytes};
    struct msghdr message = {
        .msg_name = &service->address,
        .msg_namelen = service->address_bytes,
        .msg_iov = &body,
        .msg_iovlen = 1,
    };
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(int));
    }
    ssize_t sent;
    do
        sent = sendmsg(service->socket_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

int lkd_service_notify(struct lkd_service *service, const char *assignments)
{
    return send_datagram(service, assignments, strlen(assignments), -1);
}

int lkd_service_status(struct lkd_service *service, const char *format, ...)
{
    static const char key[] = "STATUS=";
    char text[512];
    va_list arguments;
    memcpy(text, key, sizeof(key));
    va_start(arguments, format);
    (void)vsnprintf(text + sizeof(key) - 1, sizeof(text) - sizeof(key) + 1, format, arguments);
    va_end(arguments);
    return lkd_service_notify(service, lki_printable(text));
}

int lkd_service_store(struct lkd_service *service, const char *name, int fd)
{
    char text[LKD_SERVICE_FD_NAME_BYTES_MAX + 64];
    if (!is_name(name) || fd < 0)
        return -EINVAL;
    /* FDPOLL=0: the manager would drop what polls as hung up, as a peer's socket may. */
    int length = snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
    LKI_ASSERT(length > 0 && (size_t)length < sizeof(text));
    return send_datagram(service, text, (size_t)length, fd);
}

int lkd_service_forget(struct lkd_service *service, const char *name)
{
    char text[LKD_SERVICE_FD_NAME_BYTES_MAX + 64];
    if (!is_name(name))
        return -EINVAL;
    int length = snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
    LKI_ASSERT(length > 0 && (size_t)length < sizeof(text));
    return send_datagram(service, text, (size_t)length, -1);
}

uint64_t lkd_service_ping_interval_ms(const struct lkd_service *service)
{
    uint64_t interval_ms = service->watchdog_ns / LKI_NS_PER_MS / PINGS_PER_INTERVAL;
    return service->watchdog_ns != 0 && interval_ms == 0 ? 1 : interval_ms;
}
