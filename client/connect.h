/* SPDX-License-Identifier: MIT */
/* Finding the broker: the candidates of common/place.h, one after the other, and a start when
 * nobody answers. Makes the error texts of its calls. */
#pragma once

#include <stdint.h>

#include "common/place.h"

/**
 * Connects to the first candidate that answers, and starts a broker if none does and flags allow
 * it.
 * @flags:    LK_NO_AUTOSTART
 * @out_path: where it answers; on failure where it should have
 * Errors:    -ECONNREFUSED (nobody answers, and not started), -ENAMETOOLONG, -EACCES (not allowed
 * to connect, or a stranger answers), -EPROTO (not a broker's socket), -EMFILE, -ENFILE, -ENOMEM
 */
int lki_connect(const char *explicit_path, uint32_t flags, int *out_fd,
                char out_path[LKI_SOCKET_PATH_BYTES_MAX + 1]);

/* Connects to one path and checks who answers. No text. Errors as above, and what connect(2) said.
 */
int lki_connect_path(const char *path, int *out_fd);
