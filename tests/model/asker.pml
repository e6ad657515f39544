/* SPDX-License-Identifier: MIT */
/* A client that locks through the worker. With PIPELINE its next ACQUIRE goes out behind a RELEASE that is
 * not answered yet, with ONEWAY behind one that never is. Then it may sleep for ever after its last release: it
 * reads nothing any more, RESUMED neither. */
#ifdef UPDATES
#define CHANGE change
#else
#define CHANGE 0
#endif
proctype asker(byte me)
{
    byte rounds = (me == 0 -> ROUNDS0 : (me == 1 -> ROUNDS1 : ROUNDS2));
    byte last, acquire, release, id; /* ids; acquire and release: what is not answered */
    mtype what, kind;
#ifdef UPDATES
    byte change, changes; /* of the mode: what is not answered, and how many of this hold */
    mtype how;
#endif

next:
    if
    :: rounds == 0 -> goto await
    :: rounds > 0 && OPS & OP_X -> what = ACQUIRE_X
    :: rounds > 0 && OPS & OP_S -> what = ACQUIRE_S
#ifdef UPDATES
    :: rounds > 0 && OPS & OP_U -> what = ACQUIRE_U
#endif
    :: rounds > 0 && OPS & OP_TRYX -> what = TRY_X
    fi;
    atomic {
        rounds--; last++; acquire = last; let_go[me] = 0; request[me]!what, acquire;
#if TIMEOUTS
        if
        :: what != TRY_X && timeouts > 0 && (TIMED & ME_BIT) -> timeouts--; due[me] = 1
        :: !(ALWAYS_TIMED & ME_BIT)
        fi
#endif
    };
await:
    if
    :: atomic { acquire || release || CHANGE; reply[me]?kind, id }
    :: atomic { !acquire && !release && !CHANGE -> goto done }
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
#ifdef UPDATES
            ;
            if
            :: change -> request[me]!how, change
            :: else
            fi
#endif
        }
    :: kind == DONE && id == release ->
        release = 0;
        if
        :: acquire == 0 -> goto next
        :: else
        fi
    :: (kind == BUSY || kind == TIMED_OUT) && id == acquire -> acquire = 0; due[me] = 0; goto next
    :: kind == GRANTED && id == acquire -> goto holds
#ifdef UPDATES
    :: id == change && (kind == GRANTED || kind == TIMED_OUT || kind == DONE) -> goto changed
#endif
    :: else -> assert(id < last || (id != acquire && id != release && !(CHANGE && id == CHANGE)));
        assert(kind != REFUSED)
    fi;
    goto await;
holds:
    atomic {
        assert(xin == 0 && (what == ACQUIRE_S || what == ACQUIRE_U || sinside == 0));
        assert(what == ACQUIRE_S -> cell[me] : (word & ID) == me + 1);
        acquire = 0; due[me] = 0;
        if
        :: what == ACQUIRE_S -> sinside = sinside | ME_BIT
#ifdef UPDATES
        :: what == ACQUIRE_U -> assert(uin == 0); uin = me + 1
#endif
        :: else -> xin = me + 1
        fi
    };
#ifdef UPDATES
decides:
    if
    :: changes < CHANGES && what == ACQUIRE_U -> how = UPGRADE
    :: changes < CHANGES && what == ACQUIRE_X -> how = DOWN_U
    :: changes < CHANGES && (what == ACQUIRE_X || what == ACQUIRE_U) -> how = DOWN_S
    :: true -> goto lets_go
    fi;
    atomic {
        changes++; last++; change = last; request[me]!how, change;
        if /* from here on the others may have come in, whoever knows of it */
        :: how == DOWN_U -> xin = 0; uin = me + 1
        :: how == DOWN_S -> xin = (xin == me + 1 -> 0 : xin); uin = (uin == me + 1 -> 0 : uin); sinside = sinside | ME_BIT
        :: else
#if TIMEOUTS
            ;
            if
            :: timeouts > 0 && (TIMED & ME_BIT) -> timeouts--; due[me] = 1
            :: !(ALWAYS_TIMED & ME_BIT)
            fi
#endif
        fi
    };
    goto await;
changed:
    atomic {
        change = 0; due[me] = 0;
        if
        :: how == UPGRADE && kind == GRANTED ->
            assert((word & ID) == me + 1 && !(word & UPDATE) && xin == 0 && sinside == 0 && uin == me + 1);
            uin = 0; xin = me + 1; what = ACQUIRE_X
        :: how == UPGRADE && kind == TIMED_OUT ->
            assert((word & ID) == me + 1 && (word & UPDATE))
        :: how == DOWN_U -> assert((word & ID) == me + 1 && (word & UPDATE)); what = ACQUIRE_U
        :: how == DOWN_S -> assert((word & ID) != me + 1 && cell[me]); what = ACQUIRE_S
        fi
    };
    goto decides;
lets_go:
    changes = 0;
#endif
    atomic {
        assert(what == ACQUIRE_S -> cell[me] : (word & ID) == me + 1); /* it still has what it was told */
        sinside = sinside & ~ME_BIT;
        xin = (xin == me + 1 -> 0 : xin);
#ifdef UPDATES
        uin = (uin == me + 1 -> 0 : uin);
#endif
        last++;
#ifdef ONEWAY
        let_go[me] = 1; request[me]!ONE_WAY, last
#else
        release = last; request[me]!RELEASE, release
#endif
    };
#if defined(PIPELINE) || defined(ONEWAY)
    goto next;
#else
    goto await;
#endif

crashed:
    atomic {
        dead[me] = 1;
        sinside = sinside & ~ME_BIT;
        xin = (xin == me + 1 -> 0 : xin);
        est[me] = 0; pass[me] = 0; before[me] = 0; due[me] = 0;
#ifdef UPDATES
        change = 0; uin = (uin == me + 1 -> 0 : uin);
#endif
        acquire = 0; release = 0; rounds = 0
    };
done:
#ifdef ONEWAY
end_asleep:
    if
#if DEATHS
    :: atomic { dead[me] == 0 && MAY_DIE -> deaths--; goto crashed }
#endif
    :: false
    fi;
#endif
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
