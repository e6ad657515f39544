/* SPDX-License-Identifier: MIT */
/* lockkeeper why NAME: who holds it, since when, what that process waits for itself, and the queue.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lockkeeper/lockkeeper.h>

#include "client/cli/cli.h"
#include "client/cli/json.h"
#include "client/cli/listing.h"
#include "client/cli/text.h"
#include "common/cleanup.h"
#include "common/clock.h"

static const char help[] =
    "Usage: lockkeeper why [options] NAME\n"
    "\n"
    "Says who holds a lock and since when, with the command line, what the holder itself waits "
    "for,\n"
    "and who queues. NAME is a segment (all its locks), SEGMENT#3 or SEGMENT#orders.\n"
    "\n"
    "      --json         the same, schema lockkeeper.why/1\n"
    "      --socket PATH  the broker to ask; see 'lockkeeper where'\n"
    "  -h, --help         show this help\n"
    "  -V, --version      show the version\n"
    "\n"
    "EXIT STATUS\n"
    "  0 answered, also that nobody holds it; 64 wrong usage; 66 no broker; 71 system error;\n"
    "  76 protocol; 77 not permitted\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper why backup\n"
    "  lockkeeper why --json backup | jq '.locks[].holders[].pid'\n";

static const struct option long_options[] = {
    LKI_OPTIONS_READ,
    {NULL, 0, NULL, 0},
};

/* What was asked for, and all that the broker told. */
struct question {
    const char *name;      /* as given */
    const char *segment;   /* its part before '#' */
    const char *lock_name; /* its part after '#'; NULL: by number, or all */
    int64_t index;
    bool all_locks;             /* no '#' at all */
    bool no_segment;            /* there is none of this name */
    struct lki_listing asked;   /* of this segment */
    struct lki_listing visible; /* of all segments: what holders wait for */
};

static bool is_asked_for(const struct question *question, const struct lki_listing_lock *lock)
{
    if (question->all_locks)
        return true;
    if (question->lock_name)
        return strcmp(lock->first->lock_name, question->lock_name) == 0;
    return lock->first->is.lock == question->index;
}

static bool next_lock(const struct question *question, size_t *position,
                      struct lki_listing_lock *out_lock)
{
    do {
        *out_lock = lki_listing_next_lock(&question->asked, position);
        if (out_lock->count == 0)
            return false;
    } while (!is_asked_for(question, out_lock));
    return true;
}

/* The next wait of a process, from *position on; NULL: no more. */
static const struct lki_listing_entry *next_wait_of(const struct question *question, int32_t pid,
                                                    size_t *position)
{
    while (*position < question->visible.count) {
        const struct lki_listing_entry *entry = &question->visible.entries[(*position)++];
        if (entry->is.pid == pid &&
            (entry->is.state == LKI_ENTRY_WAITING || entry->is.state == LKI_ENTRY_DRAINING))
            return entry;
    }
    return NULL;
}

static void print_since(uint64_t for_ns)
{
    if (for_ns == 0)
        return;
    time_t since = time(NULL) - (time_t)(for_ns / LKI_NS_PER_S);
    struct tm local;
    char clock[32];
    localtime_r(&since, &local);
    if (for_ns < 86400 * LKI_NS_PER_S)
        strftime(clock, sizeof(clock), "%H:%M:%S", &local);
    else
        strftime(clock, sizeof(clock), "%Y-%m-%d %H:%M:%S", &local);
    printf(", since %s (%s)", clock, lki_text_duration(for_ns).text);
}

static void print_who(const struct lki_listing_entry *entry)
{
    printf("%s[%" PRId32 "], user %s", *entry->command ? entry->command : "?", entry->is.pid,
           lki_text_user(entry->is.uid).text);
}

static void print_holder(const struct question *question, const struct lki_listing_entry *entry)
{
    switch (entry->is.state) {
    case LKI_ENTRY_DAMAGED:
        printf("%s is held by nobody, but its last owner", entry->label);
        if (entry->is.pid != 0) {
            printf(", ");
            print_who(entry);
            printf(",");
        }
        printf(" died inside: the next holder is told, and repairs\n");
        return;
    case LKI_ENTRY_DRAINING:
        printf("%s is being taken EXCLUSIVE by ", entry->label);
        break;
    default:
        printf("%s is held %s by ", entry->label,
               entry->is.mode == LK_EXCLUSIVE ? "EXCLUSIVE"
               : entry->is.mode == LK_UPDATE  ? "for UPDATE, beside readers,"
                                              : "SHARED");
        break;
    }
    print_who(entry);
    print_since(entry->is.since_ns);
    printf(", token %" PRIu64 "\n", entry->is.token);
    LKI_CLEANUP(lki_free_p) char *line = lki_text_command_line(entry->is.pid);
    printf("  command line: %s\n", line ? line : "(not shown by /proc)");
    if (entry->is.flags & 1)
        printf("  held until that process ends\n");
    if (entry->is.state == LKI_ENTRY_DRAINING) {
        printf("  it waits for the readers that are still inside\n");
        return;
    }
    size_t position = 0, found = 0;
    const struct lki_listing_entry *wait;
    while ((wait = next_wait_of(question, entry->is.pid, &position))) {
        printf("  itself waits for: %s (%s)\n", wait->label, lki_text_mode(wait->is.mode));
        found++;
    }
    if (!found)
        printf("  itself waits for: nothing\n");
}

static void print_lock(const struct question *question, const struct lki_listing_lock *lock)
{
    for (size_t i = 0; i < lock->holders; i++)
        print_holder(question, &lock->first[i]);
    if (lock->holders == 0)
        printf("%s is free at this moment; somebody of the queue is about to take it\n",
               lock->first->label);
    if (lock->holders == lock->count) {
        printf("  queue: nobody\n");
        return;
    }
    for (size_t i = lock->holders; i < lock->count; i++) {
        const struct lki_listing_entry *entry = &lock->first[i];
        printf("  %-6s %zu. %s[%" PRId32 "] (%s) %s", i == lock->holders ? "queue:" : "",
               i - lock->holders + 1, *entry->command ? entry->command : "?", entry->is.pid,
               lki_text_user(entry->is.uid).text, lki_text_mode(entry->is.mode));
        if (entry->is.since_ns)
            printf(", %s", lki_text_duration(entry->is.since_ns).text);
        putchar('\n');
    }
}

static int print_text(const struct question *question)
{
    size_t position = 0, printed = 0;
    struct lki_listing_lock lock;
    for (; next_lock(question, &position, &lock); printed++)
        print_lock(question, &lock);
    if (!printed)
        printf("%s is held by nobody, and nobody waits for it%s\n", question->name,
               question->no_segment ? " (there is no segment of this name)" : "");
    return lki_cli_finish(LKI_EXIT_OK);
}

static json_t *waits_of(const struct question *question, int32_t pid)
{
    json_t *waits = json_array();
    size_t position = 0;
    const struct lki_listing_entry *wait;
    while ((wait = next_wait_of(question, pid, &position)))
        json_array_append_new(waits, json_pack("{s:s, s:s}", "name", wait->label, "mode",
                                               lki_text_mode(wait->is.mode)));
    return waits;
}

static int print_json(const struct question *question)
{
    json_t *locks = json_array();
    size_t position = 0;
    struct lki_listing_lock lock;
    while (next_lock(question, &position, &lock)) {
        json_t *object = lki_json_lock(&lock);
        size_t i;
        json_t *holder;
        json_array_foreach(json_object_get(object, "holders"), i, holder)
        {
            json_t *pid = json_object_get(holder, "pid");
            json_object_set_new(holder, "waits_for",
                                waits_of(question, (int32_t)json_integer_value(pid)));
            LKI_CLEANUP(lki_free_p)
            char *line = lki_text_command_line((pid_t)json_integer_value(pid));
            json_t *text = line ? json_string(line) : NULL; /* NULL: not UTF-8, too */
            json_object_set_new(holder, "command_line", text ? text : json_null());
        }
        json_array_append_new(locks, object);
    }
    return lki_cli_print_json(json_pack("{s:s, s:s, s:b, s:o}", "schema", "lockkeeper.why/1",
                                        "name", question->name, "segment_exists",
                                        !question->no_segment, "locks", locks));
}

static int ask(struct lk_session *session, struct question *question)
{
    int r = lki_listing_read(session, LKI_LIST_LOCKS, question->segment, &question->asked);
    if (r == -ENOENT) {
        question->no_segment = true;
        return 0;
    }
    if (r == 0)
        r = lki_listing_read(session, LKI_LIST_LOCKS, NULL, &question->visible);
    return r;
}

static int answer(const struct lki_cli *cli, struct question *question)
{
    LKI_CLEANUP(lki_cli_close_session) struct lk_session *session = NULL;
    int code = lki_cli_open(cli, false, &session);
    if (code > 0)
        return code;
    int r = ask(session, question);
    if (r < 0)
        code = lki_cli_refusal(r);
    else
        code = cli->json ? print_json(question) : print_text(question);
    lki_listing_deinit(&question->asked);
    lki_listing_deinit(&question->visible);
    return code;
}

int lki_cli_why(struct lki_cli *cli, int argc, char **argv)
{
    int option;
    while ((option = getopt_long(argc, argv, "qhV", long_options, NULL)) != -1) {
        int code = lki_cli_common_option(cli, option, help);
        if (code >= 0)
            return code;
    }
    if (argc - optind != 1)
        return lki_cli_usage(cli, "exactly one NAME, please");
    int code = lki_cli_check_output_options(cli, true);
    if (code > 0)
        return code;
    LKI_CLEANUP(lki_free_p) char *segment = strdup(argv[optind]);
    if (!segment)
        return LKI_EXIT_OS;
    struct question question = {
        .name = argv[optind], .segment = segment, .all_locks = !strchr(segment, '#')};
    bool by_index = lki_text_split_label(segment, &question.lock_name, &question.index);
    if (by_index)
        question.lock_name = NULL;
    if (question.index < 0 || (question.lock_name && !*question.lock_name))
        return lki_cli_usage(cli, "'%s': no lock has such a name", question.name);
    return answer(cli, &question);
}
