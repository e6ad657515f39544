/* SPDX-License-Identifier: MIT */
#include "proto/message.h"

const char *lki_message_type_name(enum lki_message_type type)
{
    switch (type) {
    case LKI_MESSAGE_NONE:
        return "none";
    case LKI_REQUEST_HELLO:
        return "hello";
    case LKI_REQUEST_OPEN:
        return "open";
    case LKI_REQUEST_PUBLISH:
        return "publish";
    case LKI_REQUEST_DETACH:
        return "detach";
    case LKI_REQUEST_REMOVE:
        return "remove";
    case LKI_REQUEST_GROW:
        return "grow";
    case LKI_REQUEST_LOCK_NAMED:
        return "lock_named";
    case LKI_REQUEST_ACQUIRE:
        return "acquire";
    case LKI_REQUEST_CANCEL:
        return "cancel";
    case LKI_REQUEST_RELEASE:
        return "release";
    case LKI_REQUEST_MARK_CONSISTENT:
        return "mark_consistent";
    case LKI_REQUEST_DECLARE:
        return "declare";
    case LKI_REQUEST_ASK:
        return "ask";
    case LKI_REQUEST_NUDGE:
        return "nudge";
    case LKI_REQUEST_HOLDER:
        return "holder";
    case LKI_REQUEST_LIST:
        return "list";
    case LKI_REQUEST_CHANGE_MODE:
        return "change_mode";
    case LKI_REQUEST_BARRIER:
        return "barrier";
    case LKI_REQUEST_GOODBYE:
        return "goodbye";
    case LKI_REQUEST_DEADLOCK_CHECK:
        return "deadlock_check";
    case LKI_REQUEST_RESUME:
        return "resume";
    case LKI_REQUEST_FORCE_RELEASE:
        return "force_release";
    case LKI_REPLY_RESULT:
        return "result";
    case LKI_REPLY_OPENED:
        return "opened";
    case LKI_REPLY_GRANTED:
        return "granted";
    case LKI_REPLY_HOLDER_IS:
        return "holder_is";
    case LKI_REPLY_LIST_PAGE:
        return "list_page";
    case LKI_REPLY_RESUMED:
        return "resumed";
    case LKI_REQUEST_MONITOR:
        return "monitor";
    case LKI_REPLY_EVENT:
        return "event";
    }
    return "unknown";
}
