/* SPDX-License-Identifier: MIT */
/* FUTEX_WAKE after the bump. Dying between the two equals dying before both: the sleeper sleeps on. */
inline wake(who)
{
    STEP(
        if
#ifdef M_WAKER_SENDS_NO_NUDGE
        :: BROKERED & (1 << (who)) -> chg[who] = 1
#else
        :: BROKERED & (1 << (who)) -> nudge[who] = 1
#endif
        :: else -> chg[who] = 1; slp[who] = 0
        fi
    )
}

/* Whoever waits or drains, in any mode. */
inline wake_all()
{
    j = 0;
    do
    :: j < N ->
        STEP(v = wt[j]);
        if
        :: v -> v = 0; wake(j)
        :: else
        fi;
        j++
    :: else -> break
    od;
    j = 0
}

inline wake_readers()
{
    j = 0;
    do
    :: j < N && j != me ->
        STEP(v = wt[j]);
        if
        :: WAITS_SHARED(v) -> v = 0; wake(j)
        :: else -> v = 0
        fi;
        j++
    :: j < N && j == me -> j++
    :: else -> break
    od;
    j = 0
}

#ifdef M_WORKER_REPAIR_WAKES_ONE
inline wake_first()
{
    j = 0;
    do
    :: j < N ->
        STEP(v = wt[j]);
        if
        :: v -> v = 0; wake(j); break
        :: else
        fi;
        j++
    :: else -> break
    od;
    j = 0
}
#endif

/* Fairness: a waiter that completed a look (est) is not passed over by a decision that began later.
 * A decision in flight may pass it: between a load of the word and its CAS the word may have been taken
 * and freed, so that it looks the same (FAIR and PARKED again). `before` has the waiters that count. */
#define COUNTS(i, any_mode) (i != me && est[i] && !pass[i] && (any_mode || (wt[i] & EXCL)))
#define AHEAD(i, any_mode) ((COUNTS(i, any_mode) && tick[i] < mytk) << i)
#if N == 3
#define EST_ANY(any_mode) (COUNTS(0, any_mode) || COUNTS(1, any_mode) || COUNTS(2, any_mode))
#define EST_AHEAD(any_mode) (AHEAD(0, any_mode) | AHEAD(1, any_mode) | AHEAD(2, any_mode))
#else
#define EST_ANY(any_mode) (COUNTS(0, any_mode) || COUNTS(1, any_mode))
#define EST_AHEAD(any_mode) (AHEAD(0, any_mode) | AHEAD(1, any_mode))
#endif
#if N == 3
#define UNESTABLISH est[me] = 0; before[0] = before[0] & ~ME_BIT; before[1] = before[1] & ~ME_BIT; \
                    before[2] = before[2] & ~ME_BIT
#else
#define UNESTABLISH est[me] = 0; before[0] = before[0] & ~ME_BIT; before[1] = before[1] & ~ME_BIT
#endif
#define CHECK_NOT_BARGED(any_mode) assert(!EST_ANY(any_mode))
#define CHECK_TURN(any_mode) assert(!(before[me] & EST_AHEAD(any_mode)))

/* Looks at all other waits, one by one. o: 1 + the oldest waiter; ol: it is LATE, so all are;
 * imp: an impatient one that is not LATE exists; older: one that is not LATE has a smaller ticket than
 * mine (and is a writer, if `writers_only`); writer: one that is not LATE wants X. */
inline scan_waits(writers_only)
{
    o = 0; ot = 0; ol = 0; imp = 0; older = 0; writer = 0;
    j = 0;
    do
    :: j < N && j != me ->
        STEP(v = wt[j]; vt = tick[j]);
        if
        :: v & WAIT ->
            STEP(
                vl = late[j];
                if
                :: o == 0 || (ol && !vl) || (ol == vl && vt < ot) -> o = j + 1; ot = vt; ol = vl
                :: else
                fi;
                if
                :: !vl ->
                    imp = imp || (v & IMPATIENT);
                    writer = writer || (v & EXCL);
                    older = older || (vt < mytk && (!(writers_only) || (v & EXCL)))
                :: else
                fi;
                vl = 0
            )
        :: else
        fi;
        v = 0; vt = 0;
        j++
    :: j < N && j == me -> j++
    :: else -> break
    od;
    j = 0; ot = 0
}

/* found: another attachment has its cell set. */
inline scan_cells()
{
    found = 0; j = 0;
    do
    :: j < N && j != me && !found -> STEP(found = cell[j]); j++
    :: j < N && j == me && !found -> j++
    :: else -> break
    od;
    j = 0
}

#ifdef BIAS
/* The owner of a word that shows BIASED: afterwards all cells are as their owners have left them, and
 * whoever has not looked yet sees the owner. membarrier(2), then the bit. */
inline barrier()
{
#ifdef M_BIAS_CLEARED_FIRST
    STEP(word = word & ~BIASED);
    STEP(FLUSH_ALL)
#else
#ifndef M_BIAS_NO_BARRIER
    STEP(FLUSH_ALL);
#endif
    STEP(word = word & ~BIASED)
#endif
}

/* Leaving without a fence while the word shows BIASED and nobody. True in `ok`: that was all. */
inline leave_biased()
{
    STEP(FLUSH(me); pend[me] = 1; pendv[me] = 0; sinside = sinside & ~ME_BIT);
    STEP(
        w = word;
#ifdef M_BIAS_LEAVES_WITHOUT_LOOK
        ok = 1
#else
        ok = IS_FREE(w) && (w & BIASED)
#endif
    );
    if
    :: !ok -> STEP(FLUSH(me))
    :: else
    fi
}
#endif

/* The double look of a reader: load the word again after the cell is empty, wake that owner. */
inline leave()
{
#ifdef BIAS
    STEP(FLUSH(me); cell[me] = 0; sinside = sinside & ~ME_BIT);
#else
    STEP(cell[me] = 0; sinside = sinside & ~ME_BIT);
#endif
    look_after_leaving()
}

inline look_after_leaving()
{
#ifdef M_BACK_OFF_WAKES_OWNER_SEEN
    if
    :: backing
    :: else -> STEP(w = word)
    fi;
#else
    STEP(w = word);
#endif
    if
    :: !IS_FREE(w) && (w & ID) != me + 1 ->
        STEP(v = wt[(w & ID) - 1]);
        if
        :: v & DRAIN -> v = 0; wake((w & ID) - 1)
        :: else -> v = 0
        fi
    :: else
    fi
}

inline pass_on()
{
    do
    :: true ->
#ifndef M_PASS_ON_LOADS_LATE
        STEP(w = word);
#endif
        scan_waits(0);
#ifdef M_PASS_ON_LOADS_LATE
        STEP(w = word);
#endif
#ifdef M_READER_WAKES_READERS
        if
        :: o && !excl && !gave_up ->
            STEP(v = wt[o - 1]);
            if
            :: (v & WAIT) && (v & EXCL) -> o = 0; v = 0; break
            :: else -> v = 0
            fi
        :: else
        fi;
#endif
        if
        :: o == 0 && IS_FREE(w) && (w & (FAIR | PARKED)) ->
            STEP(CAS(w & ~(FAIR | PARKED)));
            if
            :: ok -> ok = 0; break
            :: else
            fi
        :: o && IS_FREE(w) -> wake(o - 1); break
#ifndef M_PASS_ON_IGNORES_UNPARKED
        :: o && !IS_FREE(w) && !(w & PARKED) ->
            STEP(CAS(w | PARKED));
            if
            :: ok ->
                ok = 0;
#if defined(UPDATES) && !defined(M_UPDATE_PARKED_WITHOUT_READERS)
                if
                :: w & UPDATE -> wake_readers()
                :: else
                fi;
#endif
                break
            :: else
            fi
#endif
        :: else -> break
        fi
    od;
    o = 0; ol = 0; imp = 0; older = 0; writer = 0
}

/* Ghost: shared access begins. told: DIED was in the word that let me in. */
inline s_inside(whom_queued)
{
    assert(xin == 0);
    assert(((w & DIED) != 0) == owed);
    if
    :: !IS_FREE(w) /* in update mode: readers may always join */
    :: IS_FREE(w) && (whom_queued) -> CHECK_TURN(0)
    :: else -> CHECK_NOT_BARGED(0)
    fi;
    before[me] = 0;
    UNESTABLISH; /* in, though its wait still stands */
    sinside = sinside | ME_BIT
}
