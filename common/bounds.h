/* SPDX-License-Identifier: MIT */
/* Named maximums of everything that a peer can grow. Each has a test for the refusal at maximum
 * + 1. */
#pragma once

#include <stdint.h>

#define LKI_REQUEST_BYTES_MAX (16u * 1024) /* one record from a client */
#define LKI_REPLY_BYTES_MAX (64u * 1024)   /* one record from the broker */
#define LKI_ARENA_BYTES_MAX (256u * 1024)  /* memory that unpacking one record may take */
#define LKI_RECORD_FDS_MAX 4u              /* descriptors in one record; more drops the peer */
#define LKI_NAME_BYTES_MAX 255u        /* a segment's or lock's name, without its ~uid/ or @gid/ */
#define LKI_SOCKET_PATH_BYTES_MAX 107u /* sun_path less its terminating zero */
#define LKI_LOCKS_MAX (1u << 20)       /* locks in one segment */
#define LKI_LOCKS_DEFAULT 16u
#define LKI_ATTACHMENTS_MAX 16384u /* attachments of one segment */
#define LKI_ATTACHMENTS_DEFAULT 1024u
#define LKI_SEGMENT_BYTES_MAX                                                                      \
    (UINT64_C(1) << 46)          /* 64 TiB: half of what an x86-64 process can map */
#define LKI_SEGMENTS_MAX 16384u  /* segments of one broker */
#define LKI_SESSIONS_MAX 16384u  /* sessions of one broker */
#define LKI_SHARED_HOLDS_MAX 16u /* shared holds of one attachment: one line of cells */
#define LKI_SEND_QUEUE_BYTES_MAX (64u * 1024) /* unsent replies of one session; more drops it */
#define LKI_ASYNC_WAITS_MAX 64u               /* asynchronous waits of one session */
#define LKI_LIST_PAGE_ENTRIES_MAX 64u         /* entries in one page of a listing */
#define LKI_PARKED_REQUESTS_MAX 64u           /* requests of one session that wait for a segment */

#define LKI_MONITORS_MAX 32u       /* sessions of one broker that are told of events */
#define LKI_MONITORS_OF_UID_MAX 8u /* of them, those of one user other than the broker's and root */
#define LKI_MONITOR_EVENTS_MAX 256u /* events on their way to one of them; more are lost */

/* What one broker has for all its users; --limit chooses others. The memory is sparse: bytes are
 * those that a segment may ever have, so these bounds are for address space and tables. */
#define LKI_QUOTA_BYTES_MAX (UINT64_C(1) << 49) /* eight segments of the maximum size */
#define LKI_QUOTA_LOCKS_MAX (UINT64_C(1) << 24) /* 16 segments of the maximum */
#define LKI_QUOTA_ATTACHMENTS_MAX (UINT64_C(1) << 20)
#define LKI_QUOTA_WAITS_MAX (UINT64_C(1) << 16)

/* Holds that somebody complains about while a lease runs; complaints about more are heard when there
 * is room again. And forced releases that wait for their end. */
#define LKI_LEASES_MAX 1024u
#define LKI_FORCED_MAX 64u
#define LKI_REASON_BYTES_MAX 200u /* of a forced release */

/* Connections of one uid that have not said hello. From here on the oldest have to go, once they
 * have been silent for long enough. */
#define LKI_SILENT_SESSIONS_MAX 64u
