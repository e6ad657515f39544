/* SPDX-License-Identifier: MIT */
/* Between the plain messages and the structures that protobuf-c generates: copies fields, both
 * ways. For the codec alone. Owns nothing: byte strings are borrowed in both directions. Pure. */
#pragma once

#include "proto/lockkeeper.pb-c.h"
#include "proto/message.h"

/* Room for the one message of an envelope, and for the entries of a page. */
struct lki_wire_parts {
    Lockkeeper__Wire__Envelope envelope;
    union {
        Lockkeeper__Wire__Hello hello;
        Lockkeeper__Wire__Open open;
        Lockkeeper__Wire__SegmentRef segment_ref;
        Lockkeeper__Wire__Remove remove;
        Lockkeeper__Wire__Grow grow;
        Lockkeeper__Wire__LockNamed lock_named;
        Lockkeeper__Wire__Acquire acquire;
        Lockkeeper__Wire__Cancel cancel;
        Lockkeeper__Wire__HoldRef hold_ref;
        Lockkeeper__Wire__ChangeMode change_mode;
        Lockkeeper__Wire__Ask ask;
        Lockkeeper__Wire__LockRef lock_ref;
        Lockkeeper__Wire__ListRequest list;
        Lockkeeper__Wire__Goodbye goodbye;
        Lockkeeper__Wire__Barrier barrier;
        Lockkeeper__Wire__Resume resume;
        Lockkeeper__Wire__Resumed resumed;
        Lockkeeper__Wire__MonitorRequest monitor;
        Lockkeeper__Wire__ForceRelease force_release;
        Lockkeeper__Wire__Result result;
        Lockkeeper__Wire__Opened opened;
        Lockkeeper__Wire__Granted granted;
        Lockkeeper__Wire__HolderIs holder_is;
        Lockkeeper__Wire__ListPage list_page;
        Lockkeeper__Wire__Event event;
    } message;
};

/* Fills *out from the envelope, which has the message of this type. The entries of a page are
 * written to `entries`, which has room for as many as the page has, and are not looked at for other
 * types. */
void lki_wire_take(const Lockkeeper__Wire__Envelope *envelope, enum lki_message_type type,
                   struct lki_list_entry *entries, struct lki_message *out);

/* Fills *parts, so that parts->envelope can be packed while *parts and *message exist. A page's
 * entries are not among them: see lki_wire_put_entry(). Returns false if the type is none. */
bool lki_wire_put(const struct lki_message *message, struct lki_wire_parts *parts);

void lki_wire_put_entry(const struct lki_list_entry *entry, Lockkeeper__Wire__ListEntry *out);
