/* SPDX-License-Identifier: MIT */
/* operations a client may choose from */
#define OP_X 1
#define OP_S 2
#define OP_TRYX 4
#define OP_TRYS 8
#define OP_EXIT 16 /* exclusive, to exit: the sequence stays even */
#define OP_READ 32 /* optimistic read */
#define OP_U 64 /* update: beside readers, may become exclusive */
#define OP_TRYU 128

/* the lock word; no generation, which makes every comparison weaker than in the engine */
#define ID 3
#define PARKED 4
#define DIED 8
#define FAIR 16
#define READ 32
#ifdef BIAS
#define BIASED 64 /* beside READ: readers need no fence; a taker makes one for all of them */
#else
#define BIASED 0
#endif
#ifdef UPDATES
#define UPDATE 128 /* beside an id: the owner writes nothing, readers may join */
#else
#define UPDATE 0
#endif
#define IS_FREE(w) (((w) & ID) == 0)
#define IS_OPEN(w) (IS_FREE(w) || ((w) & UPDATE)) /* to readers */

/* the wait cell of an attachment: kind, mode, impatience */
#define WAIT 1
#define DRAIN 2
#define EXCL 4
#define IMPATIENT 8
#define UPDATER 16
#define WAITS_SHARED(fact) (((fact) & WAIT) && !((fact) & (EXCL | UPDATER)))
#if N == 3
#define NOBODY_WAITS_TO_READ (!WAITS_SHARED(wt[0]) && !WAITS_SHARED(wt[1]) && !WAITS_SHARED(wt[2]))
#else
#define NOBODY_WAITS_TO_READ (!WAITS_SHARED(wt[0]) && !WAITS_SHARED(wt[1]))
#endif

/* Shared memory. The sequence is kept modulo 8: enough for its parity and for "the same as before". */
byte word;
byte seq;
byte ticket;
byte wt[N];
byte tick[N]; /* written together with wt[i]: both are one 64-bit atomic */
bit cell[N];
bit late[N];  /* bit 0 of the futex */
bit chg[N];   /* the futex is no longer what its owner remembered */
bit slp[N];   /* asleep in futex_wait */
bit nudge[N]; /* a nudge for a brokered attachment lies in the broker's socket */
#ifdef BIAS
bit pend[N];  /* client i has stored pendv[i] in its cell, and nobody else sees it yet */
bit pendv[N];
byte biases = BIAS; /* how often a reader may set BIASED */
#endif

/* Death: 0 alive, 1 ended, 2 repaired: its slot may be given again. */
byte dead[N];
byte timeouts = TIMEOUTS, naps = NAPS, pauses = PAUSES;
#ifndef CRASHES
byte deaths = DEATHS, restarts = RESTARTS;
#endif
#if PAUSES
bit stopped[N];
bit nap_over[N];
byte ticks;
#endif

/* Ghosts: what the properties talk about; no step looks at them. */
byte xin;     /* 1 + the client between taking (after its drain) and the end of its sequence */
#ifdef UPDATES
byte uin;     /* 1 + the client that holds in update mode */
#endif
byte sinside; /* bit i: client i holds shared */
bit owed;     /* an owner died with an odd sequence and nobody has declared the data whole since */
bit est[N];   /* impatient waiter that has completed a look: nobody younger may pass it ... */
bit pass[N];  /* ... unless marked LATE since it last looked */
byte before[N]; /* bit j of before[i]: j was established when i began the look that decides */
#ifdef DATA
bit d0, d1;   /* the data: equal when nobody is writing and nobody died writing */
#endif

#define ME_BIT (1 << me)

/* One shared access, with the local computation around it. Instead of it, the client may die or be
 * stopped, and a worker of the broker may be lost. */
#define STEP(...) \
    if \
    :: atomic { __VA_ARGS__ } \
    DEATH_OPTION \
    RESTART_OPTION \
    PAUSE_OPTION \
    fi
#define WORKER_PID 1 /* the process that may be lost; in a model without WORKER, me == N */
#ifdef WORKER
#define IS_WORKER (_pid == WORKER_PID)
#else
#define IS_WORKER (me == N)
#endif
#define MAY_DIE (!IS_WORKER && deaths > 0 && (MORTAL & ME_BIT))
#if DEATHS
#define DEATH_OPTION :: atomic { MAY_DIE -> deaths--; goto crashed }
#else
#define DEATH_OPTION
#endif
#if RESTARTS
#define RESTART_OPTION :: atomic { IS_WORKER && restarts > 0 -> restarts--; goto crashed }
#else
#define RESTART_OPTION
#endif
#if PAUSES
#define PAUSE_OPTION \
    :: atomic { me < N && pauses > 0 && (PAUSABLE & ME_BIT) && PAUSE_WHERE -> \
                pauses--; stopped[me] = 1; goto stop }
#else
#define PAUSE_OPTION
#endif

#ifdef BIAS
/* What a fence of client i does, or the passing of time. One store is all that may be pending: the
 * next one to the same cell comes behind it, and hides it if nobody has looked. */
#define FLUSH(i) \
    if \
    :: pend[i] -> cell[i] = pendv[i]; pend[i] = 0; pendv[i] = 0 \
    :: else \
    fi
#if N == 3
#define FLUSH_ALL FLUSH(0); FLUSH(1); FLUSH(2)
#else
#define FLUSH_ALL FLUSH(0); FLUSH(1)
#endif
#endif

/* What a death leaves. (Nothing of it is seen before: a client that is about to die takes no step.) */
inline die()
{
    dead[me] = 1;
#ifdef BIAS
    FLUSH(me);
#endif
    if
    :: (word & ID) == me + 1 && (seq & 1) ->
        /* a hold to exit, or in update mode, leaves no damage that was not there before */
        assert(!(toexit || (word & UPDATE)) || owed);
        owed = 1
    :: else
    fi;
    if
    :: xin == me + 1 -> xin = 0
    :: else
    fi;
#ifdef UPDATES
    if
    :: uin == me + 1 -> uin = 0
    :: else
    fi;
#endif
    sinside = sinside & ~ME_BIT;
    est[me] = 0; pass[me] = 0; slp[me] = 0
}

/* CAS word w -> to; the result is in ok. */
#define CAS(to) \
    if \
    :: word == w -> word = (to); ok = 1; CHECK_PARITY \
    :: else -> ok = 0 \
    fi
#define CHECK_PARITY assert(!IS_FREE(word) || ((seq & 1) == ((word & DIED) != 0)))
