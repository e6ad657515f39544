/* SPDX-License-Identifier: MIT */
#ifdef M_BIAS_REPAIR_DROPS
#define KEPT_BIAS 0
#else
#define KEPT_BIAS (w & BIASED)
#endif

#if DEATHS
/* The broker: repairs after each death. me == N stands for it in the steps it shares with clients. */
proctype broker()
{
    byte me = N;
    byte i, w, v, vt, mytk, o, ot, j, rd;
    bit vl, ol, imp, older, writer, ok;
    bit woke, looked;
    byte early_looks = EARLY_LOOKS;

crashed: /* a new worker knows nothing: it starts over */
end_idle:
    atomic { w = 0; v = 0; vt = 0; o = 0; ot = 0; j = 0; vl = 0; ol = 0; imp = 0; older = 0; writer = 0;
             ok = 0; i = 0; woke = 0;
             looked = 0 };
end_wait:
    if
    :: early_looks > 0 -> early_looks--; STEP(w = word); looked = 1; goto end_wait
    :: dead[0] == 1 -> i = 0
    :: dead[1] == 1 -> i = 1
#if N == 3
    :: dead[2] == 1 -> i = 2
#endif
    fi;
    STEP(wt[i] = 0; late[i] = 0);
    STEP(cell[i] = 0);
repair_word:
    if
    :: looked && (w & ID) == i + 1 -> looked = 0
    :: else -> looked = 0; STEP(w = word)
    fi;
    if
    :: (w & ID) == i + 1 ->
#ifdef M_REPAIR_DERIVES_FAIR
        if
        :: w & PARKED -> scan_waits(0)
        :: else
        fi;
#else
        imp = 1; /* no look at the waits: whoever publishes now may find PARKED set and leave no trace */
#endif
        STEP(rd = seq & 1);
        STEP(
#ifdef M_REPAIR_WITHOUT_READ
            CAS(PARKED | (rd -> DIED : 0) | (imp -> FAIR : 0));
#elif defined(M_REPAIR_BY_STORE)
            word = READ | PARKED | (rd -> DIED : 0) | (imp -> FAIR : 0);
            ok = 1;
#elif defined(M_REPAIR_WITHOUT_DIED)
            CAS(READ | PARKED | (imp -> FAIR : 0));
#else
            CAS(READ | PARKED | (rd -> DIED : 0) | (imp -> FAIR : 0) | KEPT_BIAS);
#endif
        );
        rd = 0; o = 0; ol = 0; imp = 0; older = 0; writer = 0;
        if
        :: !ok -> w = 0; goto repair_word
        :: else -> ok = 0
        fi
    :: else
    fi;
#ifdef M_SLOT_REUSED_BEFORE_WAKES
    STEP(dead[i] = 2);
#endif
    j = 0;
    do
    :: j < N ->
        STEP(v = wt[j]);
        if
#ifdef M_REPAIR_WAKES_ONE
        :: v && !woke -> v = 0; woke = 1; wake(j)
#else
        :: v -> v = 0; wake(j)
#endif
        :: else
        fi;
        v = 0;
        j++
    :: else -> break
    od;
#ifndef M_SLOT_REUSED_BEFORE_WAKES
    STEP(dead[i] = 2);
#endif
    goto end_idle
}
#endif

#if BROKERED
/* The broker's loop receives nudges and runs the next step of the attachment they are for. */
proctype nudged()
{
end_idle:
    do
    :: atomic { nudge[0] -> nudge[0] = 0; chg[0] = 1; slp[0] = 0 }
    :: atomic { nudge[1] -> nudge[1] = 0; chg[1] = 1; slp[1] = 0 }
#if N == 3
    :: atomic { nudge[2] -> nudge[2] = 0; chg[2] = 1; slp[2] = 0 }
#endif
    od
}
#endif

#if PAUSES
/* Naps, for scenarios with stopped clients only: when nothing else can run, all naps of the waiters
 * end. How often that may happen is the price of somebody's stop. */
proctype clock()
{
end_idle:
    do
    :: atomic {
        timeout && (slp[0] && !stopped[0] || slp[1] && !stopped[1]
#if N == 3
                    || slp[2] && !stopped[2]
#endif
        ) ->
        ticks++;
        assert(ticks <= TICKS);
        nap_over[0] = slp[0]; nap_over[1] = slp[1];
#if N == 3
        nap_over[2] = slp[2]
#endif
    }
    od
}
#endif
