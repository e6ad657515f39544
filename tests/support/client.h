/* SPDX-License-Identifier: MIT */
/* A client in one call: session, segment and first bytes. Whatever fails aborts the test with the
 * library's own words. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <lockkeeper/lockkeeper.h>

struct test_client {
    struct lk_session *session;
    struct lk_segment *segment;
    unsigned char *data; /* the whole segment mapped; NULL without data */
};

/* Connects, never starts a broker of its own, and opens or creates the segment. options NULL:
 * attach only. */
void test_client_open(struct test_client *client, const char *socket_path, const char *name,
                      const struct lk_segment_options *options);
void test_client_close(struct test_client *client);

struct lk_session *test_session(const char *socket_path);
struct lk_lock *test_lock(const struct test_client *client, uint32_t index);

/* Options of a segment that is created if need be. */
struct lk_segment_options test_options(uint64_t size_bytes, uint32_t locks);

/* As the library's calls, for what must not fail: result is 0 or 1. */
int test_acquire(struct lk_lock *lock, enum lk_mode mode);
void test_release(struct lk_lock *lock);

/* Returns when the broker sees that many waiters at the lock. */
void test_await_waiters(struct lk_lock *lock, uint32_t waiters);
