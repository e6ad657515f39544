/* SPDX-License-Identifier: MIT */
/* The lock protocol of docs/lock-protocol.md for one lock and N attachments, with every shared access
 * as a step of its own. README.md beside this file says what is modelled and what is left out.
 *
 * A scenario is a set of -D options (see `run`): N, OPS0.. (which operations a client may choose from),
 * ROUNDS0.. (how many it does), and budgets: DEATHS, TIMEOUTS, NAPS, PAUSES, RESTARTS. A mutant is one
 * more -D with a name M_*; each must make some scenario fail.
 *
 * Sleeps never end by themselves here. In the engine every sleep is a bounded nap, which hides a lost
 * wake-up; here it shows as an invalid end state. */

#ifndef N
#define N 2
#endif
#ifndef OPS0
#define OPS0 (OP_X | OP_S)
#endif
#ifndef OPS1
#define OPS1 (OP_X | OP_S)
#endif
#ifndef OPS2
#define OPS2 (OP_X | OP_S)
#endif
#ifndef ROUNDS0
#define ROUNDS0 1
#endif
#ifndef ROUNDS1
#define ROUNDS1 1
#endif
#ifndef ROUNDS2
#define ROUNDS2 1
#endif
#ifndef DEATHS
#define DEATHS 0   /* clients that may be killed, each at any step */
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 0 /* operations that have a deadline; it may pass at any sleep, or never */
#endif
#ifndef TIMED
#define TIMED 7    /* bit i: client i may have a deadline */
#endif
#ifndef ALWAYS_TIMED
#define ALWAYS_TIMED 0 /* bit i: client i always has one */
#endif
#ifndef MORTAL
#define MORTAL 7   /* bit i: client i may be killed */
#endif
#ifndef NAPS
#define NAPS 0     /* 10 ms naps of waiters that see a free word reserved for somebody older */
#endif
#ifndef PAUSES
#define PAUSES 0   /* clients that may be stopped (SIGSTOP) for ever */
#endif
#ifndef PAUSABLE
#define PAUSABLE 7 /* bit i: client i may be stopped */
#endif
#ifdef PAUSE_INSIDE
#define PAUSE_WHERE (sinside & ME_BIT) /* a reader, inside */
#else
#define PAUSE_WHERE ((wt[me] & WAIT) && (word & ID) != me + 1) /* a waiter, in the queue */
#endif
#ifndef TICKS
#define TICKS 0    /* with PAUSES: how often the rest may run dry and need their naps */
#endif
#ifndef RESTARTS
#define RESTARTS 0 /* broker workers that die inside a repair and are replaced */
#endif
#ifndef EARLY_LOOKS
#define EARLY_LOOKS 0 /* repairs that start from a word that the broker read while the owner lived */
#endif
#ifndef BROKERED
#define BROKERED 0 /* bit i: client i is driven by the broker and woken through a nudge message */
#endif
/* Patience: 0 none (strict FIFO: IMPATIENT from the start), 1 a waiter may lose it at any look,
 * 2 endless. */
#ifndef PATIENCE
#define PATIENCE 0
#endif

/* operations a client may choose from */
#define OP_X 1
#define OP_S 2
#define OP_TRYX 4
#define OP_TRYS 8
#define OP_EXIT 16 /* exclusive, to exit: the sequence stays even */
#define OP_READ 32 /* optimistic read */

/* the lock word; no generation, which makes every comparison weaker than in the engine */
#define ID 3
#define PARKED 4
#define DIED 8
#define FAIR 16
#define READ 32
#define IS_FREE(w) (((w) & ID) == 0)

/* the wait cell of an attachment: kind, mode, impatience */
#define WAIT 1
#define DRAIN 2
#define EXCL 4
#define IMPATIENT 8

/* Shared memory. The sequence is kept modulo 8: enough for its parity and for "the same as before". */
byte word;
byte seq;
byte ticket;
byte wt[N];
byte tick[N]; /* written together with wt[i]: both are one 64-bit atomic */
bit cell[N];
bit late[N];  /* bit 0 of the futex */
bit chg[N];   /* the futex is no longer what its owner remembered */
bit slp[N];   /* asleep in futex_wait */
bit nudge[N]; /* a nudge for a brokered attachment lies in the broker's socket */

/* Death: 0 alive, 1 ended, 2 repaired: its slot may be given again. */
byte dead[N];
byte deaths = DEATHS, timeouts = TIMEOUTS, naps = NAPS, pauses = PAUSES, restarts = RESTARTS;
#if PAUSES
bit stopped[N];
bit nap_over[N];
byte ticks;
#endif

/* Ghosts: what the properties talk about; no step looks at them. */
byte xin;     /* 1 + the client between taking (after its drain) and the end of its sequence */
byte sinside; /* bit i: client i holds shared */
bit owed;     /* an owner died with an odd sequence and nobody has declared the data whole since */
bit est[N];   /* impatient waiter that has completed a look: nobody younger may pass it ... */
bit pass[N];  /* ... unless marked LATE since it last looked */
byte before[N]; /* bit j of before[i]: j was established when i began the look that decides */
#ifdef DATA
bit d0, d1;   /* the data: equal when nobody is writing and nobody died writing */
#endif

#define ME_BIT (1 << me)
#define MAY_DIE (me < N && deaths > 0 && (MORTAL & ME_BIT))

/* One shared access, with the local computation around it. Instead of it, the client may die or be
 * stopped, and a worker of the broker may be lost. */
#define STEP(...) \
    if \
    :: atomic { __VA_ARGS__ } \
    DEATH_OPTION \
    RESTART_OPTION \
    PAUSE_OPTION \
    fi
#if DEATHS
#define DEATH_OPTION :: atomic { MAY_DIE -> deaths--; goto crashed }
#else
#define DEATH_OPTION
#endif
#if RESTARTS
#define RESTART_OPTION :: atomic { me == N && restarts > 0 -> restarts--; goto crashed }
#else
#define RESTART_OPTION
#endif
#if PAUSES
#define PAUSE_OPTION \
    :: atomic { me < N && pauses > 0 && (PAUSABLE & ME_BIT) && PAUSE_WHERE -> \
                pauses--; stopped[me] = 1; goto stop }
#else
#define PAUSE_OPTION
#endif

/* What a death leaves. (Nothing of it is seen before: a client that is about to die takes no step.) */
inline die()
{
    dead[me] = 1;
    if
    :: (word & ID) == me + 1 && (seq & 1) -> owed = 1
    :: else
    fi;
    if
    :: xin == me + 1 -> xin = 0
    :: else
    fi;
    sinside = sinside & ~ME_BIT;
    est[me] = 0; pass[me] = 0; slp[me] = 0
}

/* CAS word w -> to; the result is in ok. */
#define CAS(to) \
    if \
    :: word == w -> word = (to); ok = 1; CHECK_PARITY \
    :: else -> ok = 0 \
    fi
#define CHECK_PARITY assert(!IS_FREE(word) || ((seq & 1) == ((word & DIED) != 0)))

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

/* The double look of a reader: load the word again after the cell is empty, wake that owner. */
inline leave()
{
    STEP(cell[me] = 0; sinside = sinside & ~ME_BIT);
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
            :: ok -> ok = 0; break
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
    :: whom_queued -> CHECK_TURN(0)
    :: else -> CHECK_NOT_BARGED(0)
    fi;
    before[me] = 0;
    sinside = sinside | ME_BIT
}

proctype client(byte me)
{
    byte rounds; /* still to do */
    byte w, v, vt, mytk, o, ot, j, lw, lseq, rd;
    bit vl, ol, imp, older, writer, ok, found;
    bit excl, toexit, tmo, queued, seen, napped, gave_up, trying, backing;

    rounds = (me == 0 -> ROUNDS0 : (me == 1 -> ROUNDS1 : ROUNDS2));

begin:
    atomic {
        w = 0; v = 0; vt = 0; mytk = 0; o = 0; ot = 0; j = 0; lw = 0; lseq = 0; rd = 0;
        before[me] = 0;
        vl = 0; ol = 0; imp = 0; older = 0; writer = 0; ok = 0; found = 0;
        excl = 0; toexit = 0; tmo = 0; queued = 0; seen = 0; napped = 0; gave_up = 0; trying = 0; backing = 0
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
    :: OPS & OP_TRYS -> goto s_try
#ifdef DATA
    :: OPS & OP_READ -> goto optimistic
#endif
    fi;

    /* ---- exclusive ---- */
x_fast:
    w = 0;
    STEP(
        CAS(me + 1);
        if
        :: ok -> CHECK_NOT_BARGED(1)
        :: else
        fi
    );
    if
    :: ok -> goto x_taken
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
    :: w & READ ->
        scan_cells();
        if
        :: found -> goto begin /* EBUSY */
        :: else
        fi
    :: else
    fi;
    STEP(
        CAS((me + 1) | (w & (PARKED | DIED)));
        if
        :: ok -> CHECK_TURN(1)
        :: else
        fi;
        before[me] = 0
    );
    if
    :: !ok -> goto x_try
    :: else
    fi;
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
    STEP(wt[me] = WAIT | (excl -> EXCL : 0) | (PATIENCE == 0 -> IMPATIENT : 0); tick[me] = mytk);
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
            CAS((me + 1) | (w & DIED));
#else
            CAS((me + 1) | PARKED | (w & DIED));
#endif
            if
            :: ok -> CHECK_TURN(1)
            :: else
            fi;
            before[me] = 0
        );
        if
        :: !ok -> goto look
        :: ok && (w & READ) -> goto drain
        :: else -> goto x_took
        fi
    :: IS_FREE(w) && !excl -> goto s_enter
    :: !IS_FREE(w) && !(w & PARKED) ->
        STEP(
            CAS(w | PARKED);
            if
            :: ok && (wt[me] & IMPATIENT) -> est[me] = 1
            :: else
            fi
        );
        if
        :: !ok -> goto look
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
            CAS((me + 1) | PARKED | (w & DIED))
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

back_out: /* without having touched the sequence */
#ifndef M_BACK_OUT_WITHOUT_READ
    rd = READ;
#else
    rd = 128; /* comes back here, adds nothing to the word */
#endif
    if
    :: queued -> STEP(wt[me] = 0; est[me] = 0)
    :: else
    fi;
    goto unlock_slow;
backed_out:
    rd = 0;
#ifndef M_BACK_OUT_WAKES_NO_READERS
    j = 0;
    do
    :: j < N && j != me ->
        STEP(v = wt[j]);
        if
        :: (v & WAIT) && !(v & EXCL) -> v = 0; wake(j)
        :: else -> v = 0
        fi;
        j++
    :: j < N && j == me -> j++
    :: else -> break
    od;
    j = 0;
#endif
    goto begin;

x_took:
    STEP(wt[me] = 0; est[me] = 0);
x_taken:
    STEP(
        assert(xin == 0 && sinside == 0);
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
    :: true
    fi;

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
    w = me + 1;
    STEP(CAS(0));
    if
    :: ok -> goto begin
    :: else
    fi;

unlock_slow:
#ifdef M_UNLOCK_SCANS_FIRST
    scan_waits(0);
#endif
    STEP(w = word);
    if
    :: !(w & PARKED) ->
        STEP(CAS((w & DIED) | (rd & READ)));
        if
        :: !ok -> goto unlock_slow
        :: ok && rd -> goto backed_out
        :: else -> goto begin
        fi
    :: else
    fi;
    STEP(CAS(w & ~PARKED));
    if
    :: !ok -> goto unlock_slow
    :: else -> w = w & ~PARKED
    fi;
unlock_scan:
#ifndef M_UNLOCK_SCANS_FIRST
    scan_waits(0);
#endif
    STEP(
#ifdef M_UNLOCK_NEVER_FAIR
        CAS((w & DIED) | (rd & READ))
#elif defined(M_UNLOCK_LOSES_DIED)
        CAS((rd & READ) | (o && imp -> (FAIR | PARKED) : 0))
#else
        CAS((w & DIED) | (rd & READ) | (o && imp -> (FAIR | PARKED) : 0))
#endif
    );
    if
    :: !ok ->
        o = 0; ol = 0; imp = 0; older = 0; writer = 0;
#ifdef M_UNLOCK_RETRY_FROM_SCAN
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

    /* ---- shared ---- */
s_try:
    mytk = 255;
    STEP(w = word; before[me] = EST_AHEAD(0));
    if
    :: !IS_FREE(w) -> goto begin
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
s_enter:
    STEP(cell[me] = 1);
s_load:
    STEP(
        w = word;
        if
        :: IS_FREE(w) && (w & READ) && (queued || trying || !(w & (FAIR | DIED))) ->
            s_inside(queued || trying)
        :: else
        fi
    );
    if
    :: sinside & ME_BIT -> goto s_in
    :: !(sinside & ME_BIT) && (!IS_FREE(w) || (!queued && !trying && (w & (FAIR | DIED)))) ->
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
    leave();
    if
    :: backing && queued -> backing = 0; goto look
    :: backing && !queued && !trying -> backing = 0; goto wait
    :: else -> goto begin /* released, or EBUSY */
    fi;

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
            CAS(READ | PARKED | (rd -> DIED : 0) | (imp -> FAIR : 0));
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

init
{
    atomic {
        run client(0);
        run client(1);
#if N == 3
        run client(2);
#endif
#if DEATHS
        run broker();
#endif
#if BROKERED
        run nudged();
#endif
#if PAUSES
        run clock()
#endif
    }
}
