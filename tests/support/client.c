/* SPDX-License-Identifier: MIT */
#include "tests/support/client.h"

#include "tests/support/process.h"

struct lk_session *test_session(const char *socket_path)
{
    struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_session *session = NULL;
    int r = lk_session_open(socket_path, &options, &session);
    test_check(r == 0, "lk_session_open: %d, %s", r, lk_last_error());
    return session;
}

void test_client_open(struct test_client *client, const char *socket_path, const char *name,
                      const struct lk_segment_options *options)
{
    *client = (struct test_client){.session = test_session(socket_path)};
    int r = lk_segment_open(client->session, name, options, &client->segment);
    test_check(r >= 0, "lk_segment_open %s: %d, %s", name, r, lk_last_error());
    if (lk_segment_size(client->segment) == 0)
        return;
    void *data = NULL;
    r = lk_segment_map(client->segment, 0, 0, &data);
    test_check(r == 0, "lk_segment_map %s: %d, %s", name, r, lk_last_error());
    client->data = data;
}

void test_client_close(struct test_client *client)
{
    lk_session_close(client->session);
    *client = (struct test_client){0};
}

struct lk_lock *test_lock(const struct test_client *client, uint32_t index)
{
    struct lk_lock *lock = NULL;
    int r = lk_lock_at(client->segment, index, &lock);
    test_check(r == 0, "lk_lock_at %u: %d, %s", index, r, lk_last_error());
    return lock;
}

struct lk_segment_options test_options(uint64_t size_bytes, uint32_t locks)
{
    return (struct lk_segment_options){
        .size = sizeof(struct lk_segment_options),
        .size_bytes = size_bytes,
        .locks = locks,
        .flags = LK_CREATE,
    };
}

int test_acquire(struct lk_lock *lock, enum lk_mode mode)
{
    int r = lk_lock_acquire(lock, mode, LK_WAIT_FOREVER);
    test_check(r == LK_ACQUIRED || r == LK_ACQUIRED_OWNER_DIED, "lk_lock_acquire: %d, %s", r,
               lk_last_error());
    return r;
}

void test_release(struct lk_lock *lock)
{
    int r = lk_lock_release(lock);
    test_check(r == 0, "lk_lock_release: %d, %s", r, lk_last_error());
}

void test_await_waiters(struct lk_lock *lock, uint32_t waiters)
{
    uint64_t deadline_ns = lki_clock_now_ns() + 30 * LKI_NS_PER_S;
    for (;;) {
        struct lk_holder holder = {.size = sizeof(holder)};
        int r = lk_lock_holder(lock, &holder);
        test_check(r == 0, "lk_lock_holder: %d, %s", r, lk_last_error());
        if (holder.waiters >= waiters)
            return;
        test_check(lki_clock_now_ns() < deadline_ns, "%u of %u waiters came", holder.waiters,
                   waiters);
        test_sleep_ns(LKI_NS_PER_MS / 5);
    }
}
