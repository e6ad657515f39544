/* SPDX-License-Identifier: MIT */
#include "broker/managed.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/io/instance.h"
#include "broker/io/log.h"
#include "broker/keeper/service_manager.h"
#include "common/fd.h"

static void on_problem(const char *text, void *user)
{
    (void)user;
    lkd_log_line(LKD_LOG_WARNING, "%s", text);
}

static void warn_untold(const char *what, int result)
{
    if (result < 0)
        lkd_log_line(LKD_LOG_WARNING, "cannot tell the service manager %s: %s", what,
                     strerror(-result));
}

void lkd_managed_open(struct lkd_service *service, bool autostarted)
{
    if (autostarted)
        lkd_service_open_none(service);
    else
        lkd_service_open(service, on_problem, NULL);
}

static int adopt(struct lkd_inherited *listener, const char *path, enum lkd_socket_owner owner,
                 uint64_t now_s, struct lkd_instance *instance,
                 struct lkd_instance_problem *out_problem)
{
    return lkd_instance_adopt(instance, path, lkd_inherited_take(listener), owner, now_s,
                              out_problem);
}

int lkd_managed_adopt(struct lkd_service *service, const char *path, uint64_t now_s,
                      struct lkd_instance *instance, struct lkd_instance_problem *out_problem)
{
    struct stat status;
    struct lkd_inherited *listener = lkd_service_find_listener(service, false);
    if (listener != NULL) { /* whoever wrote a socket unit wants that socket or none */
        int r = adopt(listener, path, LKD_SOCKET_MANAGERS, now_s, instance, out_problem);
        if (r == 0 && lstat(instance->path, &status) < 0)
            lkd_log_line(LKD_LOG_WARNING, "%s: %s; nobody new can connect: restart the socket unit",
                         instance->path, strerror(errno));
        return r;
    }
    listener = lkd_service_find_listener(service, true);
    if (listener == NULL)
        return LKD_MANAGED_NO_LISTENER;
    int r = adopt(listener, path, LKD_SOCKET_OURS, now_s, instance, out_problem);
    if (r == 0 || r == -EADDRINUSE)
        return r;
    lkd_log_line(LKD_LOG_WARNING, "%s: makes a new one", out_problem->text);
    /* Before the new one is made: as long as the manager has the old one, somebody seems to listen
     * there. */
    warn_untold("to drop the old socket", lkd_service_forget(service, LKD_SERVICE_OWN_LISTENER));
    return LKD_MANAGED_NO_LISTENER;
}

void lkd_managed_drop_rest(struct lkd_service *service)
{
    for (size_t i = 0; i < service->inherited_count; i++) {
        struct lkd_inherited *inherited = &service->inherited[i];
        if (inherited->fd < 0)
            continue;
        lkd_log_line(LKD_LOG_WARNING, "does not use the inherited descriptor %d ('%s')",
                     inherited->fd, inherited->name);
        if (!inherited->is_listener)
            warn_untold("to drop it", lkd_service_forget(service, inherited->name));
        inherited->fd = lki_close(inherited->fd);
    }
}

void lkd_managed_tell_ready(struct lkd_service *service, const struct lkd_instance *instance)
{
    if (instance->socket_inode != 0)
        warn_untold("to keep the socket",
                    lkd_service_store(service, LKD_SERVICE_OWN_LISTENER, instance->listen_fd));
    warn_untold("the status", lkd_service_status(service, "Listens at %s", instance->path));
    warn_untold("READY=1", lkd_service_notify(service, "READY=1"));
}

void lkd_managed_tell_stopping(struct lkd_service *service, const struct lkd_instance *instance)
{
    warn_untold("STOPPING=1", lkd_service_notify(service, "STOPPING=1"));
    if (instance->socket_inode != 0) /* its file is about to go */
        warn_untold("to drop the socket", lkd_service_forget(service, LKD_SERVICE_OWN_LISTENER));
}

void lkd_managed_ping(void *user)
{
    warn_untold("WATCHDOG=1", lkd_service_notify(user, "WATCHDOG=1"));
}
