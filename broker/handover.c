/* SPDX-License-Identifier: MIT */
#include "broker/handover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"
#include "common/place.h"
#include "engine/layout.h"
#include "proto/channel.h"

#define ARGUMENTS_MAX 64
#define REQUEST_MS 5000

extern char **environ;

/* What goes along; a program of another version does not read it. */
struct handed_over {
    uint32_t version;
    int32_t ledger_fd;
    struct lkd_instance instance;
    int32_t names_fd;
    uint32_t names_slots;
    int32_t manager_fd;
    uint32_t manager_address_bytes;
    struct sockaddr_un manager_address;
    uint64_t watchdog_ns;
};

bool lkd_handover_accepts(uint64_t version)
{
    return version == LKD_HANDOVER_VERSION;
}

bool lkd_handover_ask(const char *program)
{
    char version[16];
    (void)snprintf(version, sizeof(version), "%u", LKD_HANDOVER_VERSION);
    char *argv[] = {(char *)program, (char[]){"--accepts"}, version, NULL};
    pid_t pid;
    int status = 0;
    if (posix_spawn(&pid, program, NULL, NULL, argv, environ) != 0)
        return false;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* --- Out --- */

static int for_each_fd(int (*act)(int fd))
{
    DIR *table = opendir("/proc/self/fd");
    if (table == NULL)
        return -errno;
    int r = 0;
    for (const struct dirent *entry; (entry = readdir(table)) != NULL;) {
        int fd = (int)strtol(entry->d_name, NULL, 10);
        if (entry->d_name[0] != '.' && fd > STDERR_FILENO && fd != dirfd(table) && act(fd) < 0)
            r = -errno;
    }
    closedir(table);
    return r;
}

static int keep_over_exec(int fd)
{
    return fcntl(fd, F_SETFD, 0);
}

static int close_on_exec(int fd)
{
    return fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static int write_file(const struct handed_over *what)
{
    LKI_CLEANUP(lki_close_p) int fd = memfd_create("lockkeeper-handover", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (pwrite(fd, what, sizeof(*what), 0) != sizeof(*what))
        return -EIO;
    return lki_steal_fd(&fd);
}

/* The old arguments but for a --resume, and a new one behind them. */
static void make_arguments(const struct lkd_handover *handover, char *number,
                           char *out_argv[ARGUMENTS_MAX])
{
    size_t count = 0;
    for (char **argument = handover->argv; *argument != NULL && count < ARGUMENTS_MAX - 3;
         argument++) {
        if (strcmp(*argument, "--resume") == 0 && argument[1] != NULL)
            argument++;
        else
            out_argv[count++] = *argument;
    }
    out_argv[count++] = (char *)"--resume";
    out_argv[count++] = number;
    out_argv[count] = NULL;
}

int lkd_handover_execute(const struct lkd_handover *handover, int ledger_fd,
                         const struct lkd_instance *instance, const struct lkd_names *names,
                         const struct lkd_service *manager)
{
    struct handed_over what = {
        .version = LKD_HANDOVER_VERSION,
        .ledger_fd = ledger_fd,
        .instance = *instance,
        .names_fd = names->fd,
        .names_slots = names->slots,
        .manager_fd = manager->socket_fd,
        .manager_address_bytes = manager->address_bytes,
        .manager_address = manager->address,
        .watchdog_ns = manager->watchdog_ns,
    };
    char number[16];
    char *argv[ARGUMENTS_MAX];
    int file_fd = write_file(&what);
    if (file_fd < 0)
        return file_fd;
    (void)snprintf(number, sizeof(number), "%d", file_fd);
    make_arguments(handover, number, argv);
    int r = for_each_fd(keep_over_exec);
    if (r == 0) {
        (void)execv(handover->program, argv);
        r = -errno;
    }
    (void)for_each_fd(close_on_exec);
    (void)lki_close(file_fd);
    return r;
}

/* --- In --- */

int lkd_handover_resume(int file_fd, struct lkd_instance *out_instance, struct lkd_names *out_names,
                        struct lkd_service *out_manager)
{
    struct handed_over what;
    ssize_t bytes = pread(file_fd, &what, sizeof(what), 0);
    (void)lki_close(file_fd);
    if (bytes != sizeof(what) || what.version != LKD_HANDOVER_VERSION)
        return -EPROTO;
    (void)for_each_fd(close_on_exec);
    *out_instance = what.instance;
    *out_manager = (struct lkd_service){
        .socket_fd = what.manager_fd,
        .address = what.manager_address,
        .address_bytes = what.manager_address_bytes,
        .watchdog_ns = what.watchdog_ns,
    };
    lkd_names_resume(out_names, what.instance.directory_fd, what.instance.name, what.names_slots,
                     what.names_fd);
    return what.ledger_fd;
}

/* --- The request --- */

static int __attribute__((format(printf, 2, 3))) refuse(int exit_code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("lockkeeperd: --upgrade: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return exit_code;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address;
    socklen_t bytes;
    if (lki_socket_address(path, &address, &bytes) < 0)
        return -1;
    LKI_CLEANUP(lki_close_p) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, bytes) < 0)
        return -1;
    return lki_steal_fd(&fd);
}

struct conversation {
    struct lki_arena arena;
    uint8_t record[LKI_REPLY_BYTES_MAX];
};

/* Receives until there is a message of this type, for at most so long. */
static bool await(int fd, struct conversation *talk, enum lki_message_type type,
                  struct lki_message *out_message)
{
    uint64_t deadline_ns = lki_clock_now_ns() + REQUEST_MS * LKI_NS_PER_MS;
    for (;;) {
        int fds[LKI_CHANNEL_FDS_MAX];
        size_t fd_count = 0;
        const char *reason;
        uint64_t now_ns = lki_clock_now_ns();
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (now_ns >= deadline_ns ||
            poll(&wait, 1, (int)((deadline_ns - now_ns) / LKI_NS_PER_MS) + 1) < 0)
            return false;
        lki_arena_reset(&talk->arena);
        int r = lki_channel_receive(fd, &talk->arena, talk->record, LKI_DIRECTION_REPLY,
                                    LKI_CHANNEL_NO_WAIT, out_message, fds, &fd_count, &reason);
        if (r == 1 && out_message->type == type)
            return true;
        if (r <= 0 && r != -EAGAIN)
            return false;
    }
}

/* Says hello, and asks for the broker's own line. */
static bool send_questions(int fd)
{
    const struct lki_message hello = {
        .type = LKI_REQUEST_HELLO,
        .id = 1,
        .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR,
                     .protocol_minor = LKI_PROTOCOL_MINOR,
                     .layout_major = LKI_LAYOUT_MAJOR},
    };
    const struct lki_message list = {
        .type = LKI_REQUEST_LIST, .id = 2, .as.list.what = LKI_LIST_BROKER};
    return lki_channel_send(fd, &hello, NULL, 0, LKI_CHANNEL_WAIT) == 0 &&
           lki_channel_send(fd, &list, NULL, 0, LKI_CHANNEL_WAIT) == 0;
}

static int ask_keeper(const char *path, int fd)
{
    static struct conversation talk;
    struct lki_message message;
    if (!send_questions(fd) || !await(fd, &talk, LKI_REPLY_LIST_PAGE, &message) ||
        message.as.list_page.count != 1)
        return refuse(EX_UNAVAILABLE, "what answers at %s is no broker of this release", path);
    int32_t pid = message.as.list_page.entries[0].pid;
    if (kill(pid, SIGUSR2) < 0)
        return refuse(EX_NOPERM, "cannot ask the broker at %s (pid %" PRId32 "): %s", path, pid,
                      strerror(errno));
    if (!await(fd, &talk, LKI_REPLY_RESUMED, &message))
        return refuse(EX_TEMPFAIL,
                      "the broker at %s (pid %" PRId32
                      ") goes on as it is; its log says why it did not take the program over",
                      path, pid);
    printf("the broker at %s (pid %" PRId32 ") was upgraded; its clients stayed connected\n", path,
           pid);
    return 0;
}

int lkd_handover_request(const char *socket_path)
{
    struct lki_places places;
    lki_places_find(socket_path, geteuid(), &places);
    for (size_t i = 0; i < places.count; i++) {
        if (places.entries[i].result != 0)
            continue;
        LKI_CLEANUP(lki_close_p) int fd = connect_to(places.entries[i].path);
        if (fd >= 0)
            return ask_keeper(places.entries[i].path, fd);
    }
    return refuse(EX_UNAVAILABLE, "no broker answers%s%s; start one: lockkeeperd",
                  socket_path != NULL ? " at " : "", socket_path != NULL ? socket_path : "");
}
