/* SPDX-License-Identifier: MIT */
#include "broker/io/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "broker/core/core.h"
#include "common/fd.h"

static char directory[64];
static char path[96];
static char lock_path[112];
static struct lkd_instance instance;
static struct lkd_instance_problem problem;

#define NOW_S UINT64_C(1800000000)

static void setup(void)
{
    snprintf(directory, sizeof(directory), "/tmp/lk-instance-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(directory), NULL));
    snprintf(path, sizeof(path), "%s/b.sock", directory);
    snprintf(lock_path, sizeof(lock_path), "%s.lock", path);
}

static void teardown(void)
{
    lkd_instance_close(&instance);
    (void)unlink(path);
    (void)unlink(lock_path);
    cr_expect(eq(int, rmdir(directory), 0));
}

TestSuite(instance, .init = setup, .fini = teardown, .timeout = 20);

static int open_at(uint64_t now_s)
{
    return lkd_instance_open(&instance, path, 0600, now_s, &problem);
}

/* As a kill does: nothing is written, the kernel closes. */
static void die(void)
{
    instance.listen_fd = lki_close(instance.listen_fd);
    instance.lock_fd = lki_close(instance.lock_fd);
    instance.directory_fd = lki_close(instance.directory_fd);
}

static void write_lock(const char *text)
{
    int fd = open(lock_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert(ge(int, fd, 0));
    cr_assert(eq(int, (int)write(fd, text, strlen(text)), (int)strlen(text)));
    close(fd);
}

Test(instance, the_epoch_is_the_clock_at_first)
{
    cr_assert(eq(int, open_at(NOW_S), 0), "%s", problem.text);
    cr_expect(eq(u64, instance.token_epoch_s, NOW_S));
}

Test(instance, the_epoch_rises_after_a_close_and_after_a_kill)
{
    cr_assert(eq(int, open_at(NOW_S), 0));
    cr_assert(eq(int, lkd_instance_use_epoch(&instance, NOW_S + 7), 0));
    lkd_instance_close(&instance);

    cr_assert(eq(int, open_at(NOW_S), 0));
    cr_expect(eq(u64, instance.token_epoch_s, NOW_S + 8), "nothing is wasted at a clean end");
    cr_assert(eq(int, lkd_instance_use_epoch(&instance, NOW_S + 5000), 0));
    cr_assert(eq(int, lkd_instance_use_epoch(&instance, NOW_S + 5001), 0));
    die();

    cr_assert(eq(int, open_at(NOW_S), 0));
    cr_expect(gt(u64, instance.token_epoch_s, NOW_S + 5001));
}

Test(instance, a_clock_set_back_does_not_lower_the_epoch)
{
    cr_assert(eq(int, open_at(NOW_S), 0));
    lkd_instance_close(&instance);
    cr_assert(eq(int, open_at(NOW_S - 86400), 0));
    cr_expect(gt(u64, instance.token_epoch_s, NOW_S));
}

Test(instance, a_scribbled_lock_file_is_harmless)
{
    static const char *const texts[] = {"",
                                        "\n",
                                        "nonsense",
                                        "-1 -1",
                                        "1 18446744073709551615",
                                        "1 4294967295",
                                        "99999999999999999999 1"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        write_lock(texts[i]);
        cr_assert(eq(int, open_at(NOW_S), 0), "'%s': %s", texts[i], problem.text);
        cr_expect(eq(u64, instance.token_epoch_s, NOW_S), "'%s'", texts[i]);
        lkd_instance_close(&instance);
    }
    cr_expect(lt(u64, NOW_S, (uint64_t)LKD_TOKEN_EPOCH_S_MAX));
}

Test(instance, a_second_one_is_refused_and_changes_nothing)
{
    struct lkd_instance second;
    struct stat before;
    struct stat after;
    cr_assert(eq(int, open_at(NOW_S), 0));
    cr_assert(eq(int, stat(path, &before), 0));
    cr_expect(eq(int, lkd_instance_open(&second, path, 0600, NOW_S, &problem), -EADDRINUSE));
    cr_expect(eq(int, problem.exit_code, EX_TEMPFAIL));
    cr_assert(eq(int, stat(path, &after), 0));
    cr_expect(eq(ulong, before.st_ino, after.st_ino));
}

Test(instance, a_link_in_place_of_the_lock_file_is_not_followed)
{
    char target[128];
    struct stat status;
    snprintf(target, sizeof(target), "%s/target", directory);
    cr_assert(eq(int, symlink(target, lock_path), 0));
    cr_expect(lt(int, open_at(NOW_S), 0));
    cr_expect(eq(int, stat(target, &status), -1), "it was created");
}

Test(instance, a_socket_that_somebody_put_in_our_place_stays)
{
    struct stat status;
    cr_assert(eq(int, open_at(NOW_S), 0));
    cr_assert(eq(int, unlink(path), 0));
    cr_assert(eq(int, mknod(path, S_IFSOCK | 0600, 0), 0));
    lkd_instance_close(&instance);
    cr_expect(eq(int, lstat(path, &status), 0));
}

Test(instance, the_mode_holds_whatever_the_umask_was)
{
    struct stat status;
    mode_t old = umask(0777);
    cr_assert(eq(int, lkd_instance_open(&instance, path, 0660, NOW_S, &problem), 0));
    cr_expect(eq(u32, umask(old), 0777), "the mask is restored");
    cr_assert(eq(int, stat(path, &status), 0));
    cr_expect(eq(u32, status.st_mode & 0777, 0660));
}

Test(instance, paths_that_cannot_be_are_usage_errors)
{
    cr_expect(eq(int, lkd_instance_open(&instance, "", 0600, NOW_S, &problem), -EINVAL));
    cr_expect(eq(int, problem.exit_code, EX_USAGE));
    cr_expect(eq(int, lkd_instance_open(&instance, "/tmp/", 0600, NOW_S, &problem), -EINVAL));
    cr_expect(eq(int, problem.exit_code, EX_USAGE));
}

/* --- A socket that is there already --- */

static int make_socket(int domain, int type, const char *at, bool listening)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(domain, type, 0);
    cr_assert(ge(int, fd, 0));
    if (at != NULL) {
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", at);
        cr_assert(eq(int, bind(fd, (struct sockaddr *)&address, sizeof(address)), 0));
    } else if (domain == AF_UNIX) { /* an abstract name that the kernel chooses */
        cr_assert(eq(int, bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)), 0));
    }
    if (listening)
        cr_assert(eq(int, listen(fd, 4), 0));
    return fd;
}

static int adopt(const char *expected_path, int fd, enum lkd_socket_owner owner)
{
    return lkd_instance_adopt(&instance, expected_path, fd, owner, NOW_S, &problem);
}

Test(instance, a_managers_socket_is_used_as_it_is_and_stays)
{
    struct stat before;
    struct stat after;
    int fd = make_socket(AF_UNIX, SOCK_SEQPACKET, path, true);
    cr_assert(eq(int, lstat(path, &before), 0));
    cr_assert(eq(int, adopt(NULL, fd, LKD_SOCKET_MANAGERS), 0), "%s", problem.text);
    cr_expect(eq(int, instance.listen_fd, fd));
    cr_expect(eq(str, instance.path, path));
    cr_expect(eq(int, fcntl(fd, F_GETFD), FD_CLOEXEC));
    cr_expect(ne(int, fcntl(fd, F_GETFL) & O_NONBLOCK, 0));
    cr_expect(eq(int, access(lock_path, F_OK), 0), "the path is locked");
    lkd_instance_close(&instance);
    cr_assert(eq(int, lstat(path, &after), 0), "it is the manager's");
    cr_expect(eq(ulong, before.st_ino, after.st_ino));
}

Test(instance, a_socket_of_an_earlier_broker_is_removed_at_the_end)
{
    struct stat status;
    int fd = make_socket(AF_UNIX, SOCK_SEQPACKET, path, true);
    cr_assert(eq(int, adopt(path, fd, LKD_SOCKET_OURS), 0), "%s", problem.text);
    lkd_instance_close(&instance);
    cr_expect(eq(int, lstat(path, &status), -1));
}

Test(instance, a_socket_of_an_earlier_broker_without_its_file_is_of_no_use)
{
    int fd = make_socket(AF_UNIX, SOCK_SEQPACKET, path, true);
    cr_assert(eq(int, unlink(path), 0));
    cr_expect(eq(int, adopt(path, fd, LKD_SOCKET_OURS), -ENOENT));
    cr_expect(eq(int, fcntl(fd, F_GETFD), -1), "consumed");
    cr_expect(eq(int, open_at(NOW_S), 0), "the lock is free: %s", problem.text);
}

Test(instance, a_socket_that_is_adopted_does_not_let_two_brokers_in)
{
    struct lkd_instance first;
    int fd = make_socket(AF_UNIX, SOCK_SEQPACKET, path, true);
    int second_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    cr_assert(eq(int, adopt(NULL, fd, LKD_SOCKET_MANAGERS), 0));
    first = instance;
    cr_expect(eq(int, adopt(NULL, second_fd, LKD_SOCKET_MANAGERS), -EADDRINUSE));
    cr_expect(eq(int, problem.exit_code, EX_TEMPFAIL));
    cr_expect(ne(ptr, strstr(problem.text, "another lockkeeperd"), NULL), "%s", problem.text);
    instance = first;
}

Test(instance, what_is_no_listener_of_ours_is_refused)
{
    char other[128];
    snprintf(other, sizeof(other), "%s/other", directory);
    const struct {
        const char *name;
        int fd;
        int result;
        const char *text;
    } rows[] = {
        {"file", open("/dev/null", O_RDONLY | O_CLOEXEC), -EPROTOTYPE, "ListenSequentialPacket="},
        {"network", make_socket(AF_INET, SOCK_STREAM, NULL, true), -EPROTOTYPE, "seqpacket"},
        {"stream", make_socket(AF_UNIX, SOCK_STREAM, NULL, true), -EPROTOTYPE, "seqpacket"},
        {"not listening", make_socket(AF_UNIX, SOCK_SEQPACKET, NULL, false), -EPROTOTYPE,
         "no listening"},
        {"abstract", make_socket(AF_UNIX, SOCK_SEQPACKET, NULL, true), -EINVAL, "no path"},
        {"elsewhere", make_socket(AF_UNIX, SOCK_SEQPACKET, other, true), -EINVAL,
         "leave --socket out"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_expect(eq(int, adopt(path, rows[i].fd, LKD_SOCKET_MANAGERS), rows[i].result), "%s",
                  rows[i].name);
        cr_expect(eq(int, problem.exit_code, EX_USAGE), "%s", rows[i].name);
        cr_expect(ne(ptr, strstr(problem.text, rows[i].text), NULL), "%s", problem.text);
        cr_expect(eq(int, fcntl(rows[i].fd, F_GETFD), -1), "consumed");
    }
    cr_expect(eq(int, unlink(other), 0));
}

/* --- Paths --- */

Test(instance, a_path_that_cannot_be_an_address_is_refused)
{
    char too_long[512];
    memset(too_long, 'x', sizeof(too_long) - 1);
    too_long[0] = '/';
    too_long[sizeof(too_long) - 1] = 0;
    int r = lkd_instance_open(&instance, too_long, 0600, NOW_S, &problem);
    cr_expect(eq(int, r, -ENAMETOOLONG));
    cr_expect(eq(int, problem.exit_code, EX_USAGE));
    cr_expect(ne(ptr, strstr(problem.text, "choose a shorter directory"), NULL), "%s",
              problem.text);
    cr_expect(lt(int, lkd_instance_open(&instance, "", 0600, NOW_S, &problem), 0));
    cr_expect(eq(str, problem.text, "the socket path is empty"));
}

Test(instance, a_path_without_a_directory_is_one_here)
{
    cr_assert(eq(int, chdir(directory), 0));
    cr_assert(eq(int, lkd_instance_open(&instance, "b.sock", 0600, NOW_S, &problem), 0), "%s",
              problem.text);
    cr_expect(eq(int, access(path, F_OK), 0));
    cr_expect(eq(int, access(lock_path, F_OK), 0));
    lkd_instance_close(&instance);
    cr_expect(eq(int, lkd_instance_open(&instance, "/", 0600, NOW_S, &problem), -EINVAL),
              "which has no name in it");
    cr_assert(eq(int, chdir("/"), 0));
}

Test(instance, a_lock_that_is_no_file_is_not_ours)
{
    cr_assert(eq(int, mkfifo(lock_path, 0600), 0));
    cr_expect(eq(int, open_at(NOW_S), -EPERM));
    cr_expect(eq(int, problem.exit_code, EX_NOPERM));
    cr_expect(ne(ptr, strstr(problem.text, "is no regular file of ours"), NULL), "%s",
              problem.text);
    cr_expect(eq(int, access(path, F_OK), -1), "and nobody listens");
}

Test(instance, a_lock_that_is_a_link_is_not_followed)
{
    cr_assert(eq(int, symlink("/etc/passwd", lock_path), 0));
    cr_expect(eq(int, open_at(NOW_S), -ELOOP));
    cr_expect(eq(int, access(path, F_OK), -1));
}

Test(instance, a_lock_of_another_user_is_not_ours)
{
    if (geteuid() != 0)
        return; /* nobody else can give a file away */
    write_lock("");
    cr_assert(eq(int, chown(lock_path, 12345, (gid_t)-1), 0));
    cr_expect(eq(int, open_at(NOW_S), -EPERM));
    cr_expect(eq(int, access(path, F_OK), -1));
}
