/* SPDX-License-Identifier: MIT */
#include "proto/wire.h"

#include "proto/wire_fields.h"

#define TAKE_NUMBER(field) to->field = from->field;
#define TAKE_ENUM(field) to->field = (uint32_t)from->field;
#define TAKE_BYTES(field) to->field = (struct lki_bytes){from->field.data, from->field.len};

/* What is zero or empty is left out: absent means the same. */
#define PUT_NUMBER(field)                                                                          \
    to->field = from->field;                                                                       \
    to->has_##field = from->field != 0;
#define PUT_ENUM(field)                                                                            \
    to->field = (int)from->field;                                                                  \
    to->has_##field = from->field != 0;
#define PUT_BYTES(field)                                                                           \
    to->field.data = (uint8_t *)from->field.data;                                                  \
    to->field.len = from->field.length_bytes;                                                      \
    to->has_##field = from->field.length_bytes != 0;

/* Defines take_NOUN() and put_NOUN(). */
#define DEFINE_CONVERSION(noun, wire_type, wire_init, FIELDS)                                      \
    static void take_##noun(const wire_type *from, struct lki_##noun *to)                          \
    {                                                                                              \
        FIELDS(TAKE_NUMBER, TAKE_ENUM, TAKE_BYTES)                                                 \
    }                                                                                              \
    static wire_type *put_##noun(const struct lki_##noun *from, wire_type *to)                     \
    {                                                                                              \
        wire_init(to);                                                                             \
        FIELDS(PUT_NUMBER, PUT_ENUM, PUT_BYTES)                                                    \
        return to;                                                                                 \
    }

DEFINE_CONVERSION(hello, Lockkeeper__Wire__Hello, lockkeeper__wire__hello__init, LKI_HELLO_FIELDS)
DEFINE_CONVERSION(open, Lockkeeper__Wire__Open, lockkeeper__wire__open__init, LKI_OPEN_FIELDS)
DEFINE_CONVERSION(segment_ref, Lockkeeper__Wire__SegmentRef, lockkeeper__wire__segment_ref__init,
                  LKI_SEGMENT_REF_FIELDS)
DEFINE_CONVERSION(remove, Lockkeeper__Wire__Remove, lockkeeper__wire__remove__init,
                  LKI_REMOVE_FIELDS)
DEFINE_CONVERSION(grow, Lockkeeper__Wire__Grow, lockkeeper__wire__grow__init, LKI_GROW_FIELDS)
DEFINE_CONVERSION(lock_named, Lockkeeper__Wire__LockNamed, lockkeeper__wire__lock_named__init,
                  LKI_LOCK_NAMED_FIELDS)
DEFINE_CONVERSION(acquire, Lockkeeper__Wire__Acquire, lockkeeper__wire__acquire__init,
                  LKI_ACQUIRE_FIELDS)
DEFINE_CONVERSION(cancel, Lockkeeper__Wire__Cancel, lockkeeper__wire__cancel__init,
                  LKI_CANCEL_FIELDS)
DEFINE_CONVERSION(hold_ref, Lockkeeper__Wire__HoldRef, lockkeeper__wire__hold_ref__init,
                  LKI_HOLD_REF_FIELDS)
DEFINE_CONVERSION(change_mode, Lockkeeper__Wire__ChangeMode, lockkeeper__wire__change_mode__init,
                  LKI_CHANGE_MODE_FIELDS)
DEFINE_CONVERSION(ask, Lockkeeper__Wire__Ask, lockkeeper__wire__ask__init, LKI_ASK_FIELDS)
DEFINE_CONVERSION(lock_ref, Lockkeeper__Wire__LockRef, lockkeeper__wire__lock_ref__init,
                  LKI_LOCK_REF_FIELDS)
DEFINE_CONVERSION(list_request, Lockkeeper__Wire__ListRequest, lockkeeper__wire__list_request__init,
                  LKI_LIST_REQUEST_FIELDS)
DEFINE_CONVERSION(force_release, Lockkeeper__Wire__ForceRelease,
                  lockkeeper__wire__force_release__init, LKI_FORCE_RELEASE_FIELDS)
DEFINE_CONVERSION(result, Lockkeeper__Wire__Result, lockkeeper__wire__result__init,
                  LKI_RESULT_FIELDS)
DEFINE_CONVERSION(opened, Lockkeeper__Wire__Opened, lockkeeper__wire__opened__init,
                  LKI_OPENED_FIELDS)
DEFINE_CONVERSION(granted, Lockkeeper__Wire__Granted, lockkeeper__wire__granted__init,
                  LKI_GRANTED_FIELDS)
DEFINE_CONVERSION(holder_is, Lockkeeper__Wire__HolderIs, lockkeeper__wire__holder_is__init,
                  LKI_HOLDER_IS_FIELDS)
DEFINE_CONVERSION(list_entry, Lockkeeper__Wire__ListEntry, lockkeeper__wire__list_entry__init,
                  LKI_LIST_ENTRY_FIELDS)
DEFINE_CONVERSION(resume, Lockkeeper__Wire__Resume, lockkeeper__wire__resume__init,
                  LKI_RESUME_FIELDS)
DEFINE_CONVERSION(resumed, Lockkeeper__Wire__Resumed, lockkeeper__wire__resumed__init,
                  LKI_RESUMED_FIELDS)
DEFINE_CONVERSION(monitor_request, Lockkeeper__Wire__MonitorRequest,
                  lockkeeper__wire__monitor_request__init, LKI_MONITOR_REQUEST_FIELDS)
DEFINE_CONVERSION(event, Lockkeeper__Wire__Event, lockkeeper__wire__event__init, LKI_EVENT_FIELDS)

static void take_list_page(const Lockkeeper__Wire__ListPage *from, struct lki_list_entry *entries,
                           struct lki_list_page *to)
{
    for (size_t i = 0; i < from->n_entries; i++)
        take_list_entry(from->entries[i], &entries[i]);
    to->next_cursor = from->next_cursor;
    to->count = from->n_entries;
    to->entries = entries;
}

void lki_wire_take(const Lockkeeper__Wire__Envelope *envelope, enum lki_message_type type,
                   struct lki_list_entry *entries, struct lki_message *out)
{
    out->type = type;
    out->id = envelope->id;
    switch (type) {
    case LKI_REQUEST_HELLO:
        take_hello(envelope->hello, &out->as.hello);
        break;
    case LKI_REQUEST_OPEN:
        take_open(envelope->open, &out->as.open);
        break;
    case LKI_REQUEST_PUBLISH:
        take_segment_ref(envelope->publish, &out->as.segment_ref);
        break;
    case LKI_REQUEST_DETACH:
        take_segment_ref(envelope->detach, &out->as.segment_ref);
        break;
    case LKI_REQUEST_REMOVE:
        take_remove(envelope->remove, &out->as.remove);
        break;
    case LKI_REQUEST_GROW:
        take_grow(envelope->grow, &out->as.grow);
        break;
    case LKI_REQUEST_LOCK_NAMED:
        take_lock_named(envelope->lock_named, &out->as.lock_named);
        break;
    case LKI_REQUEST_ACQUIRE:
        take_acquire(envelope->acquire, &out->as.acquire);
        break;
    case LKI_REQUEST_CANCEL:
        take_cancel(envelope->cancel, &out->as.cancel);
        break;
    case LKI_REQUEST_RELEASE:
        take_hold_ref(envelope->release, &out->as.hold_ref);
        break;
    case LKI_REQUEST_MARK_CONSISTENT:
        take_hold_ref(envelope->mark_consistent, &out->as.hold_ref);
        break;
    case LKI_REQUEST_DECLARE:
        take_hold_ref(envelope->declare, &out->as.hold_ref);
        break;
    case LKI_REQUEST_CHANGE_MODE:
        take_change_mode(envelope->change_mode, &out->as.change_mode);
        break;
    case LKI_REQUEST_ASK:
        take_ask(envelope->ask, &out->as.ask);
        break;
    case LKI_REQUEST_NUDGE:
        take_segment_ref(envelope->nudge, &out->as.segment_ref);
        break;
    case LKI_REQUEST_HOLDER:
        take_lock_ref(envelope->holder, &out->as.lock_ref);
        break;
    case LKI_REQUEST_DEADLOCK_CHECK:
        take_lock_ref(envelope->deadlock_check, &out->as.lock_ref);
        break;
    case LKI_REQUEST_LIST:
        take_list_request(envelope->list, &out->as.list);
        break;
    case LKI_REQUEST_FORCE_RELEASE:
        take_force_release(envelope->force_release, &out->as.force_release);
        break;
    case LKI_REPLY_RESULT:
        take_result(envelope->result, &out->as.result);
        break;
    case LKI_REPLY_OPENED:
        take_opened(envelope->opened, &out->as.opened);
        break;
    case LKI_REPLY_GRANTED:
        take_granted(envelope->granted, &out->as.granted);
        break;
    case LKI_REPLY_HOLDER_IS:
        take_holder_is(envelope->holder_is, &out->as.holder_is);
        break;
    case LKI_REPLY_LIST_PAGE:
        take_list_page(envelope->list_page, entries, &out->as.list_page);
        break;
    case LKI_REQUEST_MONITOR:
        take_monitor_request(envelope->monitor, &out->as.monitor);
        break;
    case LKI_REPLY_EVENT:
        take_event(envelope->event, &out->as.event);
        break;
    case LKI_REQUEST_RESUME:
        take_resume(envelope->resume, &out->as.resume);
        break;
    case LKI_REPLY_RESUMED:
        take_resumed(envelope->resumed, &out->as.resumed);
        break;
    case LKI_REQUEST_BARRIER:
    case LKI_REQUEST_GOODBYE:
    case LKI_MESSAGE_NONE:
        break; /* no fields */
    }
}

bool lki_wire_put(const struct lki_message *message, struct lki_wire_parts *parts)
{
    Lockkeeper__Wire__Envelope *envelope = &parts->envelope;

    lockkeeper__wire__envelope__init(envelope);
    envelope->id = message->id;
    envelope->has_id = message->id != 0;
    switch (message->type) {
    case LKI_REQUEST_HELLO:
        envelope->hello = put_hello(&message->as.hello, &parts->message.hello);
        return true;
    case LKI_REQUEST_OPEN:
        envelope->open = put_open(&message->as.open, &parts->message.open);
        return true;
    case LKI_REQUEST_PUBLISH:
        envelope->publish = put_segment_ref(&message->as.segment_ref, &parts->message.segment_ref);
        return true;
    case LKI_REQUEST_DETACH:
        envelope->detach = put_segment_ref(&message->as.segment_ref, &parts->message.segment_ref);
        return true;
    case LKI_REQUEST_REMOVE:
        envelope->remove = put_remove(&message->as.remove, &parts->message.remove);
        return true;
    case LKI_REQUEST_GROW:
        envelope->grow = put_grow(&message->as.grow, &parts->message.grow);
        return true;
    case LKI_REQUEST_LOCK_NAMED:
        envelope->lock_named = put_lock_named(&message->as.lock_named, &parts->message.lock_named);
        return true;
    case LKI_REQUEST_ACQUIRE:
        envelope->acquire = put_acquire(&message->as.acquire, &parts->message.acquire);
        return true;
    case LKI_REQUEST_CANCEL:
        envelope->cancel = put_cancel(&message->as.cancel, &parts->message.cancel);
        return true;
    case LKI_REQUEST_RELEASE:
        envelope->release = put_hold_ref(&message->as.hold_ref, &parts->message.hold_ref);
        return true;
    case LKI_REQUEST_MARK_CONSISTENT:
        envelope->mark_consistent = put_hold_ref(&message->as.hold_ref, &parts->message.hold_ref);
        return true;
    case LKI_REQUEST_DECLARE:
        envelope->declare = put_hold_ref(&message->as.hold_ref, &parts->message.hold_ref);
        return true;
    case LKI_REQUEST_CHANGE_MODE:
        envelope->change_mode =
            put_change_mode(&message->as.change_mode, &parts->message.change_mode);
        return true;
    case LKI_REQUEST_ASK:
        envelope->ask = put_ask(&message->as.ask, &parts->message.ask);
        return true;
    case LKI_REQUEST_NUDGE:
        envelope->nudge = put_segment_ref(&message->as.segment_ref, &parts->message.segment_ref);
        return true;
    case LKI_REQUEST_HOLDER:
        envelope->holder = put_lock_ref(&message->as.lock_ref, &parts->message.lock_ref);
        return true;
    case LKI_REQUEST_DEADLOCK_CHECK:
        envelope->deadlock_check = put_lock_ref(&message->as.lock_ref, &parts->message.lock_ref);
        return true;
    case LKI_REQUEST_LIST:
        envelope->list = put_list_request(&message->as.list, &parts->message.list);
        return true;
    case LKI_REQUEST_BARRIER:
        envelope->barrier = &parts->message.barrier;
        lockkeeper__wire__barrier__init(envelope->barrier);
        return true;
    case LKI_REQUEST_GOODBYE:
        envelope->goodbye = &parts->message.goodbye;
        lockkeeper__wire__goodbye__init(envelope->goodbye);
        return true;
    case LKI_REQUEST_RESUME:
        envelope->resume = put_resume(&message->as.resume, &parts->message.resume);
        return true;
    case LKI_REPLY_RESUMED:
        envelope->resumed = put_resumed(&message->as.resumed, &parts->message.resumed);
        return true;
    case LKI_REQUEST_FORCE_RELEASE:
        envelope->force_release =
            put_force_release(&message->as.force_release, &parts->message.force_release);
        return true;
    case LKI_REPLY_RESULT:
        envelope->result = put_result(&message->as.result, &parts->message.result);
        return true;
    case LKI_REPLY_OPENED:
        envelope->opened = put_opened(&message->as.opened, &parts->message.opened);
        return true;
    case LKI_REPLY_GRANTED:
        envelope->granted = put_granted(&message->as.granted, &parts->message.granted);
        return true;
    case LKI_REPLY_HOLDER_IS:
        envelope->holder_is = put_holder_is(&message->as.holder_is, &parts->message.holder_is);
        return true;
    case LKI_REPLY_LIST_PAGE:
        envelope->list_page = &parts->message.list_page;
        lockkeeper__wire__list_page__init(envelope->list_page);
        envelope->list_page->next_cursor = message->as.list_page.next_cursor;
        envelope->list_page->has_next_cursor = message->as.list_page.next_cursor != 0;
        return true;
    case LKI_REQUEST_MONITOR:
        envelope->monitor = put_monitor_request(&message->as.monitor, &parts->message.monitor);
        return true;
    case LKI_REPLY_EVENT:
        envelope->event = put_event(&message->as.event, &parts->message.event);
        return true;
    case LKI_MESSAGE_NONE:
        break;
    }
    return false;
}

void lki_wire_put_entry(const struct lki_list_entry *entry, Lockkeeper__Wire__ListEntry *out)
{
    put_list_entry(entry, out);
}
