/* SPDX-License-Identifier: MIT */
/* What people and managers configure: the daemon's command line, the variables of a service manager,
 * and the names, sizes, counts and durations that the CLI takes. Zero bytes separate the words of an
 * input; its first byte chooses who reads them. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "broker/keeper/service_manager.h"
#include "broker/options.h"
#include "client/cli/text.h"
#include "client/names.h"
#include "fuzz.h"
#include "proto/name.h"

#define WORDS_MAX 12

static char text[4096];
static char *words[WORDS_MAX + 1];
static int word_count;

static void split(struct fuzz_input *input)
{
    size_t bytes = input->left < sizeof(text) - 1 ? input->left : sizeof(text) - 1;
    memcpy(text, input->next, bytes);
    text[bytes] = 0;
    word_count = 0;
    for (char *next = text; next <= text + bytes && word_count < WORDS_MAX;
         next += strlen(next) + 1)
        words[word_count++] = next;
    words[word_count] = NULL;
}

/* --- lockkeeperd --- */

static void check_options(const struct lkd_options *options)
{
    FUZZ_CHECK((options->mode & ~0777u) == 0 && options->ready_fd >= -1 &&
               options->resume_fd >= -1);
    FUZZ_CHECK(options->log_level <= LKD_LOG_DEBUG);
    for (int i = 0; i < LKD_RESOURCES; i++) {
        enum lkd_resource resource = (enum lkd_resource)i;
        uint64_t max = lkd_limits_max(&options->limits, resource);
        FUZZ_CHECK(max > 0 && max <= lkd_resource_ceiling(resource));
    }
    FUZZ_CHECK(options->grace_ms <= 3600000 && options->debugger_grace_ms <= 3600000);
}

static void play_options(void)
{
    static char name[] = "lockkeeperd";
    char *argv[WORDS_MAX + 2] = {name};
    static FILE *nowhere;
    if (!nowhere)
        nowhere = fopen("/dev/null", "we");
    FUZZ_CHECK(nowhere != NULL);
    memcpy(argv + 1, words, sizeof(words));
    struct lkd_options options;
    int exit_code = -1;
    FILE *out = stdout, *err = stderr; /* thousands of usage texts help nobody */
    stdout = stderr = nowhere;
    optind = 0;
    bool goes_on = lkd_options_parse(word_count + 1, argv, &options, &exit_code);
    stdout = out;
    stderr = err;
    if (goes_on)
        check_options(&options);
    else
        FUZZ_CHECK(exit_code == 0 || exit_code == EX_USAGE);
}

/* --- The service manager --- */

static void count_problem(const char *problem, void *user)
{
    FUZZ_CHECK(strlen(problem) < 256);
    ++*(unsigned *)user;
}

/* "@" at the beginning of a pid stands for ours. */
static void set(const char *variable, const char *value)
{
    char pid[32];
    (void)snprintf(pid, sizeof(pid), "%ld", (long)getpid());
    bool own = strcmp(value, "@") == 0 && strstr(variable, "_PID") != NULL;
    if (value[0] != '-') /* not set at all */
        FUZZ_CHECK(setenv(variable, own ? pid : value, 1) == 0);
}

static void play_manager(void)
{
    static const char *const variables[] = {"LISTEN_PID",    "LISTEN_FDS",    "LISTEN_FDNAMES",
                                            "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"};
    struct lkd_service service;
    unsigned problems = 0;
    int first = open("/dev/null", O_RDONLY | O_CLOEXEC); /* where inherited descriptors begin */
    FUZZ_CHECK(first >= 3);
    if (first == 3) { /* some to inherit */
        FUZZ_CHECK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) == 4);
        const struct sockaddr_un address = {.sun_family = AF_UNIX}; /* any that is free */
        FUZZ_CHECK(bind(4, (const struct sockaddr *)&address, sizeof(sa_family_t)) == 0);
        FUZZ_CHECK(listen(4, 1) == 0);
    }
    for (int i = 0; i < word_count && i < 6; i++)
        /* Tens of thousands take long, and show no more. Somebody else's are not to be closed. */
        if (i != 1 || (strlen(words[i]) < 4 && first == 3))
            set(variables[i], words[i]);
    lkd_service_open(&service, count_problem, &problems);
    for (int i = 0; i < 6; i++)
        FUZZ_CHECK(getenv(variables[i]) == NULL);
    FUZZ_CHECK(service.inherited_count <= LKD_SERVICE_FDS_MAX);
    for (size_t i = 0; i < service.inherited_count; i++)
        FUZZ_CHECK(service.inherited[i].name && strlen(service.inherited[i].name) <= 255);
    FUZZ_CHECK((service.watchdog_ns == 0) == (lkd_service_ping_interval_ms(&service) == 0));
    (void)lkd_service_find_listener(&service, true);
    (void)lkd_service_find_listener(&service, false);
    if (word_count > 6) {
        (void)lkd_service_status(&service, "%s", words[6]);
        (void)lkd_service_store(&service, words[6], 1);
        (void)lkd_service_forget(&service, words[6]);
    }
    lkd_service_close(&service);
    if (first == 3) { /* those that were not adopted */
        (void)close(3);
        (void)close(4);
    } else {
        (void)close(first);
    }
}

/* --- Names --- */

static void play_name(void)
{
    const char *reason = NULL;
    char full[LKI_FULL_NAME_BYTES_MAX], again[LKI_NAME_TEXT_BYTES_MAX + 1];
    struct lki_name name, second;
    struct lki_bytes bytes = {(const uint8_t *)words[0], strlen(words[0])};
    if (lki_name_parse(bytes, &name, &reason) == 0) {
        /* One name has one spelling. */
        FUZZ_CHECK(lki_name_format(&name, again) == bytes.length_bytes);
        FUZZ_CHECK(memcmp(again, words[0], bytes.length_bytes) == 0);
        FUZZ_CHECK(lki_name_resolve(words[0], full) == 0,
                   "the broker takes it, the client does not");
    } else {
        FUZZ_CHECK(reason && reason[0]);
    }
    int r = lki_name_resolve(words[0], full);
    FUZZ_CHECK(r == 0 || r == -EINVAL || r == -ENOENT, "%d", r);
    if (r == 0) {
        bytes = (struct lki_bytes){(const uint8_t *)full, strlen(full)};
        FUZZ_CHECK(lki_name_parse(bytes, &second, &reason) == 0, "what the client sends: %s",
                   reason);
    }
}

static void play_label(void)
{
    const char *lock_name, *reason = NULL;
    int64_t index;
    char label[sizeof(text)];
    memcpy(label, words[0], strlen(words[0]) + 1);
    bool by_index = lki_text_split_label(label, &lock_name, &index);
    FUZZ_CHECK(strchr(label, '#') == NULL && index >= -1 && index <= UINT32_MAX);
    if (!by_index) {
        struct lki_bytes bytes = {(const uint8_t *)lock_name, strlen(lock_name)};
        FUZZ_CHECK(lki_lock_name_check(bytes, &reason) == 0 || (reason && reason[0]));
        return;
    }
    if (lock_name) { /* a number is no name, so that nothing is both */
        struct lki_bytes bytes = {(const uint8_t *)lock_name, strlen(lock_name)};
        FUZZ_CHECK(lki_lock_name_check(bytes, &reason) < 0);
    }
}

/* --- Numbers --- */

static void play_numbers(void)
{
    uint64_t number = 0, again = 0;
    int r = lki_text_parse_size(words[0], &number);
    FUZZ_CHECK(r == 0 || r == -EINVAL || r == -ERANGE);
    if (r == 0) { /* shown shorter, it is never more */
        struct lki_text shown = lki_text_size(number);
        FUZZ_CHECK(strlen(shown.text) <= 5, "%s", shown.text);
        if (!strchr(shown.text, '.') && !strpbrk(shown.text, "PE"))
            FUZZ_CHECK(lki_text_parse_size(shown.text, &again) == 0 && again <= number);
    }
    r = lki_text_parse_count(words[0], 1000, &number);
    FUZZ_CHECK((r == 0 && number <= 1000) || r == -EINVAL || r == -ERANGE);
    r = lki_text_parse_seconds(words[0], &number);
    FUZZ_CHECK(r == 0 || r == -EINVAL || r == -ERANGE);
    if (r == 0)
        FUZZ_CHECK(strlen(lki_text_duration(number).text) < 16);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static void (*const plays[])(void) = {play_options, play_manager, play_name, play_label,
                                          play_numbers};
    struct fuzz_input input = {data, size_bytes};
    uint32_t which = fuzz_below(&input, 5);
    split(&input);
    plays[which]();
    return 0;
}
