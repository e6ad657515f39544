/* SPDX-License-Identifier: MIT */
/* Shared holds, with a fence and without. Part of client.pml. */
    /* ---- shared ---- */
s_try:
    mytk = 255;
    STEP(w = word; before[me] = EST_AHEAD(0));
    if
    :: !IS_OPEN(w) -> goto begin
    :: IS_FREE(w) && (w & FAIR) ->
        scan_waits(0);
        if
        :: writer -> goto begin
        :: else -> o = 0; ol = 0; imp = 0; older = 0
        fi
    :: else
    fi;
    trying = 1; /* EBUSY instead of waiting */
    goto s_enter;

s_fast:
#ifdef BIAS
    if
    :: goto s_biased /* whatever the word is */
    :: true
    fi;
#endif
s_enter:
#ifdef BIAS
    STEP(FLUSH(me); cell[me] = 1);
#else
    STEP(cell[me] = 1);
#endif
s_load:
    STEP(
        w = word;
        if
        :: IS_OPEN(w) && (w & READ) && (queued || trying || !(w & (FAIR | DIED))) ->
            s_inside(queued || trying)
        :: else
        fi
    );
    if
    :: sinside & ME_BIT -> goto s_in
    :: !(sinside & ME_BIT) && (!IS_OPEN(w) || (!queued && !trying && (w & (FAIR | DIED)))) ->
        backing = 1;
        before[me] = 0;
        goto s_leave
    :: else
    fi;
    STEP(
        CAS(w | READ);
        if
        :: ok -> s_inside(queued || trying)
        :: else
        fi
    );
    if
    :: !ok -> goto s_load
    :: else
    fi;
s_in:
    ok = 0;
#ifdef BIAS
    if
    :: atomic { biases > 0 -> biases-- };
        STEP(w = word);
        if
        :: IS_FREE(w) && (w & READ) && !(w & (BIASED | DIED | FAIR | PARKED)) -> STEP(CAS(w | BIASED))
        :: else
        fi;
        ok = 0
    :: true
    fi;
#endif
    if
    :: queued ->
        STEP(wt[me] = 0; est[me] = 0);
#ifdef M_READER_PASSES_NOTHING
        goto s_leave
#else
        goto passing_on
#endif
    :: trying && (w & (FAIR | PARKED)) -> goto passing_on
    :: else -> goto s_leave
    fi;
passing_on:
    pass_on();
    if
    :: gave_up -> goto begin /* ETIMEDOUT */
    :: else
    fi;
s_leave:
#ifdef BIAS
    if
    :: !backing ->
        leave_biased();
        if
        :: ok -> ok = 0; goto begin
        :: else -> look_after_leaving(); goto begin
        fi
    :: true
    fi;
#endif
    leave();
    if
    :: backing && queued -> backing = 0; goto look
    :: backing && !queued && !trying -> backing = 0; goto wait
    :: else -> goto begin /* released, or EBUSY */
    fi;

#ifdef BIAS
s_biased: /* no fence: only a free word that shows BIASED after the store says that we are inside */
    STEP(FLUSH(me); pend[me] = 1; pendv[me] = 1);
    STEP(
        w = word;
        if
#ifdef M_BIAS_TRUSTS_READ
        :: IS_FREE(w) && (w & READ) && !(w & (FAIR | DIED)) -> s_inside(0)
#elif defined(M_BIAS_TRUSTS_OWNED)
        :: (w & BIASED) && !(w & (FAIR | DIED)) -> s_inside(0)
#else
        :: IS_FREE(w) && (w & BIASED) && !(w & (FAIR | DIED)) -> s_inside(0)
#endif
        :: else
        fi
    );
    if
    :: sinside & ME_BIT -> goto s_in
    :: else
    fi;
#ifdef M_BIAS_NO_SECOND_LOAD
    STEP(FLUSH(me));
    if
    :: IS_FREE(w) && (w & READ) && !(w & (FAIR | DIED)) -> STEP(s_inside(0)); goto s_in
    :: else
    fi;
#endif
#ifdef M_BIAS_GOES_ON_WITHOUT_FENCE
    goto s_load;
#else
    goto s_enter;
#endif
#endif
