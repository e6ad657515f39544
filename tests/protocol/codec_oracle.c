/* SPDX-License-Identifier: MIT */
/* codec_oracle: what the C codec makes of records, for a test that asks another parser as well.
 *
 * stdin has any number of: 'q' (request) or 'r' (reply), the length as four bytes in native order,
 * the record. Each is answered by a line: "refuse REASON", or "accept ", the type, the id and every
 * field of the message as NAME=VALUE in the order of the schema, then " | " and in hexadecimal the
 * record that the codec writes for it ("error" and the code if it writes none). Bytes are in
 * hexadecimal; an entry of a page is in brackets. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codec.h"

enum { RECORD_BYTES_MAX = 1 << 20 }; /* more than either direction takes */

static struct lki_arena arena;
static uint8_t record[RECORD_BYTES_MAX];

static void number(const char *name, uint64_t value)
{
    printf(" %s=%" PRIu64, name, value);
}

static void signed_number(const char *name, int32_t value)
{
    printf(" %s=%" PRId32, name, value);
}

static void hexadecimal(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf("%02x", bytes[i]);
}

static void bytes(const char *name, const struct lki_bytes *value)
{
    printf(" %s=", name);
    hexadecimal(value->data, value->length_bytes);
}

static void open_fields(const struct lki_open *open)
{
    bytes("name", &open->name);
    number("flags", open->flags);
    number("size_bytes", open->size_bytes);
    number("size_max_bytes", open->size_max_bytes);
    number("locks", open->locks);
    number("attachments_max", open->attachments_max);
    number("mode", open->mode);
    number("patience_ns", open->patience_ns);
    number("offered", open->offered);
    number("lease_ns", open->lease_ns);
    number("on_expiry", open->on_expiry);
}

static void acquire_fields(const struct lki_acquire *acquire)
{
    number("segment", acquire->segment);
    number("lock", acquire->lock);
    number("mode", acquire->mode);
    number("to_exit", acquire->to_exit);
    number("asynchronous", acquire->asynchronous);
    number("deadline_ns", acquire->deadline_ns);
}

static void hold_fields(const struct lki_hold_ref *hold)
{
    number("segment", hold->segment);
    number("lock", hold->lock);
    number("attachment", hold->attachment);
    number("offset", hold->offset);
    number("length_bytes", hold->length_bytes);
    number("one_way", hold->one_way);
    number("to_exit", hold->to_exit);
}

static void opened_fields(const struct lki_opened *opened)
{
    number("created", opened->created);
    number("brokered", opened->brokered);
    number("read_only", opened->read_only);
    number("file", opened->file);
    number("segment", opened->segment);
    number("attachment", opened->attachment);
    number("area_bytes", opened->area_bytes);
    number("data_bytes_max", opened->data_bytes_max);
    number("flags", opened->flags);
    number("protocol_minor", opened->protocol_minor);
}

static void holder_fields(const struct lki_holder_is *holder)
{
    signed_number("pid", holder->pid);
    number("uid", holder->uid);
    number("mode", holder->mode);
    number("holders", holder->holders);
    number("waiters", holder->waiters);
    number("token", holder->token);
    number("held_ns", holder->held_ns);
    bytes("command", &holder->command);
}

static void entry_fields(const struct lki_list_entry *entry)
{
    bytes("name", &entry->name);
    bytes("lock_name", &entry->lock_name);
    bytes("command", &entry->command);
    number("lock", entry->lock);
    number("state", entry->state);
    number("mode", entry->mode);
    signed_number("pid", entry->pid);
    number("uid", entry->uid);
    number("waiters", entry->waiters);
    number("attachments", entry->attachments);
    number("locks", entry->locks);
    number("flags", entry->flags);
    number("token", entry->token);
    number("since_ns", entry->since_ns);
    number("size_bytes", entry->size_bytes);
    number("size_max_bytes", entry->size_max_bytes);
    number("file", entry->file);
    number("session", entry->session);
    number("segment", entry->segment);
}

static void page_fields(const struct lki_list_page *page)
{
    number("next_cursor", page->next_cursor);
    for (size_t i = 0; i < page->count; i++) {
        printf(" [");
        entry_fields(&page->entries[i]);
        printf(" ]");
    }
}

static void event_fields(const struct lki_event *event)
{
    number("kind", event->kind);
    number("when_ns", event->when_ns);
    signed_number("pid", event->pid);
    number("uid", event->uid);
    bytes("command", &event->command);
    number("session", event->session);
    bytes("name", &event->name);
    bytes("lock_name", &event->lock_name);
    number("segment", event->segment);
    number("lock", event->lock);
    number("token", event->token);
    number("cause", event->cause);
    number("size_bytes", event->size_bytes);
    bytes("text", &event->text);
    number("lost", event->lost);
}

static void request_fields(const struct lki_message *message)
{
    switch ((int)message->type) {
    case LKI_REQUEST_HELLO:
        number("protocol_major", message->as.hello.protocol_major);
        number("protocol_minor", message->as.hello.protocol_minor);
        number("layout_major", message->as.hello.layout_major);
        break;
    case LKI_REQUEST_OPEN:
        open_fields(&message->as.open);
        break;
    case LKI_REQUEST_PUBLISH:
    case LKI_REQUEST_DETACH:
    case LKI_REQUEST_NUDGE:
        number("segment", message->as.segment_ref.segment);
        break;
    case LKI_REQUEST_REMOVE:
        bytes("name", &message->as.remove.name);
        break;
    case LKI_REQUEST_GROW:
        number("segment", message->as.grow.segment);
        number("size_bytes", message->as.grow.size_bytes);
        break;
    case LKI_REQUEST_LOCK_NAMED:
        number("segment", message->as.lock_named.segment);
        bytes("name", &message->as.lock_named.name);
        break;
    case LKI_REQUEST_ACQUIRE:
        acquire_fields(&message->as.acquire);
        break;
    case LKI_REQUEST_CANCEL:
        number("request", message->as.cancel.request);
        break;
    case LKI_REQUEST_RELEASE:
    case LKI_REQUEST_MARK_CONSISTENT:
    case LKI_REQUEST_DECLARE:
        hold_fields(&message->as.hold_ref);
        break;
    case LKI_REQUEST_CHANGE_MODE:
        number("segment", message->as.change_mode.segment);
        number("lock", message->as.change_mode.lock);
        number("attachment", message->as.change_mode.attachment);
        number("mode", message->as.change_mode.mode);
        number("deadline_ns", message->as.change_mode.deadline_ns);
        break;
    case LKI_REQUEST_ASK:
        number("segment", message->as.ask.segment);
        number("lock", message->as.ask.lock);
        number("owner", message->as.ask.owner);
        number("sequence", message->as.ask.sequence);
        break;
    case LKI_REQUEST_HOLDER:
    case LKI_REQUEST_DEADLOCK_CHECK:
        number("segment", message->as.lock_ref.segment);
        number("lock", message->as.lock_ref.lock);
        break;
    case LKI_REQUEST_LIST:
        number("what", message->as.list.what);
        number("cursor", message->as.list.cursor);
        bytes("name", &message->as.list.name);
        break;
    case LKI_REQUEST_BARRIER:
    case LKI_REQUEST_GOODBYE:
        break;
    case LKI_REQUEST_RESUME:
        number("number", message->as.resume.number);
        break;
    case LKI_REQUEST_MONITOR:
        bytes("name", &message->as.monitor.name);
        break;
    case LKI_REQUEST_FORCE_RELEASE:
        bytes("name", &message->as.force_release.name);
        number("lock", message->as.force_release.lock);
        bytes("lock_name", &message->as.force_release.lock_name);
        bytes("reason", &message->as.force_release.reason);
        break;
    default:
        printf(" not a request");
    }
}

static void reply_fields(const struct lki_message *message)
{
    switch ((int)message->type) {
    case LKI_REPLY_RESULT:
        number("status", message->as.result.status);
        number("value", message->as.result.value);
        bytes("detail", &message->as.result.detail);
        break;
    case LKI_REPLY_OPENED:
        opened_fields(&message->as.opened);
        break;
    case LKI_REPLY_GRANTED:
        number("status", message->as.granted.status);
        number("attachment", message->as.granted.attachment);
        number("token", message->as.granted.token);
        number("one_way", message->as.granted.one_way);
        break;
    case LKI_REPLY_HOLDER_IS:
        holder_fields(&message->as.holder_is);
        break;
    case LKI_REPLY_LIST_PAGE:
        page_fields(&message->as.list_page);
        break;
    case LKI_REPLY_RESUMED:
        number("number", message->as.resumed.number);
        break;
    case LKI_REPLY_EVENT:
        event_fields(&message->as.event);
        break;
    default:
        printf(" not a reply");
    }
}

static void answer(enum lki_direction direction, const uint8_t *input, size_t size_bytes)
{
    static uint8_t written[LKI_REPLY_BYTES_MAX];
    struct lki_message message;
    const char *reason = "no reason";
    size_t written_bytes;
    int r = lki_message_decode(&arena, input, size_bytes, direction, &message, &reason);
    if (r < 0) {
        printf("refuse %d %s\n", r, reason);
        return;
    }
    printf("accept %d id=%" PRIu64, message.type, message.id);
    if (direction == LKI_DIRECTION_REQUEST)
        request_fields(&message);
    else
        reply_fields(&message);
    printf(" | ");
    r = lki_message_encode(&message, written, sizeof(written), &written_bytes);
    if (r < 0)
        printf("error %d", r);
    else
        hexadecimal(written, written_bytes);
    putchar('\n');
}

int main(void)
{
    for (int kind; (kind = getchar()) != EOF;) {
        uint32_t size_bytes;
        if (fread(&size_bytes, sizeof(size_bytes), 1, stdin) != 1 || size_bytes > sizeof(record) ||
            fread(record, 1, size_bytes, stdin) != size_bytes)
            return 2;
        /* Of exactly this size, so that the sanitizer sees a read beyond the end. */
        uint8_t *exact = malloc(size_bytes ? size_bytes : 1);
        if (!exact)
            return 2;
        memcpy(exact, record, size_bytes);
        answer(kind == 'q' ? LKI_DIRECTION_REQUEST : LKI_DIRECTION_REPLY, exact, size_bytes);
        free(exact);
    }
    return 0;
}
