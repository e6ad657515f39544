/* SPDX-License-Identifier: MIT */
proctype client(byte me)
{
    byte rounds; /* still to do */
    byte w, v, vt, mytk, o, ot, j, lw, lseq, rd;
    bit vl, ol, imp, older, writer, ok, found;
    bit excl, toexit, tmo, queued, seen, napped, gave_up, trying, backing;
#ifdef UPDATES
    bit upd;  /* in update mode, or on the way there */
    bit upg;  /* draining, to become exclusive */
    bit tos;  /* becomes shared with the freeing of the word */
    byte changes; /* of its mode */
#endif

    rounds = (me == 0 -> ROUNDS0 : (me == 1 -> ROUNDS1 : ROUNDS2));

begin:
    atomic {
        w = 0; v = 0; vt = 0; mytk = 0; o = 0; ot = 0; j = 0; lw = 0; lseq = 0; rd = 0;
        before[me] = 0;
        vl = 0; ol = 0; imp = 0; older = 0; writer = 0; ok = 0; found = 0;
        excl = 0; toexit = 0; tmo = 0; queued = 0; seen = 0; napped = 0; gave_up = 0; trying = 0; backing = 0
#ifdef UPDATES
        ; upd = 0; upg = 0; tos = 0; changes = 0
#endif
    };
    if
    :: rounds == 0 -> goto done
    :: else -> rounds--
    fi;
    /* A deadline is chosen before: with it the sleeper below is never stuck, so that both must be. */
    if
    :: atomic { timeouts > 0 && (TIMED & ME_BIT) -> timeouts--; tmo = 1 }
    :: !(ALWAYS_TIMED & ME_BIT)
    fi;
#define OPS (me == 0 -> OPS0 : (me == 1 -> OPS1 : OPS2))
    if
    :: OPS & OP_X -> excl = 1; goto x_fast
    :: OPS & OP_EXIT -> excl = 1; toexit = 1; goto x_fast
    :: OPS & OP_TRYX -> excl = 1; goto x_try
    :: OPS & OP_S -> goto s_fast
#ifdef UPDATES
    :: OPS & OP_U -> excl = 1; upd = 1; goto x_fast
    :: OPS & OP_TRYU -> excl = 1; upd = 1; goto x_try
#define MODE_BITS (upd -> UPDATE : 0)
#ifdef M_UPDATE_TAKER_DROPS_BIAS
#define STAYS_BESIDE(w) ((w) & (upd -> (DIED | READ) : (DIED | BIASED)))
#else
#define STAYS_BESIDE(w) ((w) & (upd -> (DIED | BIASED | READ) : (DIED | BIASED)))
#endif
#define WANTED (upd -> UPDATER : (excl -> EXCL : 0))
#define IS_EXCL (excl && !upd)
#else
#define MODE_BITS 0
#define STAYS_BESIDE(w) ((w) & (DIED | BIASED))
#define WANTED (excl -> EXCL : 0)
#define IS_EXCL excl
#endif
    :: OPS & OP_TRYS -> goto s_try
#ifdef DATA
    :: OPS & OP_READ -> goto optimistic
#endif
    fi;

    /* ---- exclusive ---- */
x_fast:
    w = 0;
    STEP(
        CAS(me + 1 + MODE_BITS);
        if
        :: ok -> CHECK_NOT_BARGED(1)
        :: else
        fi
    );
    if
#ifdef UPDATES
    :: ok && upd -> goto u_taken
#endif
    :: ok && IS_EXCL -> goto x_taken
    :: else -> goto wait
    fi;

x_try:
    mytk = 255; /* behind everybody */
    STEP(w = word; before[me] = EST_AHEAD(1));
    if
    :: !IS_FREE(w) -> goto begin /* EBUSY */
    :: else
    fi;
    if
    :: w & FAIR ->
        scan_waits(0);
        if
        :: o && !ol -> goto begin /* EBUSY */
        :: else -> o = 0; ol = 0; imp = 0; older = 0; writer = 0
        fi
    :: else
    fi;
    if
    :: (w & READ) && IS_EXCL ->
        scan_cells();
        if
        :: found -> goto begin /* EBUSY */
        :: else
        fi
    :: else
    fi;
    STEP(
        CAS((me + 1) | MODE_BITS | (w & PARKED) | STAYS_BESIDE(w));
        if
        :: ok -> CHECK_TURN(1)
        :: else
        fi;
        before[me] = 0
    );
    if
    :: !ok -> goto x_try
#ifdef UPDATES
    :: ok && upd -> goto u_taken
#endif
    :: ok && IS_EXCL
    fi;
#ifdef BIAS
    if
#ifdef M_BIAS_TRY_WITHOUT_BARRIER
    :: w & BIASED -> STEP(word = word & ~BIASED)
#else
    :: w & BIASED -> barrier()
#endif
    :: (w & BIASED) && (BARRIERLESS & ME_BIT) -> goto back_out_biased
    :: else
    fi;
#endif
    if
    :: w & READ ->
        scan_cells();
        if
        :: found -> goto back_out
        :: else
        fi
    :: else
    fi;
    goto x_taken;

wait:
    STEP(mytk = ticket; ticket++);
    STEP(wt[me] = WAIT | WANTED | (PATIENCE == 0 -> IMPATIENT : 0); tick[me] = mytk);
    queued = 1;

look:
#if defined(M_LATE_NEVER_CLEARED)
    STEP(chg[me] = 0; pass[me] = 0; if :: late[me] -> UNESTABLISH :: else fi);
#elif defined(M_LATE_CLEARED_APART)
    STEP(late[me] = 0; pass[me] = 0; if :: late[me] -> UNESTABLISH :: else fi);
    STEP(chg[me] = 0);
#else
    /* The value to remember is the result of the RMW that clears LATE, or of a load without LATE. */
    STEP(
        if
        :: late[me] -> late[me] = 0; UNESTABLISH
        :: else
        fi;
        pass[me] = 0; chg[me] = 0
    );
#endif
#if PATIENCE == 1
    if
    :: !(wt[me] & IMPATIENT) -> STEP(wt[me] = wt[me] | IMPATIENT)
    :: true
    fi;
#endif
    STEP(
        w = word;
        before[me] = 0;
        if
        :: !IS_FREE(w) && (w & PARKED) && (wt[me] & IMPATIENT) -> est[me] = 1
        :: IS_FREE(w) -> before[me] = EST_AHEAD(excl)
        :: else
        fi
    );
    if
    :: IS_FREE(w) && (w & FAIR) ->
        scan_waits(!excl);
        if
        :: older -> o = 0; ol = 0; imp = 0; older = 0; writer = 0; before[me] = 0; goto wait_turn
        :: else -> o = 0; ol = 0; imp = 0; writer = 0
        fi
    :: else
    fi;
    if
    :: IS_FREE(w) && excl ->
        STEP(
#ifdef M_TAKE_WITHOUT_PARKED
            CAS((me + 1) | MODE_BITS | STAYS_BESIDE(w));
#else
            CAS((me + 1) | MODE_BITS | PARKED | STAYS_BESIDE(w));
#endif
            if
            :: ok -> CHECK_TURN(1)
            :: else
            fi;
            before[me] = 0
        );
        if
        :: !ok -> goto look
#ifdef UPDATES
        :: ok && upd -> goto u_took
#endif
        :: ok && IS_EXCL && (w & READ) -> goto drain
        :: ok && IS_EXCL && !(w & READ) -> goto x_took
        fi
    :: IS_OPEN(w) && !excl -> goto s_enter
    :: !IS_FREE(w) && !(IS_OPEN(w) && !excl) && !(w & PARKED) ->
        STEP(
            CAS(w | PARKED);
            if
            :: ok && (wt[me] & IMPATIENT) -> est[me] = 1
            :: else
            fi
        );
        if
        :: !ok -> goto look
#if defined(UPDATES) && !defined(M_UPDATE_PARKED_WITHOUT_READERS)
        :: ok && (w & UPDATE) -> wake_readers(); goto sleep
#endif
        :: else -> goto sleep
        fi
    :: else -> goto sleep
    fi;

wait_turn: /* the word is free and reserved for somebody older */
    STEP(
        v = seq;
        if
        :: wt[me] & IMPATIENT -> est[me] = 1
        :: else
        fi
    );
    if
    :: seen && napped && lw == w && lseq == v ->
        v = 0; seen = 0; napped = 0; lw = 0; lseq = 0;
#ifdef M_STEP_OVER_WITHOUT_LATE
        STEP(
            CAS((me + 1) | MODE_BITS | PARKED | STAYS_BESIDE(w))
        );
        if
        :: !ok -> goto look
        :: ok && (w & READ) -> goto drain
        :: else -> goto x_took
        fi;
#else
        j = 0;
        do
        :: j < N && j != me ->
            STEP(v = wt[j]; vt = tick[j]);
            if
            :: (v & WAIT) && vt < mytk && (excl || (v & EXCL)) ->
                /* Setting LATE wakes nobody, but whoever is about to sleep finds its futex changed. */
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
#endif
    :: else -> lw = w; lseq = v; seen = 1; napped = 0; v = 0
    fi;
    STEP(
        if
        :: !chg[me] -> slp[me] = 1
        :: else
        fi
    );
    if
    :: atomic { !slp[me] -> skip }
    :: atomic { slp[me] && naps > 0 -> naps--; slp[me] = 0; napped = 1 }
#if PAUSES
    :: atomic { slp[me] && nap_over[me] -> nap_over[me] = 0; slp[me] = 0; napped = 1 }
#endif
    :: atomic { slp[me] && tmo -> slp[me] = 0; goto give_up }
    DEATH_OPTION
    PAUSE_OPTION
    fi;
    goto look;

sleep: /* the word is owned and PARKED: its owner answers for me */
    seen = 0; napped = 0; lw = 0; lseq = 0;
    STEP(
        if
        :: !chg[me] -> slp[me] = 1
        :: else
        fi
    );
    if
    :: atomic { !slp[me] -> skip }
#if PAUSES
    :: atomic { slp[me] && nap_over[me] -> nap_over[me] = 0; slp[me] = 0 }
#endif
    :: atomic { slp[me] && tmo -> slp[me] = 0; goto give_up }
    DEATH_OPTION
    PAUSE_OPTION
    fi;
    goto look;

drain:
#ifdef M_NO_DRAIN
    goto x_took;
#endif
#ifdef BIAS
    if
    :: w & BIASED ->
        STEP(wt[me] = DRAIN; est[me] = 0);
#ifdef M_BIAS_SCANS_FIRST
        scan_cells();
        barrier();
        if
        :: !found -> goto x_took
        :: else -> found = 0
        fi
#else
        barrier()
#endif
    :: (w & BIASED) && (BARRIERLESS & ME_BIT) && tmo -> goto back_out_biased
    :: else
    fi;
#endif
    scan_cells();
    if
    :: !found -> goto x_took
    :: else
    fi;
drain_again:
    STEP(wt[me] = DRAIN; est[me] = 0);
    STEP(chg[me] = 0);
#ifdef M_DRAIN_SLEEPS_WITHOUT_LOOK
    found = 1;
#else
    scan_cells();
#endif
    if
    :: !found -> goto x_took
    :: else -> found = 0
    fi;
    STEP(
        if
        :: !chg[me] -> slp[me] = 1
        :: else
        fi
    );
    if
    :: atomic { !slp[me] -> skip }
#ifndef M_DRAIN_NO_BACK_OUT
    :: atomic { slp[me] && tmo -> slp[me] = 0; goto back_out }
#endif
    DEATH_OPTION
    fi;
#ifdef M_DRAIN_SLEEPS_WITHOUT_LOOK
    scan_cells();
    if
    :: !found -> goto x_took
    :: else
    fi;
#endif
    goto drain_again;

#ifdef BIAS
back_out_biased: /* nobody has made the barrier: the next taker has to */
#ifdef UPDATES
    if
    :: upg -> goto back_to_update
    :: else
    fi;
#endif
#ifdef M_BIAS_BACKS_OUT_PLAIN
    rd = READ;
    STEP(word = word & ~BIASED);
#else
    rd = READ | BIASED;
#endif
    goto backing_out;
#endif
back_out: /* without having touched the sequence */
#ifdef UPDATES
    if
    :: upg -> goto back_to_update
    :: else
    fi;
#endif
#ifndef M_BACK_OUT_WITHOUT_READ
    rd = READ;
#else
    rd = 128; /* comes back here, adds nothing to the word */
#endif
backing_out:
    if
    :: queued -> STEP(wt[me] = 0; est[me] = 0)
    :: else
    fi;
    goto unlock_slow;
backed_out:
    rd = 0;
#ifndef M_BACK_OUT_WAKES_NO_READERS
    wake_readers();
#endif
#ifdef UPDATES
    if
#ifdef M_DOWNGRADE_FREES_FIRST
    :: tos -> STEP(cell[me] = 1); tos = 0; goto s_leave
#else
    :: tos -> tos = 0; goto s_leave
#endif
    :: else
    fi;
#endif
    goto begin;

#ifdef UPDATES
#include "update.pml"
#endif

x_took:
    STEP(wt[me] = 0; est[me] = 0);
x_taken:
    STEP(
        assert(xin == 0 && sinside == 0);
#ifdef UPDATES
        assert(uin == 0 || (uin == me + 1 && upg));
        uin = 0;
#endif
        assert(((word & DIED) != 0) == owed && (seq & 1) == owed);
        if
        :: toexit -> seq = (seq + 2) % 8
        :: else -> seq = ((seq & 1) -> (seq + 2) % 8 : (seq + 1) % 8)
        fi;
        xin = me + 1
    );
    found = 0; ok = 0;
#ifdef DATA
    if
    :: toexit /* protects no data */
    :: !toexit && owed -> STEP(d1 = d0)
    :: else -> STEP(d0 = 1 - d0); STEP(d1 = 1 - d1)
    fi;
#endif
    /* Told of a death: declares the data whole, or leaves that to another. */
    if
    :: !toexit ->
        do
        :: STEP(w = word);
            if
            :: w & DIED ->
                STEP(
                    CAS(w & ~DIED);
                    if
                    :: ok -> owed = 0
                    :: else
                    fi
                );
                if
                :: ok -> ok = 0; break
                :: else
                fi
            :: else -> break
            fi
        :: true -> break
        od
    :: toexit ->
        /* Its end is no unlock: the sequence becomes even before DIED goes. Whoever dies in between
         * leaves a word without DIED, and said before that the data is whole. */
        STEP(w = word);
        if
        :: w & DIED ->
#ifdef DATA
            STEP(d1 = d0);
#endif
#if !defined(M_EXIT_MARKS_WITHOUT_SEQUENCE) && !defined(M_EXIT_MARKS_SEQUENCE_LAST)
            STEP(seq = (seq + 1) % 8; owed = 0);
#endif
            do
            :: STEP(w = word; CAS(w & ~DIED); owed = 0); /* w is of this very step: it succeeds */
                if
                :: ok -> ok = 0; break
                :: else
                fi
            od;
#ifdef M_EXIT_MARKS_SEQUENCE_LAST
            STEP(seq = (seq + 1) % 8);
#endif
        :: else
        fi
    :: true
    fi;

#ifdef UPDATES
    if
    :: changes < CHANGES && !toexit -> changes++; goto x_down
    :: true
    fi;
#endif
leave_sequence:
    STEP(w = word; assert((w & ID) == me + 1));
    STEP(
        xin = 0;
        if
#ifdef M_UNLOCK_EVEN_IN_SPITE_OF_DIED
        :: seq & 1 -> seq = (seq + 1) % 8
#else
        :: (seq & 1) && (w & DIED) -> seq = (seq + 2) % 8
        :: (seq & 1) && !(w & DIED) -> seq = (seq + 1) % 8
#endif
        :: else
        fi
    );
#ifdef UPDATES
    if
    :: tos -> rd = READ; goto unlock_slow
    :: upd -> goto x_to_u
    :: else
    fi;
#endif
    w = me + 1;
    STEP(CAS(0));
    if
    :: ok -> goto begin
    :: else
    fi;

unlock_slow:
#ifdef UPDATES
#ifdef M_UPDATE_RELEASE_DROPS_READ
#define STAYS(w) ((w) & (DIED | BIASED))
#else
#define STAYS(w) ((w) & (DIED | BIASED | READ)) /* an owner in update mode leaves readers inside */
#endif
#define NOW_SHARED \
    if \
    :: ok && tos -> assert(xin == 0); sinside = sinside | ME_BIT \
    :: else \
    fi
#else
#define STAYS(w) ((w) & DIED)
#define NOW_SHARED skip
#endif
#ifdef M_UNLOCK_SCANS_FIRST
    scan_waits(0);
#endif
    STEP(w = word);
    if
    :: w & PARKED ->
        STEP(CAS(w & ~PARKED));
        if
        :: !ok -> goto unlock_slow
        :: else -> w = w & ~PARKED
        fi;
#ifdef M_UNLOCK_RETRY_FROM_SCAN
        goto unlock_scan
#elif defined(M_UNLOCK_SCANS_FIRST)
        skip
#else
        scan_waits(0)
#endif
    :: else /* nobody since the last scan, if there was one */
    fi;
    goto unlock_free;
#ifdef M_UNLOCK_RETRY_FROM_SCAN
unlock_scan:
    scan_waits(0);
#endif
unlock_free:
    STEP(
#ifdef M_UNLOCK_NEVER_FAIR
        CAS(STAYS(w) | (rd & (READ | BIASED)));
#elif defined(M_UNLOCK_LOSES_DIED)
        CAS((rd & (READ | BIASED)) | (o && imp -> (FAIR | PARKED) : 0));
#else
        CAS(STAYS(w) | (rd & (READ | BIASED)) | (o && imp -> (FAIR | PARKED) : 0));
#endif
        NOW_SHARED
    );
    if
    :: !ok ->
#ifdef M_UNLOCK_FORGETS_SCAN
        o = 0; imp = 0;
#endif
#ifdef M_UNLOCK_RETRY_FROM_SCAN
        o = 0; ol = 0; imp = 0; older = 0; writer = 0;
        STEP(w = word);
        goto unlock_scan
#else
        goto unlock_slow
#endif
    :: ok && o -> wake(o - 1)
    :: else
    fi;
    if
    :: rd -> o = 0; ol = 0; imp = 0; older = 0; writer = 0; goto backed_out
    :: else -> goto begin
    fi;

give_up:
    gave_up = 1;
#ifdef M_GIVE_UP_PASSES_FIRST
    pass_on();
    STEP(wt[me] = 0; est[me] = 0);
#else
    STEP(wt[me] = 0; est[me] = 0);
#ifdef M_GIVE_UP_PASSES_NOTHING
    goto begin;
#else
    goto passing_on;
#endif
#endif
    goto begin; /* ETIMEDOUT */

#include "reader.pml"

#ifdef DATA
optimistic:
    STEP(v = seq);
    if
    :: v & 1 -> goto begin
    :: else
    fi;
    STEP(o = d0);
    STEP(ot = d1);
    STEP(
        if
        :: seq == v -> assert(o == ot)
        :: else
        fi
    );
    goto begin;
#endif

crashed: /* the next session gets the slot once the repair has ended */
    atomic { true -> die() };
end_dead:
    atomic { dead[me] == 2 -> dead[me] = 0 };
    goto begin;

#if PAUSES
stop:
end_stopped:
    false;
#endif
done:
    skip
}
