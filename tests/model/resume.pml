/* SPDX-License-Identifier: MIT */
/* The broker's worker, and clients that lock through it: BROKERED has a bit for each. The worker may die
 * between any two of its steps; the next one knows the ledger, the facts of the lock, and what lies in the
 * sockets. Modelled after broker/core/{core,session,brokered_wait,brokered_hold,adopt}.c and
 * engine/resume.c. The clients beside them that lock by themselves are those of client.pml. */

proctype worker()
{
    byte me, id, w, v, vt, mytk, o, ot, j, rd, i;
    bit vl, ol, imp, older, writer, ok, found, excl, gave_up, backing, adopting;
    mtype kind;

idle:
end_idle:
    atomic {
        id = 0; w = 0; v = 0; vt = 0; mytk = 0; o = 0; ot = 0; j = 0; rd = 0; ok = 0; found = 0; excl = 0; me = 0;
        ol = 0; imp = 0; older = 0; writer = 0; gave_up = 0; kind = 0;
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
#ifdef M_ONE_WAY_TAKEN_FIRST
    STEP(request[me]?kind, id);
#else
    STEP(
        if
        :: request[me]?[ONE_WAY, _] -> request[me]?<kind, id>
        :: else -> request[me]?kind, id
        fi
    );
#endif
    if /* of the dead only what ends a hold has to be heard */
    :: dead[me] && kind != ONE_WAY -> goto idle
    :: true
    fi;
    if
#ifdef M_RESUME_WITHOUT_NUMBER
    :: kind == RESUME -> v_resuming[me] = 0; STEP(l_resuming[me] = 0); goto idle
#else
    :: kind == RESUME -> v_resuming[me] = (id != successors); goto idle
#endif
#ifdef M_HEARS_BEFORE_RESUME
    :: kind != RESUME && id <= v_heard[me] -> goto idle
#elif defined(M_HEARS_REPEATS_TWICE)
    :: kind != RESUME && v_resuming[me] -> goto idle
#else
    :: kind != RESUME && kind != ONE_WAY && (v_resuming[me] || id <= v_heard[me]) -> goto idle
#endif
#ifdef M_ONE_WAY_WAITS_FOR_RESUME
    :: kind == ONE_WAY && v_resuming[me] -> goto taken
#else /* its client may be asleep for long, or dead: it waits for nothing */
    :: kind == ONE_WAY && v_resuming[me] -> goto release
#endif
    :: else -> assert(id > v_heard[me]); v_heard[me] = id
    fi;
#ifndef M_FORGETS_BEGUN
    if
    :: id > v_doubtful[me] -> STEP(l_begun[me] = id)
    :: else
    fi;
#endif
    if
    :: kind == RELEASE || kind == ONE_WAY -> goto release
    :: else
    fi;

#ifdef UPDATES
    if
    :: kind == UPGRADE -> goto upgrade
    :: kind == DOWN_U || kind == DOWN_S -> goto downgrade
    :: else
    fi;
#endif

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
    STEP(w = word; before[me] = EST_AHEAD(excl));
    if
    :: !IS_FREE(w) && !(IS_OPEN(w) && !excl) -> goto busy
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
    :: excl && (w & READ) && !IS_UPDATE ->
        scan_cells();
        if
        :: found -> goto busy
        :: else
        fi
    :: else
    fi;
    STEP(
        CAS(TAKES | (w & PARKED) | TAKEN_BESIDE(w));
        if
        :: ok -> CHECK_TURN(1)
        :: else
        fi;
        before[me] = 0
    );
    if
    :: !ok -> goto try
#ifdef UPDATES
    :: ok && IS_UPDATE -> goto inside_for_update
    :: ok && !IS_UPDATE
#else
    :: else
#endif
    fi;
#ifdef BIAS
    if
    :: w & BIASED -> barrier()
    :: else
    fi;
#endif
    if
    :: w & READ ->
        scan_cells();
        if
        :: found -> rd = READ; goto free_word
        :: else
        fi
    :: else
    fi;
    goto inside;

busy:
    before[me] = 0; gave_up = 0; found = 0; o = 0; ol = 0; imp = 0; older = 0; writer = 0; ok = 0; rd = 0;
    if
    :: l_mode[me] == TRY_X -> SAY(BUSY); STEP(l_stage[me] = NONE); goto idle
    :: else
    fi;
    STEP(mytk = ticket; ticket++);
    STEP(wt[me] = WAIT | WAITS_FOR | IMPATIENT; tick[me] = mytk);
    v_waiting[me] = 1;
#ifdef M_NOTES_TRYING_LATE
    STEP(l_stage[me] = TRYING);
#endif
    goto look;

    /* ---- a wait goes on ---- */
step:
    if
    :: !v_waiting[me] -> goto idle
    :: else -> excl = (l_mode[me] != ACQUIRE_S); id = ID_OF_STAGE; mytk = tick[me]
    fi;
    if
    :: v_draining[me] -> goto drain
    :: else
    fi;
look:
    mytk = tick[me]; ok = 0;
#if NAPS
    STEP(
        if
#ifdef M_WORKER_KEEPS_LATE
        :: late[me] -> UNESTABLISH
#else
        :: late[me] -> late[me] = 0; UNESTABLISH
#endif
        :: else
        fi;
        pass[me] = 0
    );
#endif
    STEP(
        w = word;
        before[me] = 0;
        if
        :: !IS_FREE(w) && (w & PARKED) -> est[me] = 1
        :: IS_FREE(w) -> before[me] = EST_AHEAD(excl)
        :: else
        fi
    );
    if
    :: IS_FREE(w) && (w & FAIR) ->
#ifndef M_WORKER_BARGES
        scan_waits(!excl);
#endif
        if
        :: older -> older = 0; goto wait_turn
        :: else -> o = 0; ol = 0; imp = 0; writer = 0
        fi
    :: else
    fi;
    not_seen(me);
    if
    :: IS_FREE(w) && excl ->
        STEP(
            CAS(TAKES | PARKED | TAKEN_BESIDE(w));
            if
            :: ok -> CHECK_TURN(1)
            :: else
            fi;
            before[me] = 0
        );
        if
        :: !ok -> goto look
#ifdef UPDATES
        :: ok && IS_UPDATE -> goto inside_for_update
#endif
        :: ok && !IS_UPDATE && (w & READ) -> STEP(wt[me] = DRAIN; est[me] = 0); v_draining[me] = 1; goto drain
        :: ok && !IS_UPDATE && !(w & READ) -> goto inside
        fi
    :: IS_OPEN(w) && !excl -> goto enter_shared
    :: !IS_FREE(w) && !(IS_OPEN(w) && !excl) && !(w & PARKED) ->
        STEP(
            CAS(w | PARKED);
            if
            :: ok -> est[me] = 1
            :: else
            fi
        );
        if
        :: !ok -> goto look
#ifdef UPDATES
        :: ok && (w & UPDATE) -> wake_readers(); goto sleep
#endif
        :: else -> goto sleep
        fi
    :: else -> goto sleep
    fi;
wait_turn: /* the word is free, and reserved for somebody older: its turn comes with a wake */
    before[me] = 0; o = 0; ol = 0; imp = 0; writer = 0;
    STEP(v = seq; est[me] = 1);
#if NAPS
    if
    :: v_napped[me] && v_word[me] == (w & ~PARKED) && v_seq[me] == v ->
        not_seen(me);
        v = 0; j = 0;
        do
        :: j < N && j != me ->
            STEP(v = wt[j]; vt = tick[j]);
            if
            :: (v & WAIT) && vt < mytk && (excl || (v & EXCL)) ->
                STEP(
                    if
                    :: !late[j] -> late[j] = 1; pass[j] = 1; chg[j] = 1
                    :: else
                    fi
                )
            :: else
            fi;
            v = 0; vt = 0;
            j++
        :: j < N && j == me -> j++
        :: else -> break
        od;
        j = 0;
        goto look
    :: else -> v_seen[me] = 1; v_napped[me] = 0; v_word[me] = w & ~PARKED; v_seq[me] = v
    fi;
#endif
    v = 0;
sleep:
    if
    :: due[me] == 2 -> goto give_up
    :: else -> goto idle
    fi;
drain:
#ifdef BIAS
#ifdef M_BIAS_RESUMED_WITHOUT_BARRIER
    STEP(word = word & ~BIASED);
#endif
    STEP(w = word);
    if
    :: w & BIASED -> barrier()
    :: else
    fi;
#endif
    scan_cells();
    if
    :: found && (due[me] == 2 || l_mode[me] == TRY_X) ->
        found = 0; gave_up = 1; rd = READ;
        STEP(wt[me] = 0);
#ifdef UPDATES
        if
        :: l_stage[me] == UPGRADING -> rd = 0; goto back_to_update
        :: else
        fi;
#endif
        goto free_word
    :: found && !(due[me] == 2 || l_mode[me] == TRY_X) -> goto idle /* whoever leaves wakes it */
    :: else
    fi;
inside:
    if
    :: wt[me] -> STEP(wt[me] = 0; est[me] = 0)
    :: else
    fi;
    STEP(seq = ((seq & 1) -> (seq + 2) % 8 : (seq + 1) % 8));
    goto granted;

enter_shared:
    STEP(cell[me] = 1);
stay_shared:
    ok = 0;
    STEP(
        w = word;
        if
        :: IS_FREE(w) && (w & READ) -> CHECK_TURN(0); before[me] = 0
        :: !IS_FREE(w) -> before[me] = 0
        :: else
        fi
    );
    if
#ifdef M_RESUMED_READER_STAYS
    :: adopting -> goto entered
#endif
    :: !IS_OPEN(w) ->
        leave();
        if
        :: adopting -> goto queued_or_nothing
        :: !adopting && v_waiting[me] -> goto look
        :: else -> goto busy
        fi
    :: IS_OPEN(w) && (w & READ) -> goto entered
    :: else
    fi;
    STEP(
        CAS(w | READ);
        if
        :: ok && IS_FREE(w) -> CHECK_TURN(0); before[me] = 0
        :: else
        fi
    );
    if
    :: !ok -> goto stay_shared
    :: else
    fi;
entered:
    if
    :: wt[me] || adopting -> STEP(wt[me] = 0; est[me] = 0); pass_on()
    :: !wt[me] && !adopting && (w & (FAIR | PARKED)) -> pass_on()
    :: else
    fi;

#ifdef UPDATES
    goto granted;
inside_for_update:
    if
    :: wt[me] -> STEP(wt[me] = 0; est[me] = 0)
    :: else
    fi;
    STEP(seq = (seq + 2) % 8);
    if
    :: (w & PARKED) || v_waiting[me] || adopting -> wake_readers()
    :: else
    fi;
#endif
granted:
    not_seen(me);
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

give_up: /* a try that was taken over while it backed out comes here as well */
    v_waiting[me] = 0; gave_up = 1;
    STEP(wt[me] = 0; est[me] = 0);
#ifndef M_WORKER_PASSES_NOTHING
    pass_on();
#endif
gave_up_now:
    v_waiting[me] = 0; v_draining[me] = 0;
    not_seen(me);
    SAY(TIMED_OUT);
    STEP(l_stage[me] = NONE);
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
        :: kind == ONE_WAY -> goto taken
        :: kind != ONE_WAY && REPEATING && id <= l_ended[me] -> SAY(DONE)
        :: else -> SAY(REFUSED)
        fi;
        goto idle
    fi;
#if !defined(M_ENDED_NOT_NOTED) && !defined(M_ENDED_NOTED_LATE)
    if
    :: kind != ONE_WAY -> STEP(l_ended[me] = id)
    :: else
    fi;
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
free_word: /* rd: back out, or shared from now on */
    ok = 0; o = 0; ol = 0; imp = 0; older = 0; writer = 0; found = 0;
free_seen: /* what was seen counts until PARKED shows again */
    STEP(w = word);
    if
    :: w & PARKED ->
        STEP(CAS(w & ~PARKED));
        if
        :: !ok -> goto free_seen
        :: else -> w = w & ~PARKED
        fi;
        scan_waits(0)
    :: else
    fi;
#ifdef UPDATES
    STEP(CAS((w & (DIED | READ | BIASED)) | rd | (o && imp -> (FAIR | PARKED) : 0)));
#else
    STEP(CAS((w & DIED) | rd | (o && imp -> (FAIR | PARKED) : 0)));
#endif
    if
    :: !ok -> goto free_seen
    :: ok && o -> wake(o - 1)
    :: else
    fi;
    if
    :: rd ->
        wake_readers();
        if
#ifdef UPDATES
        :: kind == DOWN_S -> rd = 0; SAY(DONE); goto idle
#endif
        :: gave_up -> goto gave_up_now
        :: else -> goto busy
        fi
    :: else
    fi;
released:
    if
    :: kind == ONE_WAY -> STEP(l_stage[me] = NONE); goto taken
    :: else
    fi;
#ifdef M_ENDED_NOTED_LATE
    STEP(l_ended[me] = id);
#endif
    SAY(DONE);
    STEP(l_stage[me] = NONE);
    goto idle;
taken: /* it comes no more, to nobody */
#ifndef M_ONE_WAY_TAKEN_FIRST
    STEP(request[me]?_, _);
#endif
    goto idle;

#ifdef UPDATES
#include "change.pml"
#endif

    /* ---- after a death of a client, as in broker.pml; begun anew by a successor ---- */
repair:
    v_waiting[me] = 0; v_draining[me] = 0; not_seen(me); i = me;
    STEP(wt[i] = 0; late[i] = 0; UNESTABLISH); /* a step that was under way may have made it established */
    STEP(cell[i] = 0);
repair_word:
    STEP(w = word);
    if
    :: (w & ID) == i + 1 ->
        STEP(rd = seq & 1);
        STEP(
            CAS(READ | PARKED | FAIR | (rd -> DIED : 0) | (w & BIASED));
            owed = owed || (ok && rd);
            assert(!(ok && rd && let_go[i])) /* nobody is told of a death that was a release */
        );
        rd = 0;
        if
        :: !ok -> goto repair_word
        :: else -> ok = 0
        fi
    :: else
    fi;
#ifdef M_WORKER_REPAIR_WAKES_ONE
    wake_first();
#else
    wake_all();
#endif
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

#include "adopt.pml"
}
