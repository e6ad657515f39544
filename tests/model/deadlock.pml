/* SPDX-License-Identifier: MIT */
/* The search for deadlocks (broker/core/wait_graph.c) over locks that are one step each: the lock protocol is
 * verified in lock.pml. N clients take locks, one inside the other; a waiter that holds something asks
 * once it has published its wait. The search reads one fact per step, and looks at a ring twice.
 *
 * In a ring (default) client i takes lock i and then lock i + 1, twice with ROUNDS=2; with ORDERED everybody
 * takes the lower lock first, so that any refusal is a false alarm. With ASYNC the first lock is acquired
 * asynchronously: the broker grants it at any time, and its client, which waits for the second, does not know.
 * Such a ring is closed by a grant, after everybody has asked: so a waiter asks again with its naps, which end
 * here when nothing else moves. A wait has a number, as a ticket has, and a lock has a sequence. A ring that
 * nobody finds is an invalid end state.
 *
 * With ONEWAY (two clients) all waits are asynchronous. A client may give its first lock up while it waits for the
 * second, by a release in its socket that the broker reads later; until then the lock says that it is held. The first
 * client (with BOTH_CANCEL each) may also cancel its wait, once, and begin another, and send another request. A ring
 * is then put off while one of its clients has something unread, and refused only if it was one: when it was seen
 * last, or when that very ring was seen first. */

#ifndef N
#define N 2
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#define NOBODY 15
#ifdef M_FOLLOWS_TWO_EDGES
#define LONGEST 2
#else
#define LONGEST N
#endif

byte owner[N];     /* 1 + its client, 0: free */
byte sequence[N];
byte waits[N];     /* 1 + the lock that client i waits for, 0: none */
byte ticket[N];    /* stored with waits[i]: both are one atomic */
byte refused[N];   /* ticket of the wait that was refused last; known to the broker alone */
bit asks[N];       /* DEADLOCK_CHECK, under way to the broker */
bit answered[N];
bit loses[N];      /* the answer */
#ifdef ONEWAY
bit unread[N];     /* the release of the first lock of client i lies in its socket */
bit other[N];      /* so does another request, before it */
bit in_doubt[N];   /* a ring that client i asked about was put off; known to the broker alone, as is what follows */
byte doubted[4];   /* by 2 * i and + 1: the numbers of its waits */
byte doubted_holds[4];
bit heard[4];      /* by 2 * i + j: client j had nothing unread at some time since then */
bit was_true[N];   /* ghost: it was a ring then */
#define KEEPS(i) !unread[i]
#define IS_FIRST_DOUBTED (doubted[2 * asker] == numbers[0] && doubted_holds[2 * asker] == holds[0])
#define IS_SECOND_DOUBTED (doubted[2 * asker + 1] == numbers[1] && doubted_holds[2 * asker + 1] == holds[1])
#define IS_DOUBTED (in_doubt[asker] && IS_FIRST_DOUBTED && IS_SECOND_DOUBTED)
#ifdef M_DOUBT_OF_ANY_RING
#define IS_ANOTHER_DOUBT !in_doubt[asker]
#else
#define IS_ANOTHER_DOUBT true
#endif
#ifdef M_BELIEVES_THE_UNREAD
#define MAY_BE_OVER(j) false
#else
#define MAY_BE_OVER(j) (!heard[2 * asker + (j)] && (unread[j] || other[j]))
#endif
#else
#define KEEPS(i) true
#endif
#ifdef ASYNC
bit pending[N];    /* asynchronous acquire of lock i by client i, first in the queue */
#define FREE(lock) (owner[lock] == 0 && !pending[lock])
#ifdef M_ASKS_ONCE
#define NAPS 0
#else
#define NAPS 2     /* of each wait */
#endif
#else
#define FREE(lock) (owner[lock] == 0)
#endif
#ifdef M_ASKS_ONLY_WHAT_IT_KNOWS
#define ASKS(second) false
#else
#define ASKS(second) (second)
#endif

#ifdef ORDERED
#define FIRST(i) ((i) == N - 1 -> 0 : (i))
#define SECOND(i) ((i) == N - 1 -> N - 1 : (i) + 1)
#else
#define FIRST(i) (i)
#define SECOND(i) (((i) + 1) % N)
#endif

/* Ghost: the ring is closed by waits that nobody has been refused. */
#define BLOCKED(i) (waits[i] && owner[waits[i] - 1] && refused[i] != ticket[i])
#define NEXT(i) (owner[waits[i] - 1] - 1)
#define IS_RING_OF_TWO \
    (BLOCKED(0) && BLOCKED(1) && NEXT(0) == 1 && NEXT(1) == 0 && KEEPS(0) && KEEPS(1))

#ifdef ONEWAY
#ifdef BOTH_CANCEL
#define MAY_CANCEL(i) true
#else
#define MAY_CANCEL(i) ((i) == 0)
#endif
#define GIVE_UP_FIRST(me) \
    if \
    :: gone \
    :: else -> atomic { owner[FIRST(me)] = 0; sequence[FIRST(me)]++ } \
    fi
#else
#define GIVE_UP_FIRST(me) atomic { owner[FIRST(me)] = 0; sequence[FIRST(me)]++ }
#endif

proctype client(byte me)
{
    byte rounds = ROUNDS, wanted;
#ifdef ASYNC
    byte naps;
#endif
#ifdef ONEWAY
    byte cancels = (MAY_CANCEL(me) -> 1 : 0);
    bit gone; /* the first lock, one-way */
    bit said = !MAY_CANCEL(me); /* the other request */
#endif
    bit second;

begin:
    if
    :: rounds == 0 -> goto done
    :: else -> rounds--; second = 0; wanted = FIRST(me)
    fi;
#ifdef ONEWAY
    atomic { !unread[me] -> gone = 0 }; /* what it sends now comes behind that */
#endif
#ifdef ASYNC
    atomic { pending[me] = 1; second = 1; wanted = SECOND(me); naps = NAPS };
#endif
take:
    if
    :: atomic { FREE(wanted) -> owner[wanted] = me + 1; sequence[wanted]++; goto taken }
    :: atomic { !FREE(wanted) -> skip }
    fi;
#ifdef M_ASKS_BEFORE_PUBLICATION
    if
    :: second -> asks[me] = 1; answered[me]; atomic { answered[me] = 0; loses[me] = 0 }
    :: else
    fi;
#endif
    atomic { waits[me] = wanted + 1; ticket[me]++ };
#ifndef M_ASKS_BEFORE_PUBLICATION
    if
    :: ASKS(second) -> asks[me] = 1
    :: else
    fi;
#endif
wait: /* takes the word in one step, and takes its wait back in another */
    if
    :: atomic { answered[me] ->
        answered[me] = 0;
        if
        :: loses[me] -> loses[me] = 0; goto lose
        :: else -> goto wait
        fi }
    :: atomic { FREE(wanted) -> owner[wanted] = me + 1; sequence[wanted]++ }
#ifdef ASYNC
    :: atomic { timeout && ASKS(second) && naps > 0 -> naps--; asks[me] = 1; goto wait }
#endif
#ifdef ONEWAY
    :: atomic { second && !said && !gone -> said = 1; other[me] = 1; goto wait }
    :: atomic { second && !gone -> gone = 1; unread[me] = 1; goto wait }
    :: atomic { second && !gone && cancels > 0 -> cancels--; waits[me] = 0 };
        if
        :: asks[me] || answered[me] -> answered[me]; atomic { answered[me] = 0; loses[me] = 0 }
        :: else
        fi;
        goto take
#endif
    fi;
    waits[me] = 0;
    if /* the answer comes in any case, and is too late */
    :: asks[me] || answered[me] -> answered[me]; atomic { answered[me] = 0; loses[me] = 0 }
    :: else
    fi;
taken:
    if
    :: !second -> second = 1; wanted = SECOND(me); goto take
#ifdef ASYNC
    :: else -> atomic { !pending[me] -> owner[wanted] = 0; sequence[wanted]++ }
#else
    :: else -> atomic { owner[wanted] = 0; sequence[wanted]++ }
#endif
    fi;
    GIVE_UP_FIRST(me);
    goto begin;
lose:
    waits[me] = 0;
#ifdef ASYNC
    if
    :: atomic { pending[me] -> pending[me] = 0; goto begin } /* cancelled */
    :: atomic { !pending[me] -> skip }
    fi;
#endif
    GIVE_UP_FIRST(me);
    goto begin;
done:
    skip
}

/* One edge: the wait of `from`, then owner and sequence of the lock. to: NOBODY if it does not wait. */
inline look_at(from)
{
    to = NOBODY;
    atomic { lock = waits[from]; number = ticket[from] };
#ifdef M_REFUSED_WAIT_IS_AN_EDGE
    if
    :: lock ->
#else
    if
    :: lock && (refused[from] != number || from == asker) ->
#endif
        holder = owner[lock - 1];
        held = sequence[lock - 1];
        if
        :: holder && holder != from + 1 -> to = holder - 1
        :: else
        fi
    :: else
    fi
}

#ifdef M_DOUBT_IS_FORGOTTEN
#define PUT_OFF asks[asker] = 0; goto end_idle
#else
#define PUT_OFF goto end_idle /* still asked */
#endif
#define HEAR(j) unread[j] = 0; owner[FIRST(j)] = 0; sequence[FIRST(j)]++
#define NOTE_QUIET(j) \
    if \
    :: !unread[j] -> heard[j] = 1; heard[2 + (j)] = 1 \
    :: else \
    fi

proctype broker()
{
    byte asker, at, to, lock, number, holder, held, count, i;
    byte ring[N], locks[N], numbers[N], holds[N];
    bit found;
#ifdef ONEWAY
    bit is_true; /* ghost: it is a ring */
#endif

end_idle:
    atomic {
        at = 0; to = 0; lock = 0; number = 0; holder = 0; held = 0; count = 0; i = 0; found = 0;
        ring[0] = 0; ring[1] = 0; locks[0] = 0; locks[1] = 0; numbers[0] = 0; numbers[1] = 0;
        holds[0] = 0; holds[1] = 0;
#if N == 3
        ring[2] = 0; locks[2] = 0; numbers[2] = 0; holds[2] = 0;
#endif
#ifdef ONEWAY
        is_true = 0;
#endif
        asker = 0
    };
end_wait:
    if
    :: atomic { asks[0] -> asker = 0 }
    :: atomic { asks[1] -> asker = 1 }
#if N == 3
    :: atomic { asks[2] -> asker = 2 }
#endif
#ifdef ONEWAY
    :: atomic { other[0] -> other[0] = 0; NOTE_QUIET(0); goto end_idle }
    :: atomic { other[1] -> other[1] = 0; NOTE_QUIET(1); goto end_idle }
    :: atomic { unread[0] && !other[0] -> HEAR(0); NOTE_QUIET(0); goto end_idle }
    :: atomic { unread[1] && !other[1] -> HEAR(1); NOTE_QUIET(1); goto end_idle }
#endif
#ifdef ASYNC
    :: atomic { pending[0] && owner[0] == 0 -> pending[0] = 0; owner[0] = 1; sequence[0]++; goto end_idle }
    :: atomic { pending[1] && owner[1] == 0 -> pending[1] = 0; owner[1] = 2; sequence[1]++; goto end_idle }
#if N == 3
    :: atomic { pending[2] && owner[2] == 0 -> pending[2] = 0; owner[2] = 3; sequence[2]++; goto end_idle }
#endif
#endif
    fi;
again:
    atomic { refused[asker] = 0; at = asker; count = 0; found = 0 };
    do /* first look: each waits for one lock, which has one owner, so the way does not fork */
    :: count < LONGEST ->
        look_at(at);
        if
        :: to == NOBODY -> break
        :: else ->
            atomic { ring[count] = at; locks[count] = lock; numbers[count] = number; holds[count] = held;
                     count++; at = to };
            if
            :: at == asker -> found = 1; break
            :: else
            fi
        fi
    :: else -> break /* a ring without the asker */
    od;
#ifdef ONEWAY
    atomic { i = 0; is_true = IS_RING_OF_TWO };
#else
    i = 0;
#endif
#ifndef M_LOOKS_ONCE
    do /* second look */
    :: found && i < count ->
        look_at(ring[i]);
        if
        :: to == (i + 1 == count -> asker : ring[i + 1]) && lock == locks[i] && number == numbers[i] &&
           held == holds[i] -> i++
#ifdef M_GIVES_UP_UNCONFIRMED
        :: else -> found = 0
#else
        :: else -> goto again
#endif
        fi
    :: else -> break
    od;
#endif
#ifdef ONEWAY
    if
    :: found -> /* put off, unless each of both is known to have nothing unread: one look, then the other */
        atomic {
            if
            :: IS_DOUBTED
            :: else ->
                if
                :: IS_ANOTHER_DOUBT -> heard[2 * asker] = 0; heard[2 * asker + 1] = 0
                :: else
                fi;
                in_doubt[asker] = 1; was_true[asker] = is_true;
                doubted[2 * asker] = numbers[0]; doubted_holds[2 * asker] = holds[0];
                doubted[2 * asker + 1] = numbers[1]; doubted_holds[2 * asker + 1] = holds[1]
            fi
        };
        if
        :: MAY_BE_OVER(0) -> PUT_OFF
        :: else
        fi;
        if
        :: MAY_BE_OVER(1) -> PUT_OFF
        :: else
        fi
    :: else -> in_doubt[asker] = 0
    fi;
#endif
    atomic {
        if
        :: found ->
            /* No false alarm: there is a ring, of waits that nobody has been refused. */
#ifdef ORDERED
            assert(false);
#endif
#ifdef ONEWAY
            assert(is_true || was_true[asker]);
            in_doubt[asker] = 0;
#else
            assert(BLOCKED(asker));
            assert(BLOCKED(NEXT(asker)));
#if N == 3
            assert(NEXT(NEXT(asker)) == asker || BLOCKED(NEXT(NEXT(asker))));
            assert(NEXT(NEXT(asker)) == asker || NEXT(NEXT(NEXT(asker))) == asker);
#else
            assert(NEXT(NEXT(asker)) == asker);
#endif
#endif
            refused[asker] = numbers[0];
            loses[asker] = 1
        :: else
        fi;
        asks[asker] = 0; answered[asker] = 1
    };
    goto end_idle
}

init
{
    atomic {
        run broker();
        run client(0);
        run client(1);
#if N == 3
        run client(2)
#endif
    }
}
