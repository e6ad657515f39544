/* SPDX-License-Identifier: MIT */
/* Update mode: the owner of the word, beside readers. Part of client.pml, where UPDATES is defined. */
u_took:
    STEP(wt[me] = 0; est[me] = 0);
u_taken: /* the sequence stays as even or odd as it was, and names this hold */
    STEP(
        assert(xin == 0 && uin == 0);
        assert(((word & DIED) != 0) == owed && (seq & 1) == owed);
        seq = (seq + 2) % 8;
        uin = me + 1
    );
    /* Sleepers behind PARKED: those of them that read may come in. */
    if
#ifndef M_UPDATE_TAKEN_WITHOUT_READERS
    :: queued || (w & PARKED) -> wake_readers()
#endif
    :: else
    fi;
u_inside:
#ifdef AWAITS_READERS
    /* Holds until nobody waits to read: a reader that sleeps now is never woken. */
    if
    :: atomic { NOBODY_WAITS_TO_READ -> skip }
    DEATH_OPTION
    fi;
#endif
    if
    :: changes < CHANGES -> changes++; goto upgrade
    :: changes < CHANGES -> changes++; trying = 1; goto upgrade
    :: changes < CHANGES -> tos = 1; goto to_shared
    :: true
    fi;
u_leave:
    STEP(
        assert((word & ID) == me + 1 && uin == me + 1);
        uin = 0;
        if
        :: seq & 1 -> seq = (seq + 2) % 8
        :: else
        fi
    );
    upd = 0;
    goto unlock_slow;

upgrade:
    STEP(w = word);
    if
    :: trying && (w & READ) -> /* seen before the word is touched: readers notice nothing */
        scan_cells();
        if
        :: found -> found = 0; goto u_leave /* EBUSY */
        :: else
        fi
    :: else
    fi;
upgrade_word:
#ifdef M_UPGRADE_KEEPS_UPDATE
    STEP(CAS(w & ~READ));
#else
    STEP(CAS(w & ~(UPDATE | READ)));
#endif
    if
    :: !ok -> STEP(w = word); goto upgrade_word
    :: else -> ok = 0
    fi;
    upd = 0; upg = 1;
#ifdef BIAS
    if
    :: (w & BIASED) && !trying -> goto drain
    :: (w & BIASED) && trying -> barrier(); w = w | READ
    :: (w & BIASED) && trying && (BARRIERLESS & ME_BIT) -> goto back_to_update
    :: else
    fi;
#endif
    if
#ifdef M_UPGRADE_NO_DRAIN
    :: true -> goto x_taken
#else
    :: (w & READ) && !trying -> goto drain
    :: (w & READ) && trying ->
        scan_cells();
        if
        :: found -> found = 0; goto back_to_update
        :: else -> goto x_taken
        fi
    :: else -> goto x_taken
#endif
    fi;

back_to_update: /* the readers stay; those that came meanwhile join them */
    STEP(wt[me] = 0; est[me] = 0);
back_to_update_word:
    STEP(w = word);
#ifdef M_UPGRADE_BACKS_OUT_WITHOUT_READ
    STEP(CAS(w | UPDATE));
#else
    STEP(CAS(w | UPDATE | READ));
#endif
    if
    :: !ok -> goto back_to_update_word
    :: else -> ok = 0
    fi;
    upd = 1; upg = 0; trying = 0;
    goto now_update;

x_down: /* after it has written */
    if
    :: upd = 1; goto leave_sequence
    :: tos = 1; goto to_shared
    fi;
x_to_u:
    STEP(w = word);
    STEP(
        CAS(w | UPDATE);
        if
        :: ok -> uin = me + 1
        :: else
        fi
    );
    if
    :: !ok -> goto x_to_u
    :: else -> ok = 0
    fi;
    upg = 0;
now_update:
    if
#ifndef M_DOWNGRADE_WAKES_NO_READERS
    :: w & PARKED -> wake_readers()
#endif
    :: else
    fi;
    goto u_inside;

to_shared: /* the cell first: the word is free from its CAS on */
#ifndef M_DOWNGRADE_FREES_FIRST
#ifdef BIAS
    STEP(FLUSH(me); cell[me] = 1);
#else
    STEP(cell[me] = 1);
#endif
#endif
    if
    :: upd -> upd = 0; STEP(uin = 0; if :: seq & 1 -> seq = (seq + 2) % 8 :: else fi); rd = READ; goto unlock_slow
    :: else -> goto leave_sequence
    fi;
