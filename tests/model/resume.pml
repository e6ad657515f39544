/* SPDX-License-Identifier: MIT */
/* The broker's worker, and clients that lock through it: BROKERED has a bit for each. The worker may die
 * between any two of its steps; the next one knows the ledger, the facts of the lock, and what lies in the
 * sockets. Modelled after broker/core/{core,session,brokered_wait,brokered_hold,adopt}.c and
 * engine/resume.c. The clients beside them that lock by themselves are those of client.pml.
 *
 * READ, STAGE and so on: capitals are constants, names with l_ are the ledger, v_ dies with the worker. */

/* requests; the last three are replies */
mtype = { ACQUIRE_X, ACQUIRE_S, TRY_X, RELEASE, RESUME, RESUMED, GRANTED, DONE, BUSY, REFUSED };

/* Sockets: what lies in them outlives the worker. */
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
bit l_resuming[N]; /* RESUMED was sent, RESUME has not come; only with M_RESUME_WITHOUT_NUMBER */

/* The worker's own memory. */
chan v_out[N] = [4] of { mtype, byte }; /* replies that the socket has not taken yet */
bit v_ready[N];    /* its wait is to be stepped */
bit v_waiting[N];
bit v_draining[N];
bit v_resuming[N]; /* nothing is heard before RESUME, and nothing answered */
byte v_heard[N];   /* highest request that this very worker has heard */
byte v_doubtful[N]; /* highest request that an earlier worker had begun */

#define DRIVEN(i) ((BROKERED & (1 << (i))) && dead[i] != 2)
#define NUMBER (RESTARTS - restarts) /* of this worker: RESUMED says it, RESUME repeats it */
#ifdef M_RESUMED_NOT_SENT
#define SENDS_RESUMED(i) false
#else
#define SENDS_RESUMED(i) (DRIVEN(i) && !l_resuming[i])
#endif
#define REPEATING (id <= v_doubtful[me])
#define SAY(kind) if :: v_resuming[me] :: else -> v_out[me]!kind, id fi

inline forget(i) /* what dies with a worker */
{
    do
    :: v_out[i]?_, _
    :: empty(v_out[i]) -> break
    od;
    v_ready[i] = 0; v_waiting[i] = 0; v_draining[i] = 0;
    v_resuming[i] = 1; v_heard[i] = 0; v_doubtful[i] = l_begun[i]
}

/* How the worker comes by an event for client i: it reads a request, sends a reply, steps a wait. */
#define EVENTS(i) \
    :: atomic { DRIVEN(i) && nempty(request[i]) -> me = i; goto receive } \
    :: atomic { DRIVEN(i) && nempty(v_out[i]) -> me = i; goto send } \
    :: atomic { DRIVEN(i) && nudge[i] -> nudge[i] = 0; v_ready[i] = 1 } \
    :: atomic { DRIVEN(i) && v_ready[i] && dead[i] == 0 -> me = i; v_ready[i] = 0; goto step } \
    :: atomic { dead[i] == 1 -> me = i; goto repair }

proctype worker()
{
    byte me, id, w, v, vt, mytk, o, ot, j, rd, i;
    bit vl, ol, imp, older, writer, ok, found, excl, gave_up, backing, adopting, first;
    mtype kind;

idle:
end_idle:
    atomic {
        id = 0; w = 0; v = 0; vt = 0; mytk = 0; o = 0; ot = 0; j = 0; rd = 0; ok = 0; found = 0; excl = 0; me = 0;
        ol = 0; imp = 0; older = 0; writer = 0; first = 0; kind = 0;
        if
        :: adopting -> goto adopt_next
        :: else
        fi
    };
end_wait:
    if
    EVENTS(0)
    EVENTS(1)
#if N == 3
    EVENTS(2)
#endif
#if RESTARTS
    :: atomic { restarts > 0 -> restarts--; goto crashed }
#endif
    fi;
    goto idle;

    /* ---- sockets ---- */
send:
    STEP(v_out[me]?kind, id; reply[me]!kind, id);
#ifdef M_RESUME_WITHOUT_NUMBER
    if
    :: kind == RESUMED -> STEP(l_resuming[me] = v_resuming[me])
    :: else
    fi;
#endif
    goto idle;

receive:
    STEP(request[me]?kind, id);
    if
#ifdef M_RESUME_WITHOUT_NUMBER
    :: kind == RESUME -> v_resuming[me] = 0; STEP(l_resuming[me] = 0); goto idle
#else
    :: kind == RESUME -> v_resuming[me] = (id != NUMBER); goto idle
#endif
#ifdef M_HEARS_BEFORE_RESUME
    :: kind != RESUME && id <= v_heard[me] -> goto idle
#elif defined(M_HEARS_REPEATS_TWICE)
    :: kind != RESUME && v_resuming[me] -> goto idle
#else
    :: kind != RESUME && (v_resuming[me] || id <= v_heard[me]) -> goto idle
#endif
    :: else -> v_heard[me] = id
    fi;
#ifndef M_FORGETS_BEGUN
    if
    :: id > v_doubtful[me] -> STEP(l_begun[me] = id)
    :: else
    fi;
#endif
    if
    :: kind == RELEASE -> goto release
    :: else
    fi;

    /* ---- ACQUIRE ---- */
#ifndef M_ACQUIRES_ANEW
    if
    :: REPEATING && l_request[me] == id && l_stage[me] == TRYING -> goto idle /* answered when it ends */
    :: REPEATING && l_request[me] == id && l_stage[me] == HELD -> SAY(GRANTED); goto idle
    :: else
    fi;
#endif
    if
    :: (word & ID) == me + 1 || cell[me] || v_waiting[me] -> SAY(REFUSED); goto idle
    :: else -> excl = (kind != ACQUIRE_S)
    fi;
    STEP(l_stage[me] = NONE);
    STEP(l_request[me] = id; l_mode[me] = kind);
#ifndef M_NOTES_TRYING_LATE
    STEP(l_stage[me] = TRYING);
#endif
#ifdef M_ANSWERS_BEFORE_EFFECT
    SAY(GRANTED);
    STEP(v_out[me]?kind, id; reply[me]!kind, id);
#endif
try:
    mytk = 255;
    STEP(w = word);
    if
    :: !IS_FREE(w) -> goto busy
    :: IS_FREE(w) && (w & FAIR) ->
        scan_waits(0);
        if
        :: (o && !ol && excl) || writer -> goto busy
        :: else -> o = 0; ol = 0; imp = 0; older = 0; writer = 0
        fi
    :: else
    fi;
    if
    :: !excl -> goto enter_shared
    :: excl && (w & READ) ->
        scan_cells();
        if
        :: found -> goto busy
        :: else
        fi
    :: else
    fi;
    STEP(CAS((me + 1) | (w & (PARKED | DIED))));
    if
    :: !ok -> goto try
    :: ok && (w & READ) ->
        scan_cells();
        if
        :: found -> rd = READ; goto free_word
        :: else
        fi
    :: else
    fi;
    goto inside;

busy:
    found = 0; o = 0; ol = 0; imp = 0; older = 0; writer = 0; ok = 0; rd = 0;
    if
    :: l_mode[me] == TRY_X -> SAY(BUSY); STEP(l_stage[me] = NONE); goto idle
    :: else
    fi;
    STEP(mytk = ticket; ticket++);
    STEP(wt[me] = WAIT | (excl -> EXCL : 0) | IMPATIENT; tick[me] = mytk);
    v_waiting[me] = 1;
#ifdef M_NOTES_TRYING_LATE
    STEP(l_stage[me] = TRYING);
#endif
    goto look;

    /* ---- a wait goes on ---- */
step:
    if
    :: !v_waiting[me] -> goto idle
    :: else -> excl = (l_mode[me] != ACQUIRE_S); id = l_request[me]; mytk = tick[me]
    fi;
    if
    :: v_draining[me] -> goto drain
    :: else
    fi;
look:
    mytk = tick[me]; ok = 0;
    STEP(w = word);
    if
    :: IS_FREE(w) && (w & FAIR) ->
        scan_waits(!excl);
        if
        :: older -> goto idle /* its turn comes with a wake */
        :: else -> o = 0; ol = 0; imp = 0; writer = 0
        fi
    :: else
    fi;
    if
    :: IS_FREE(w) && excl ->
        STEP(CAS((me + 1) | PARKED | (w & DIED)));
        if
        :: !ok -> goto look
        :: ok && (w & READ) -> STEP(wt[me] = DRAIN); v_draining[me] = 1; goto drain
        :: else -> goto inside
        fi
    :: IS_FREE(w) && !excl -> goto enter_shared
    :: !IS_FREE(w) && !(w & PARKED) ->
        STEP(CAS(w | PARKED));
        if
        :: !ok -> goto look
        :: else -> goto idle
        fi
    :: else -> goto idle
    fi;
drain:
    scan_cells();
    if
    :: found -> goto idle /* whoever leaves wakes it */
    :: else
    fi;
inside:
    if
    :: wt[me] -> STEP(wt[me] = 0)
    :: else
    fi;
    STEP(seq = ((seq & 1) -> (seq + 2) % 8 : (seq + 1) % 8));
    goto granted;

enter_shared:
    STEP(cell[me] = 1);
stay_shared:
    ok = 0;
    STEP(w = word);
    if
#ifdef M_RESUMED_READER_STAYS
    :: adopting -> goto entered
#endif
    :: !IS_FREE(w) ->
        leave();
        if
        :: adopting -> goto queued_or_nothing
        :: !adopting && v_waiting[me] -> goto look
        :: else -> goto busy
        fi
    :: IS_FREE(w) && (w & READ) -> goto entered
    :: else
    fi;
    STEP(CAS(w | READ));
    if
    :: !ok -> goto stay_shared
    :: else
    fi;
entered:
    if
    :: wt[me] || adopting -> STEP(wt[me] = 0); pass_on()
    :: !wt[me] && !adopting && (w & (FAIR | PARKED)) -> pass_on()
    :: else
    fi;

granted:
    v_waiting[me] = 0; v_draining[me] = 0;
    assert(dead[me] || !(word & DIED) == !owed);
#ifdef M_SAYS_GRANTED_BEFORE_HELD
    SAY(GRANTED);
    if
    :: nempty(v_out[me]) -> STEP(v_out[me]?kind, id; reply[me]!kind, id)
    :: else
    fi;
    STEP(l_stage[me] = HELD);
#elif defined(M_HELD_NOT_NOTED)
    SAY(GRANTED);
#elif defined(M_ANSWERS_BEFORE_EFFECT)
    STEP(l_stage[me] = HELD);
#else
    STEP(l_stage[me] = HELD);
    SAY(GRANTED);
#endif
    goto idle;

    /* ---- RELEASE ---- */
release:
#ifdef M_RELEASE_REPEATED_IS_DONE
    if
    :: REPEATING -> SAY(DONE); goto idle
    :: else
    fi;
#endif
    if
#ifdef M_RELEASES_LATER_HOLD
    :: !v_waiting[me] && ((word & ID) == me + 1 || cell[me])
#else
    :: l_request[me] < id && !v_waiting[me] && ((word & ID) == me + 1 || cell[me])
#endif
    :: else ->
        if
        :: REPEATING && id <= l_ended[me] -> SAY(DONE)
        :: else -> SAY(REFUSED)
        fi;
        goto idle
    fi;
#if !defined(M_ENDED_NOT_NOTED) && !defined(M_ENDED_NOTED_LATE)
    STEP(l_ended[me] = id);
#endif
    if
    :: cell[me] -> leave(); goto released
    :: else
    fi;
    STEP(
        if
        :: (seq & 1) && (word & DIED) -> seq = (seq + 2) % 8
        :: (seq & 1) && !(word & DIED) -> seq = (seq + 1) % 8
        :: else
        fi
    );
free_word: /* rd: back out */
    ok = 0; o = 0; ol = 0; imp = 0; older = 0; writer = 0; found = 0;
    STEP(w = word);
    if
    :: !(w & PARKED) ->
        STEP(CAS((w & DIED) | rd));
        if
        :: !ok -> goto free_word
        :: else -> goto freed
        fi
    :: else
    fi;
    STEP(CAS(w & ~PARKED));
    if
    :: !ok -> goto free_word
    :: else -> w = w & ~PARKED
    fi;
    scan_waits(0);
    STEP(CAS((w & DIED) | rd | (o && imp -> (FAIR | PARKED) : 0)));
    if
    :: !ok -> goto free_word
    :: ok && o -> wake(o - 1)
    :: else
    fi;
freed:
    if
    :: rd ->
        j = 0;
        do
        :: j < N && j != me ->
            STEP(v = wt[j]);
            if
            :: (v & WAIT) && !(v & EXCL) -> v = 0; wake(j)
            :: else -> v = 0
            fi;
            j++
        :: j < N && j == me -> j++
        :: else -> break
        od;
        j = 0;
        goto busy
    :: else
    fi;
released:
#ifdef M_ENDED_NOTED_LATE
    STEP(l_ended[me] = id);
#endif
    SAY(DONE);
    STEP(l_stage[me] = NONE);
    goto idle;

    /* ---- after a death of a client, as in broker.pml; begun anew by a successor ---- */
repair:
    v_waiting[me] = 0; v_draining[me] = 0; i = me;
    STEP(wt[i] = 0; late[i] = 0);
    STEP(cell[i] = 0);
repair_word:
    STEP(w = word);
    if
    :: (w & ID) == i + 1 ->
        STEP(rd = seq & 1);
        STEP(
            CAS(READ | PARKED | FAIR | (rd -> DIED : 0));
            owed = owed || (ok && rd)
        );
        rd = 0;
        if
        :: !ok -> goto repair_word
        :: else -> ok = 0
        fi
    :: else
    fi;
    wake_all();
    STEP(
        dead[i] = 2;
        do
        :: request[i]?_, _
        :: reply[i]?_, _
        :: v_out[i]?_, _
        :: empty(request[i]) && empty(reply[i]) && empty(v_out[i]) -> break
        od
    );
    i = 0;
    goto idle;

    /* ---- a successor ---- */
crashed:
    atomic {
        forget(0); forget(1);
#if N == 3
        forget(2);
#endif
        adopting = 1; i = 0; goto idle
    };
adopt_next: /* attempts first, then the wakes that are owed, then RESUMED */
    do
    :: i < N && DRIVEN(i) && dead[i] == 0 -> me = i; i++; goto adopt
    :: i < N && !(DRIVEN(i) && dead[i] == 0) -> i++
    :: else -> break
    od;
#ifndef M_WAKES_NOBODY
    wake_all();
#endif
    i = 0;
    do
    :: i < N && SENDS_RESUMED(i) -> v_out[i]!RESUMED, NUMBER; i++
    :: i < N && !SENDS_RESUMED(i) -> i++
    :: else -> break
    od;
    i = 0; adopting = 0;
    goto idle;

adopt:
    excl = (l_mode[me] != ACQUIRE_S); id = l_request[me]; mytk = tick[me];
    if
    :: l_stage[me] == HELD && (word & ID) != me + 1 && !cell[me] -> STEP(l_stage[me] = NONE); goto idle
    :: l_stage[me] == TRYING
    :: else -> goto idle
    fi;
#ifdef M_FORGETS_ATTEMPT
    STEP(l_stage[me] = NONE);
    goto idle;
#endif
    STEP(w = word);
    if
    :: excl && (w & ID) == me + 1 ->
#ifndef M_RESUMED_OWNER_IS_INSIDE
        if
        :: (seq & 1) && !(w & DIED) -> skip
        :: else -> STEP(wt[me] = DRAIN); v_waiting[me] = 1; v_draining[me] = 1; v_ready[me] = 1; goto idle
        fi;
#endif
        if
        :: wt[me] -> STEP(wt[me] = 0)
        :: else
        fi;
        goto granted
    :: !excl && cell[me] -> goto stay_shared
    :: else
    fi;
queued_or_nothing:
    if
    :: wt[me] & WAIT -> v_waiting[me] = 1; v_ready[me] = 1; goto idle
    :: else
    fi;
    if
    :: wt[me] -> STEP(wt[me] = 0)
    :: else
    fi;
    STEP(l_stage[me] = NONE);
    goto idle
}

/* A client that locks through the worker. With PIPELINE its next ACQUIRE goes out behind a RELEASE that is
 * not answered yet. */
proctype asker(byte me)
{
    byte rounds = (me == 0 -> ROUNDS0 : (me == 1 -> ROUNDS1 : ROUNDS2));
    byte last, acquire, release, id; /* ids; acquire and release: what is not answered */
    mtype what, kind;

next:
    if
    :: rounds == 0 -> goto await
    :: rounds > 0 && OPS & OP_X -> what = ACQUIRE_X
    :: rounds > 0 && OPS & OP_S -> what = ACQUIRE_S
    :: rounds > 0 && OPS & OP_TRYX -> what = TRY_X
    fi;
    atomic { rounds--; last++; acquire = last; request[me]!what, acquire };
await:
    if
    :: atomic { acquire || release; reply[me]?kind, id }
    :: atomic { !acquire && !release -> goto done }
#if DEATHS
    :: atomic { MAY_DIE -> deaths--; goto crashed }
#endif
    fi;
    if
    :: kind == RESUMED ->
        atomic {
            request[me]!RESUME, id;
            if
            :: release -> request[me]!RELEASE, release
            :: else
            fi;
            if
            :: acquire -> request[me]!what, acquire
            :: else
            fi
        }
    :: kind == DONE && id == release ->
        release = 0;
        if
        :: acquire == 0 -> goto next
        :: else
        fi
    :: kind == BUSY && id == acquire -> acquire = 0; goto next
    :: kind == GRANTED && id == acquire -> goto holds
    :: else -> assert(id < last || (id != acquire && id != release)); assert(kind != REFUSED)
    fi;
    goto await;
holds:
    atomic {
        assert(xin == 0 && (what == ACQUIRE_S || sinside == 0));
        assert(what == ACQUIRE_S -> cell[me] : (word & ID) == me + 1);
        acquire = 0;
        if
        :: what == ACQUIRE_S -> sinside = sinside | ME_BIT
        :: else -> xin = me + 1
        fi
    };
    atomic {
        assert(what == ACQUIRE_S -> cell[me] : (word & ID) == me + 1); /* it still has what it was told */
        sinside = sinside & ~ME_BIT;
        xin = (xin == me + 1 -> 0 : xin);
        last++; release = last; request[me]!RELEASE, release
    };
#ifdef PIPELINE
    goto next;
#else
    goto await;
#endif

crashed:
    atomic {
        dead[me] = 1;
        sinside = sinside & ~ME_BIT;
        xin = (xin == me + 1 -> 0 : xin);
        acquire = 0; release = 0; rounds = 0
    };
done:
end_done: /* what comes for somebody who waits for nothing; another worker may say RESUMED */
    do
    :: atomic { dead[me] == 0 && nempty(reply[me]) ->
        reply[me]?kind, id;
        if
        :: kind == RESUMED -> request[me]!RESUME, id
        :: else
        fi }
    od
}

/* When nothing moves any more, nobody has what nobody knows of. */
proctype judge()
{
end_judge:
    atomic { timeout -> assert(IS_FREE(word));
        assert(!(cell[0] || cell[1]) && !(wt[0] || wt[1]));
#if N == 3
        assert(!cell[2] && !wt[2])
#endif
    }
}
