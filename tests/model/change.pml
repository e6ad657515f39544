/* SPDX-License-Identifier: MIT */
/* A brokered hold changes its mode. Part of resume.pml, where UPDATES is defined. */
    /* ---- UPGRADE ---- */
upgrade:
#ifndef M_UPGRADES_ANEW
    if
    :: REPEATING && l_change[me] == id && l_stage[me] == UPGRADING -> goto idle /* answered when it ends */
    :: REPEATING && l_change[me] == id && l_stage[me] == HELD && HOLDS_EXCLUSIVE -> SAY(GRANTED); goto idle
    :: else
    fi;
#endif
    if
    :: l_request[me] < id && !v_waiting[me] && HOLDS_FOR_UPDATE
    :: else -> SAY(REFUSED); goto idle
    fi;
    STEP(l_change[me] = id);
#ifndef M_UPGRADE_NOTED_LATE
    STEP(l_stage[me] = UPGRADING);
#endif
upgrade_begins:
    STEP(word = word & ~(UPDATE | READ));
    STEP(wt[me] = DRAIN; est[me] = 0);
#ifdef M_UPGRADE_NOTED_LATE
    STEP(l_stage[me] = UPGRADING);
#endif
    v_waiting[me] = 1; v_draining[me] = 1;
    if
    :: adopting -> v_ready[me] = 1; goto idle
    :: else -> goto drain
    fi;

back_to_update:
    STEP(w = word);
    STEP(CAS(w | UPDATE | READ));
    if
    :: !ok -> goto back_to_update
    :: else -> ok = 0
    fi;
    if
    :: w & PARKED -> wake_readers()
    :: else
    fi;
    v_waiting[me] = 0; v_draining[me] = 0; gave_up = 0;
    SAY(TIMED_OUT);
    STEP(l_stage[me] = HELD);
    goto idle;

adopt_upgrade:
    if
    :: HOLDS_FOR_UPDATE -> goto upgrade_begins /* not begun, or given up, and nobody was told */
    :: else
    fi;
#ifndef M_RESUMED_UPGRADE_IS_INSIDE
    if
    :: (seq & 1) && !(word & DIED) -> skip
    :: else -> STEP(wt[me] = DRAIN; est[me] = 0); v_waiting[me] = 1; v_draining[me] = 1; v_ready[me] = 1; goto idle
    fi;
#endif
    if
    :: wt[me] -> STEP(wt[me] = 0; est[me] = 0)
    :: else
    fi;
    goto granted;

    /* ---- DOWN_U, DOWN_S ---- */
downgrade:
#ifndef M_DOWNGRADES_ANEW
    if
    :: REPEATING && l_change[me] == id && (kind == DOWN_U -> HOLDS_FOR_UPDATE : ((word & ID) != me + 1 && cell[me])) ->
        SAY(DONE); goto idle
    :: else
    fi;
#endif
    if
    :: l_request[me] < id && !v_waiting[me] && (HOLDS_EXCLUSIVE || (kind == DOWN_S && HOLDS_FOR_UPDATE))
    :: else -> SAY(REFUSED); goto idle
    fi;
#ifndef M_CHANGE_NOTED_LATE
    STEP(l_change[me] = id);
#endif
    if
    :: kind == DOWN_S -> STEP(cell[me] = 1)
    :: else
    fi;
    STEP(
        if
        :: (seq & 1) && (word & DIED) -> seq = (seq + 2) % 8
        :: (seq & 1) && !(word & DIED) -> seq = (seq + 1) % 8
        :: else
        fi
    );
    if
    :: kind == DOWN_S -> rd = READ; goto free_word
    :: else
    fi;
becomes_update:
    STEP(w = word);
    STEP(CAS(w | UPDATE));
    if
    :: !ok -> goto becomes_update
    :: else -> ok = 0
    fi;
    if
    :: w & PARKED -> wake_readers()
    :: else
    fi;
#ifdef M_CHANGE_NOTED_LATE
    STEP(l_change[me] = id);
#endif
    SAY(DONE);
    goto idle;
