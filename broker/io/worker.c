/* SPDX-License-Identifier: MIT */
#include "broker/io/worker.h"

#include <sys/socket.h>

bool lkd_worker_request_signal(const struct lkd_worker_start *start, int pidfd, int signal)
{
    const struct lkd_signal_request request = {.pidfd = pidfd, .signal = signal};
    return send(start->request_fd, &request, sizeof(request), MSG_DONTWAIT | MSG_NOSIGNAL) ==
           sizeof(request);
}
