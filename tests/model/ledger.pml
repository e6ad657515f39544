/* SPDX-License-Identifier: MIT */
/* What the worker of resume.pml works on: sockets and the ledger, which survive it, and its own memory, which
 * does not.
 *
 * READ, STAGE and so on: capitals are constants, names with l_ are the ledger, v_ dies with the worker. */

/* requests; from RESUMED on, replies */
mtype = { ACQUIRE_X, ACQUIRE_S, TRY_X, RELEASE, ONE_WAY, RESUME, RESUMED, GRANTED, DONE, BUSY, TIMED_OUT, REFUSED };

/* Sockets: what lies in them outlives the worker, and the client. ONE_WAY is a RELEASE without an answer. Nobody
 * repeats it: it is taken out of the socket when it has had its effect, so that a successor finds it there. */
chan request[N] = [10] of { mtype, byte };
chan reply[N] = [10] of { mtype, byte };

/* The ledger. */
#define NONE 0
#define TRYING 1
#define HELD 2
byte l_stage[N];
byte l_request[N]; /* of the stage; with its mode */
mtype l_mode[N];
byte l_begun[N];   /* highest request that was begun */
byte l_ended[N];   /* last release that ended something */
byte due[N];       /* of the acquire that is not answered: 1 it has a deadline, 2 which has passed */
byte successors;   /* RESUMED says which, RESUME repeats it */
bit let_go[N];     /* ghost: its last request is a ONE_WAY: it holds nothing, whoever has read that or not */
bit l_resuming[N]; /* RESUMED was sent, RESUME has not come; only with M_RESUME_WITHOUT_NUMBER */

/* The worker's own memory. */
chan v_out[N] = [4] of { mtype, byte }; /* replies that the socket has not taken yet */
bit v_ready[N];    /* its wait is to be stepped */
bit v_waiting[N];
bit v_draining[N];
bit v_resuming[N]; /* nothing is heard before RESUME, and nothing answered */
byte v_heard[N];   /* highest request that this very worker has heard */
byte v_doubtful[N]; /* highest request that an earlier worker had begun */
#if NAPS
bit v_seen[N];     /* a word reserved for somebody older, with: */
bit v_napped[N];   /* and a nap has passed since */
byte v_word[N], v_seq[N];
#endif

#define DRIVEN(i) ((BROKERED & (1 << (i))) && dead[i] != 2)
#ifdef M_RESUMED_NOT_SENT
#define SENDS_RESUMED(i) false
#else
#define SENDS_RESUMED(i) (DRIVEN(i) && !l_resuming[i])
#endif
#define REPEATING (id <= v_doubtful[me])
/* M_RELEASES_LATER_HOLD too: what the wrong release ended the repeated acquire would take again, unnoticed. */
#if defined(M_ANSWERS_WHAT_COMES_AGAIN) || defined(M_RELEASES_LATER_HOLD)
#define SAYS (!v_resuming[me])
#else /* what an earlier worker has begun comes again, and is answered then */
#define SAYS (!v_resuming[me] && (id > v_doubtful[me] || id <= v_heard[me]))
#endif
#define SAY(kind) if :: SAYS -> v_out[me]!kind, id :: else fi

inline not_seen(i)
{
#if NAPS
    v_seen[i] = 0; v_napped[i] = 0; v_word[i] = 0; v_seq[i] = 0
#else
    skip
#endif
}

inline forget(i) /* what dies with a worker */
{
    do
    :: v_out[i]?_, _
    :: empty(v_out[i]) -> break
    od;
    v_ready[i] = 0; v_waiting[i] = 0; v_draining[i] = 0;
    v_resuming[i] = 1; v_heard[i] = 0; v_doubtful[i] = l_begun[i];
    not_seen(i)
}

#if TIMEOUTS
#define TIMERS(i) :: atomic { DRIVEN(i) && v_waiting[i] && due[i] == 1 -> due[i] = 2; v_ready[i] = 1 } NAP(i)
#else
#define TIMERS(i) NAP(i)
#endif
/* The naps of a brokered waiter are the broker's timer. One ends where the waiter was marked LATE: it looks,
 * and counts again. One that sees a word reserved for somebody older may step over, `naps` times. */
#if NAPS
#define NAP(i) \
    :: atomic { DRIVEN(i) && v_waiting[i] && !v_ready[i] && late[i] -> v_ready[i] = 1 } \
    :: atomic { DRIVEN(i) && v_waiting[i] && !v_ready[i] && v_seen[i] && naps > 0 -> \
                naps--; v_napped[i] = 1; v_ready[i] = 1 }
#else
#define NAP(i)
#endif

/* What the dead have sent is read before anything is repaired for them. */
#ifdef M_REPAIRS_UNREAD
#define HAS_LAST_WORDS(i) false
#else
#define HAS_LAST_WORDS(i) (request[i]??[ONE_WAY, _])
#endif

/* How the worker comes by an event for client i: it reads a request, sends a reply, steps a wait. */
#define EVENTS(i) \
    :: atomic { DRIVEN(i) && nempty(request[i]) -> me = i; goto receive } \
    :: atomic { DRIVEN(i) && nempty(v_out[i]) -> me = i; goto send } \
    :: atomic { DRIVEN(i) && nudge[i] -> nudge[i] = 0; v_ready[i] = 1 } \
    :: atomic { DRIVEN(i) && v_ready[i] && dead[i] == 0 -> me = i; v_ready[i] = 0; goto step } \
    TIMERS(i) \
    :: atomic { dead[i] == 1 && !HAS_LAST_WORDS(i) -> me = i; goto repair }
