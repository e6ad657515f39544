/* SPDX-License-Identifier: MIT */
/* What a successor does with what an earlier worker has left. Part of resume.pml. */
    /* ---- a successor ---- */
crashed:
    atomic {
        successors++;
        forget(0); forget(1);
#if N == 3
        forget(2);
#endif
#ifdef M_FORGETS_THE_DEAD
        dead[0] = (dead[0] == 1 -> 2 : dead[0]);
        dead[1] = (dead[1] == 1 -> 2 : dead[1]);
#endif
        adopting = 1; i = 0; goto idle
    };
adopt_next: /* attempts first, then the wakes that are owed, then RESUMED */
    do
#ifdef M_ADOPTS_ONE
    :: i < N && DRIVEN(i) && dead[i] == 0 -> me = i; i = N; goto adopt
#else
    :: i < N && DRIVEN(i) && dead[i] == 0 -> me = i; i++; goto adopt
#endif
    :: i < N && !(DRIVEN(i) && dead[i] == 0) -> i++
    :: else -> break
    od;
#ifndef M_WAKES_NOBODY
    wake_all();
#endif
    i = 0;
    do
    :: i < N && SENDS_RESUMED(i) -> v_out[i]!RESUMED, successors; i++
    :: i < N && !SENDS_RESUMED(i) -> i++
    :: else -> break
    od;
    i = 0; adopting = 0;
    goto idle;

adopt:
    excl = (l_mode[me] != ACQUIRE_S); id = ID_OF_STAGE; mytk = tick[me];
#ifndef M_ADOPTS_WITHOUT_PARKED
    if /* an unlock may have cleared it for a scan that was not made */
    :: (word & ID) == me + 1 -> STEP(word = word | PARKED)
    :: else
    fi;
#endif
    if
    :: l_stage[me] == HELD && (word & ID) != me + 1 && !cell[me] -> STEP(l_stage[me] = NONE); goto idle
    :: l_stage[me] == TRYING
#ifdef UPDATES
    :: l_stage[me] == UPGRADING -> goto adopt_upgrade
#endif
    :: else -> goto idle
    fi;
#ifdef M_FORGETS_ATTEMPT
    STEP(l_stage[me] = NONE);
    goto idle;
#endif
    STEP(w = word);
    if
#ifdef UPDATES
    :: IS_UPDATE && (w & ID) == me + 1 -> goto inside_for_update /* told or not, this hold has a later token */
#endif
    :: excl && !IS_UPDATE && (w & ID) == me + 1 ->
#ifndef M_RESUMED_OWNER_IS_INSIDE
        if
        :: (seq & 1) && !(w & DIED) -> skip
        :: else -> STEP(wt[me] = DRAIN; est[me] = 0); v_waiting[me] = 1; v_draining[me] = 1; v_ready[me] = 1; goto idle
        fi;
#endif
        if
        :: wt[me] -> STEP(wt[me] = 0; est[me] = 0)
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
    :: wt[me] -> STEP(wt[me] = 0; est[me] = 0)
    :: else
    fi;
    STEP(l_stage[me] = NONE);
    goto idle
