/* SPDX-License-Identifier: MIT */
/* A client that locks through the worker. With PIPELINE its next ACQUIRE goes out behind a RELEASE that is
 * not answered yet, with ONEWAY behind one that never is. Then it may sleep for ever after its last release: it
 * reads nothing any more, RESUMED neither. */
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
    :: (kind == BUSY || kind == TIMED_OUT) && id == acquire -> acquire = 0; due[me] = 0; goto next
    :: kind == GRANTED && id == acquire -> goto holds
    :: else -> assert(id < last || (id != acquire && id != release)); assert(kind != REFUSED)
    fi;
    goto await;
holds:
    atomic {
        assert(xin == 0 && (what == ACQUIRE_S || sinside == 0));
        assert(what == ACQUIRE_S -> cell[me] : (word & ID) == me + 1);
        acquire = 0; due[me] = 0;
        if
        :: what == ACQUIRE_S -> sinside = sinside | ME_BIT
        :: else -> xin = me + 1
        fi
    };
    atomic {
        assert(what == ACQUIRE_S -> cell[me] : (word & ID) == me + 1); /* it still has what it was told */
        sinside = sinside & ~ME_BIT;
        xin = (xin == me + 1 -> 0 : xin);
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
