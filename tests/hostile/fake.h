/* SPDX-License-Identifier: MIT */
/* A false broker: answers the OPEN of each connection with the next of its lies, and hangs up. */
#pragma once

#define FAKE_LIES 18u

/* Listens at path, posts ready, and serves until it is killed. */
void fake_serve(const char *path, int ready);
