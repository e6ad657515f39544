/* SPDX-License-Identifier: MIT */
#include "scenario.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/process.h"

#define SCENARIOS_MAX 320

static struct scenario all[SCENARIOS_MAX];
static size_t all_count;

static const char *const word_words[] = {"free",          "stale",  "damaged",
                                         "just repaired", "biased", "biased, repaired"};
static const char *const before_words[] = {"",
                                           "holding X: ",
                                           "holding S: ",
                                           "holding to exit: ",
                                           "holding X, marked: ",
                                           "after a read: ",
                                           "holding U: "};
static const char *const call_words[] = {
    "inline S",     "lock X",        "lock S", "lock to exit",  "try X",       "try S",
    "timed X",      "timed S",       "unlock", "inline unlock", "mark",        "declare",
    "close handle", "lock U",        "try U",  "timed U",       "lock U to X", "upgrade",
    "try upgrade",  "timed upgrade", "X to U", "downgrade to S"};

static struct stage_role waiter(char mode, enum stage_when when)
{
    return (struct stage_role){.mode = mode, .when = when};
}

static struct stage_role holder(char mode, enum stage_when when)
{
    return (struct stage_role){.mode = mode, .holds = true, .when = when};
}

static struct scenario *add(enum scenario_word word, enum scenario_before before,
                            enum scenario_call call, uint64_t patience_ns)
{
    test_check(all_count < SCENARIOS_MAX, "too many scenarios");
    struct scenario *scenario = &all[all_count++];
    *scenario = (struct scenario){.word = word,
                                  .before = before,
                                  .call = call,
                                  .patience_ns = patience_ns,
                                  .last_slot = all_count % 2 == 0};
    const char *patience = patience_ns == 0                   ? ", no patience"
                           : patience_ns == PATIENCE_SHORT_NS ? ", short patience"
                                                              : "";
    snprintf(scenario->title, sizeof(scenario->title), "%s%s, %s%s", before_words[before],
             call_words[call], word_words[word], patience);
    return scenario;
}

static void add_role(struct scenario *scenario, struct stage_role role)
{
    unsigned i = 0;
    while (i < STAGE_ACTORS && scenario->roles[i].mode)
        i++;
    test_check(i < STAGE_ACTORS, "too many actors");
    scenario->roles[i] = role;
}

/* who: such as "XSX". Goes into the title too. */
static void add_waiters(struct scenario *scenario, const char *who, enum stage_when when)
{
    size_t bytes = strlen(scenario->title);
    if (*who)
        snprintf(scenario->title + bytes, sizeof(scenario->title) - bytes, ", %s %s",
                 when == STAGE_AT_ONCE ? "before" : "behind", who);
    for (; *who; who++)
        add_role(scenario, waiter(*who, when));
}

static void add_holders(struct scenario *scenario, const char *who, enum stage_when when)
{
    size_t bytes = strlen(scenario->title);
    snprintf(scenario->title + bytes, sizeof(scenario->title) - bytes, ", %s by %s",
             when == STAGE_VICTIM_DEAD ? "held" : "granted", who);
    for (; *who; who++)
        add_role(scenario, holder(*who, when));
}

static const char *const crowds[] = {"", "X", "S", "XXX", "SSS", "XSX"};
static const uint64_t patiences[] = {0, PATIENCE_LONG_NS};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void add_uncontended(void)
{
    static const enum scenario_call calls[] = {CALL_X, CALL_S, CALL_EXIT, CALL_TRY_X, CALL_TRY_S};
    for (size_t i = 0; i < COUNT(calls); i++)
        for (enum scenario_word word = WORD_FREE; word <= WORD_BROKEN; word++)
            add(word, BEFORE_NOTHING, calls[i], PATIENCE_LONG_NS);
    for (size_t i = 0; i < COUNT(patiences); i++) {
        add_waiters(add(WORD_FREE, BEFORE_NOTHING, CALL_X, patiences[i]), "XSX", STAGE_VICTIM_SEEN);
        add_waiters(add(WORD_BROKEN, BEFORE_NOTHING, CALL_X, patiences[i]), "SXS",
                    STAGE_VICTIM_SEEN);
    }
    struct scenario *reads = add(WORD_FREE, BEFORE_NOTHING, CALL_S, PATIENCE_LONG_NS);
    add_holders(reads, "S", STAGE_VICTIM_DEAD);
    add(WORD_FREE, BEFORE_NOTHING, CALL_X, PATIENCE_LONG_NS)->more_held = true;
}

static void add_releases(void)
{
    for (size_t p = 0; p < COUNT(patiences); p++) {
        for (size_t i = 0; i < COUNT(crowds); i++) {
            add_waiters(add(WORD_FREE, BEFORE_X, CALL_RELEASE, patiences[p]), crowds[i],
                        STAGE_AT_ONCE);
            if (crowds[i][0] != 'S') /* they would read beside us */
                add_waiters(add(WORD_FREE, BEFORE_S, CALL_RELEASE, patiences[p]), crowds[i],
                            STAGE_AT_ONCE);
        }
        add_waiters(add(WORD_DIED, BEFORE_X, CALL_RELEASE, patiences[p]), "XSX", STAGE_AT_ONCE);
        add_waiters(add(WORD_DIED, BEFORE_X_MARKED, CALL_RELEASE, patiences[p]), "XSX",
                    STAGE_AT_ONCE);
        add_waiters(add(WORD_FREE, BEFORE_EXIT, CALL_RELEASE, patiences[p]), "XSX", STAGE_AT_ONCE);
    }
    struct scenario *one_of_two = add(WORD_FREE, BEFORE_S, CALL_RELEASE, PATIENCE_LONG_NS);
    add_holders(one_of_two, "S", STAGE_VICTIM_DEAD);
    add_waiters(one_of_two, "XS", STAGE_AT_ONCE);
    struct scenario *more = add(WORD_FREE, BEFORE_X, CALL_RELEASE, PATIENCE_LONG_NS);
    add_waiters(more, "XS", STAGE_AT_ONCE);
    more->more_held = true;
}

static void add_marks(void)
{
    static const char *const few[] = {"", "X", "XSX"};
    for (size_t i = 0; i < COUNT(few); i++) {
        add_waiters(add(WORD_DIED, BEFORE_X, CALL_MARK, PATIENCE_LONG_NS), few[i], STAGE_AT_ONCE);
        add_waiters(add(WORD_DIED, BEFORE_EXIT, CALL_MARK, PATIENCE_LONG_NS), few[i],
                    STAGE_AT_ONCE);
        add_waiters(add(WORD_FREE, BEFORE_X, CALL_DECLARE, PATIENCE_LONG_NS), few[i],
                    STAGE_AT_ONCE);
    }
    add_waiters(add(WORD_FREE, BEFORE_EXIT, CALL_CLOSE_HANDLE, 0), "XSX", STAGE_AT_ONCE);
}

static void add_expiring(void)
{
    static const char *const few[] = {"", "X", "XSX"};
    for (size_t p = 0; p < COUNT(patiences); p++)
        for (enum scenario_call call = CALL_TIMED_X; call <= CALL_TIMED_S; call++)
            for (size_t i = 0; i < COUNT(few); i++) {
                struct scenario *held = add(WORD_FREE, BEFORE_NOTHING, call, patiences[p]);
                add_holders(held, "X", STAGE_VICTIM_DEAD);
                add_waiters(held, few[i], i == 1 ? STAGE_VICTIM_WAITS : STAGE_AT_ONCE);
                held->sleeps = true;
            }
    static const char *const behind[] = {"", "S", "XSX"};
    for (size_t i = 0; i < COUNT(behind); i++) {
        struct scenario *drain = add(WORD_FREE, BEFORE_NOTHING, CALL_TIMED_X, PATIENCE_LONG_NS);
        add_holders(drain, "SS", STAGE_VICTIM_DEAD);
        add_waiters(drain, behind[i], STAGE_VICTIM_WAITS);
        drain->sleeps = true;
    }
    for (enum scenario_call call = CALL_TRY_X; call <= CALL_TRY_S; call++) {
        add_holders(add(WORD_FREE, BEFORE_NOTHING, call, 0), "X", STAGE_VICTIM_DEAD);
        add_holders(add(WORD_DIED, BEFORE_NOTHING, call, 0), "S", STAGE_VICTIM_DEAD);
    }
}

/* The holder lets go while the victim sleeps, or while it is about to. */
static void add_granted_one(enum scenario_word word, enum scenario_call call, const char *holders,
                            const char *before, const char *behind, uint64_t patience_ns,
                            enum stage_when when)
{
    struct scenario *scenario = add(word, BEFORE_NOTHING, call, patience_ns);
    add_holders(scenario, holders, when);
    add_waiters(scenario, before, STAGE_AT_ONCE);
    add_waiters(scenario, behind, STAGE_VICTIM_WAITS);
    scenario->sleeps = true;
}

static void add_granted(void)
{
    for (size_t p = 0; p < COUNT(patiences); p++) {
        for (enum scenario_call call = CALL_X; call <= CALL_EXIT; call++) {
            add_granted_one(WORD_FREE, call, "X", "", "", patiences[p], STAGE_VICTIM_SLEEPS);
            add_granted_one(WORD_FREE, call, "X", "", "XSX", patiences[p], STAGE_VICTIM_SLEEPS);
            add_granted_one(WORD_FREE, call, "X", "XSX", "", patiences[p], STAGE_VICTIM_WAITS);
        }
        add_granted_one(WORD_FREE, CALL_S, "X", "S", "SX", patiences[p], STAGE_VICTIM_SLEEPS);
        add_granted_one(WORD_FREE, CALL_X, "SS", "", "", patiences[p], STAGE_VICTIM_SLEEPS);
        add_granted_one(WORD_FREE, CALL_X, "SS", "", "SX", patiences[p], STAGE_VICTIM_WAITS);
        add_granted_one(WORD_DIED, CALL_X, "X", "", "XSX", patiences[p], STAGE_VICTIM_SLEEPS);
    }
    add_granted_one(WORD_FREE, CALL_X, "X", "X", "S", PATIENCE_SHORT_NS, STAGE_VICTIM_SLEEPS);
    add_granted_one(WORD_FREE, CALL_S, "X", "X", "S", PATIENCE_SHORT_NS, STAGE_VICTIM_SLEEPS);
    add_granted_one(WORD_FREE, CALL_TIMED_X, "X", "", "XSX", 0, STAGE_VICTIM_WAITS);
    add_granted_one(WORD_FREE, CALL_TIMED_X, "S", "", "SX", 0, STAGE_VICTIM_WAITS);
    add_granted_one(WORD_FREE, CALL_X, "X", "", "X", PATIENCE_LONG_NS, STAGE_VICTIM_SLEEPS);
    all[all_count - 1].more_held = true;
}

/* The word is kept for a waiter that does not run: it is passed over, and marked LATE. */
static void add_late(void)
{
    for (enum scenario_call call = CALL_X; call <= CALL_S; call++) {
        struct scenario *scenario = add(WORD_FREE, BEFORE_NOTHING, call, 0);
        add_waiters(scenario, "X", STAGE_AT_ONCE);
        scenario->roles[0].frozen = true;
        scenario->roles[0].when = STAGE_VICTIM_DEAD;
        add_waiters(scenario, "S", STAGE_VICTIM_WAITS);
        scenario->sleeps = true;
    }
}

/* --- Read bias ---
 * Whoever is here: 'R' reads without a fence, and 'B' too, but it is seen after a barrier alone; 'U' goes when
 * the victim stands still or sleeps, which is seen after one alone; 'X', 'S' wait. Who comes when the victim stands still: 'x' waits; 'w' writes if it can, and stays inside, 'v'
 * likewise for update; 'f' reads as 'B' does. */

static struct stage_role bias_role(char letter, enum stage_when leave, enum stage_when come)
{
    struct stage_role reader = {.mode = 'S', .holds = true, .when = leave, .stays = true};
    reader.fenceless = strchr("RBUf", letter) != NULL;
    reader.unseen = letter == 'B' || letter == 'f';
    reader.late = strchr("fvw", letter) != NULL;
    reader.lingers = letter == 'U';
    if (letter == 'U')
        reader.when = STAGE_VICTIM_STANDS;
    if (letter == 'w')
        reader.mode = 'X';
    if (letter == 'v')
        reader.mode = 'U';
    if (strchr("RBUfvw", letter))
        return reader;
    return letter == 'x' ? waiter('X', STAGE_VICTIM_STOPS) : waiter(letter, come);
}

/* leave: those who hold. come: 'X' and 'S'. */
static struct scenario *add_bias(enum scenario_word word, enum scenario_before before,
                                 enum scenario_call call, const char *who, enum stage_when leave,
                                 enum stage_when come)
{
    struct scenario *scenario = add(word, before, call, PATIENCE_LONG_NS);
    scenario->bias = true;
    size_t bytes = strlen(scenario->title);
    if (*who)
        snprintf(scenario->title + bytes, sizeof(scenario->title) - bytes, ", beside %s", who);
    for (; *who; who++)
        add_role(scenario, bias_role(*who, leave, come));
    return scenario;
}

static void add_bias_readers(void)
{
    static const enum scenario_call enters[] = {CALL_S, CALL_INLINE_S};
    static const enum scenario_call leaves[] = {CALL_RELEASE, CALL_INLINE_RELEASE};
    static const char *const entering[] = {"", "x", "w", "Bx"};
    static const char *const leaving[] = {"", "x", "fx", "X", "BX"};
    for (size_t i = 0; i < COUNT(enters); i++) {
        for (size_t k = 0; k < COUNT(entering); k++)
            add_bias(WORD_BIASED, BEFORE_NOTHING, enters[i], entering[k], STAGE_VICTIM_WAITS,
                     STAGE_AT_ONCE)
                ->joined = true;
        for (size_t k = 0; k < COUNT(leaving); k++)
            add_bias(WORD_BIASED, BEFORE_S, leaves[i], leaving[k], STAGE_VICTIM_DEAD, STAGE_AT_ONCE)
                ->joined = true;
    }
    add_bias(WORD_BIASED, BEFORE_NOTHING, CALL_S, "RX", STAGE_VICTIM_SLEEPS, STAGE_AT_ONCE)
        ->joined = true;
    all[all_count - 1].sleeps = true;
    add_bias(WORD_BIASED_STALE, BEFORE_NOTHING, CALL_S, "x", STAGE_VICTIM_DEAD, STAGE_AT_ONCE)
        ->joined = true;
    static const char *const beginning[] = {"", "x", "f", "fx"};
    for (size_t i = 0; i < COUNT(beginning); i++)
        for (int joined = 0; joined < 2; joined++)
            add_bias(WORD_FREE, BEFORE_READ, CALL_S, beginning[i], STAGE_VICTIM_WAITS,
                     STAGE_AT_ONCE)
                ->joined = joined;
}

static void add_bias_writers(void)
{
    static const enum scenario_call tries[] = {CALL_TRY_X, CALL_TIMED_X};
    static const enum scenario_call waits[] = {CALL_X, CALL_EXIT};
    static const char *const beside[] = {"", "f", "R", "B", "Bf"};
    for (size_t i = 0; i < COUNT(tries); i++)
        for (size_t k = 0; k < COUNT(beside); k++)
            add_bias(WORD_BIASED, BEFORE_NOTHING, tries[i], beside[k], STAGE_VICTIM_DEAD,
                     STAGE_AT_ONCE)
                ->sleeps = tries[i] == CALL_TIMED_X && strpbrk(beside[k], "RB");
    for (size_t i = 0; i < COUNT(waits); i++)
        for (size_t k = 0; k < COUNT(beside); k++)
            add_bias(WORD_BIASED, BEFORE_NOTHING, waits[i], beside[k], STAGE_VICTIM_SLEEPS,
                     STAGE_AT_ONCE)
                ->sleeps = strpbrk(beside[k], "RB");
    add_bias(WORD_BIASED, BEFORE_NOTHING, CALL_TIMED_X, "BXS", STAGE_VICTIM_DEAD,
             STAGE_VICTIM_WAITS)
        ->sleeps = true;
    add_bias(WORD_BIASED, BEFORE_NOTHING, CALL_X, "BXS", STAGE_VICTIM_SLEEPS, STAGE_VICTIM_WAITS)
        ->sleeps = true;
    all[all_count - 1].patience_ns = 0;
    add_bias(WORD_BIASED, BEFORE_NOTHING, CALL_X, "BXSf", STAGE_VICTIM_SLEEPS, STAGE_VICTIM_WAITS)
        ->sleeps = true;
    add_bias(WORD_BIASED, BEFORE_NOTHING, CALL_X, "BXS", STAGE_VICTIM_SLEEPS, STAGE_AT_ONCE)
        ->sleeps = true;
    add_bias(WORD_BIASED_STALE, BEFORE_NOTHING, CALL_TRY_X, "f", STAGE_VICTIM_DEAD, STAGE_AT_ONCE);
    add_bias(WORD_BIASED_STALE, BEFORE_NOTHING, CALL_X, "f", STAGE_VICTIM_SLEEPS, STAGE_AT_ONCE);
}

static void add_refused(enum scenario_call call, const char *who)
{
    struct scenario *scenario =
        add_bias(WORD_BIASED, BEFORE_NOTHING, call, who, STAGE_VICTIM_DEAD, STAGE_AT_ONCE);
    strncat(scenario->title, ", refused", sizeof(scenario->title) - strlen(scenario->title) - 1);
    scenario->cannot = true;
}

static void add_bias_lingering(void)
{
    add_bias(WORD_BIASED, BEFORE_NOTHING, CALL_TRY_X, "Ux", STAGE_VICTIM_DEAD, STAGE_AT_ONCE);
    add_bias(WORD_BIASED, BEFORE_NOTHING, CALL_X, "U", STAGE_VICTIM_DEAD, STAGE_AT_ONCE);
    add_bias(WORD_BIASED, BEFORE_NOTHING, CALL_X, "Ux", STAGE_VICTIM_DEAD, STAGE_AT_ONCE);
    add_bias(WORD_BIASED, BEFORE_S, CALL_RELEASE, "Ux", STAGE_VICTIM_DEAD, STAGE_AT_ONCE)->joined =
        true;
}

/* Whoever can make no barrier gives up, and leaves the mark for the next one. */
static void add_bias_refused(void)
{
    add_refused(CALL_TRY_X, "");
    add_refused(CALL_TRY_X, "f");
    add_refused(CALL_TRY_X, "Bx");
    add_refused(CALL_TIMED_X, "Bx");
}

/* --- Update --- */

static void add_update(enum scenario_word word, enum scenario_before before,
                       enum scenario_call call, const char *who, enum stage_when when)
{
    add_waiters(add(word, before, call, PATIENCE_LONG_NS), who, when);
}

/* For the latest one: no patience as well. */
static void add_impatient(void)
{
    struct scenario *scenario = &all[all_count];
    test_check(all_count < SCENARIOS_MAX, "too many scenarios");
    *scenario = all[all_count - 1];
    scenario->patience_ns = 0;
    scenario->last_slot = !scenario->last_slot;
    strncat(scenario->title, ", no patience",
            sizeof(scenario->title) - strlen(scenario->title) - 1);
    all_count++;
}

static void add_update_takers(void)
{
    for (enum scenario_word word = WORD_FREE; word <= WORD_BROKEN; word++)
        add_update(word, BEFORE_NOTHING, CALL_U, "", STAGE_AT_ONCE);
    add_update(WORD_FREE, BEFORE_NOTHING, CALL_TRY_U, "", STAGE_AT_ONCE);
    add_update(WORD_STALE, BEFORE_NOTHING, CALL_TRY_U, "S", STAGE_VICTIM_SEEN);
    add_update(WORD_FREE, BEFORE_NOTHING, CALL_U, "XSU", STAGE_VICTIM_SEEN);
    add_impatient();
    add_update(WORD_BROKEN, BEFORE_NOTHING, CALL_U, "SXU", STAGE_VICTIM_SEEN);
    struct scenario *beside = add(WORD_FREE, BEFORE_NOTHING, CALL_U, PATIENCE_LONG_NS);
    add_holders(beside, "S", STAGE_VICTIM_DEAD);
    add_waiters(beside, "XU", STAGE_VICTIM_SEEN);
    add_granted_one(WORD_FREE, CALL_U, "X", "", "SXU", PATIENCE_LONG_NS, STAGE_VICTIM_SLEEPS);
    add_impatient();
    add_granted_one(WORD_FREE, CALL_U, "X", "XS", "S", PATIENCE_LONG_NS, STAGE_VICTIM_WAITS);
    add_granted_one(WORD_FREE, CALL_U, "U", "", "US", PATIENCE_LONG_NS, STAGE_VICTIM_SLEEPS);
    add_granted_one(WORD_DIED, CALL_U, "X", "", "S", PATIENCE_LONG_NS, STAGE_VICTIM_SLEEPS);
    add_granted_one(WORD_FREE, CALL_X, "U", "", "SU", PATIENCE_LONG_NS, STAGE_VICTIM_SLEEPS);
    add_granted_one(WORD_FREE, CALL_TIMED_U, "X", "", "XSU", 0, STAGE_VICTIM_DEAD);
    add_granted_one(WORD_FREE, CALL_TIMED_U, "U", "X", "", PATIENCE_LONG_NS, STAGE_VICTIM_DEAD);
    add_granted_one(WORD_FREE, CALL_TIMED_X, "U", "", "S", PATIENCE_LONG_NS, STAGE_VICTIM_DEAD);
    add_granted_one(WORD_FREE, CALL_U_UPGRADE, "S", "", "SX", PATIENCE_LONG_NS,
                    STAGE_VICTIM_SLEEPS);
    add_holders(add(WORD_FREE, BEFORE_NOTHING, CALL_S, PATIENCE_LONG_NS), "U", STAGE_VICTIM_DEAD);
}

static void add_update_releases(void)
{
    static const char *const behind[] = {"", "X", "U", "XUX", "UX"};
    for (size_t i = 0; i < COUNT(behind); i++)
        add_update(WORD_FREE, BEFORE_U, CALL_RELEASE, behind[i], STAGE_AT_ONCE);
    add_impatient();
    struct scenario *beside = add(WORD_FREE, BEFORE_U, CALL_RELEASE, PATIENCE_LONG_NS);
    add_holders(beside, "S", STAGE_VICTIM_DEAD);
    add_waiters(beside, "XS", STAGE_AT_ONCE);
    add_impatient();
    add_update(WORD_DIED, BEFORE_U, CALL_RELEASE, "XUS", STAGE_AT_ONCE);
    add_update(WORD_FREE, BEFORE_X, CALL_RELEASE, "USX", STAGE_AT_ONCE);
    add_impatient();
    struct scenario *reads = add(WORD_FREE, BEFORE_S, CALL_RELEASE, PATIENCE_LONG_NS);
    add_holders(reads, "U", STAGE_VICTIM_DEAD);
    add_waiters(reads, "X", STAGE_AT_ONCE);
}

/* The readers go when `leave` says so. */
static void add_upgrade(enum scenario_word word, enum scenario_call call, const char *readers,
                        const char *behind, enum stage_when leave, enum stage_when come)
{
    struct scenario *scenario = add(word, BEFORE_U, call, PATIENCE_LONG_NS);
    if (*readers)
        add_holders(scenario, readers, leave);
    add_waiters(scenario, behind, come);
    scenario->sleeps = *readers && call != CALL_TRY_UPGRADE;
}

static void add_upgrades(void)
{
    const enum stage_when dead = STAGE_VICTIM_DEAD, sleeps = STAGE_VICTIM_SLEEPS;
    for (enum scenario_call call = CALL_UPGRADE; call <= CALL_TRY_UPGRADE; call++) {
        add_upgrade(WORD_FREE, call, "", "", dead, STAGE_AT_ONCE);
        add_upgrade(WORD_STALE, call, "", "XU", dead, STAGE_AT_ONCE);
        add_upgrade(WORD_BROKEN, call, "", "X", dead, STAGE_AT_ONCE);
    }
    add_upgrade(WORD_FREE, CALL_TRY_UPGRADE, "S", "XU", dead, STAGE_AT_ONCE);
    add_upgrade(WORD_FREE, CALL_UPGRADE, "S", "SX", sleeps, STAGE_VICTIM_WAITS);
    add_impatient();
    add_upgrade(WORD_FREE, CALL_UPGRADE, "SS", "SXU", STAGE_VICTIM_WAITS, STAGE_VICTIM_WAITS);
    add_upgrade(WORD_FREE, CALL_UPGRADE, "SS", "UX", sleeps, STAGE_AT_ONCE);
    add_upgrade(WORD_DIED, CALL_UPGRADE, "S", "S", sleeps, STAGE_VICTIM_WAITS);
    add_upgrade(WORD_FREE, CALL_TIMED_UPGRADE, "S", "", dead, STAGE_VICTIM_WAITS);
    add_upgrade(WORD_FREE, CALL_TIMED_UPGRADE, "S", "SX", dead, STAGE_VICTIM_WAITS);
    add_impatient();
    add_upgrade(WORD_FREE, CALL_TIMED_UPGRADE, "SS", "US", dead, STAGE_AT_ONCE);
    add_upgrade(WORD_DIED, CALL_TIMED_UPGRADE, "S", "S", dead, STAGE_VICTIM_WAITS);
}

static void add_downgrades(void)
{
    static const char *const behind[] = {"", "S", "X", "XSU", "SSS"};
    for (enum scenario_call call = CALL_DOWN_U; call <= CALL_DOWN_S; call++) {
        for (size_t i = 0; i < COUNT(behind); i++)
            add_update(WORD_FREE, BEFORE_X, call, behind[i], STAGE_AT_ONCE);
        add_update(WORD_FREE, BEFORE_X, call, "XSUS", STAGE_AT_ONCE);
        add_impatient();
        add_update(WORD_DIED, BEFORE_X, call, "XS", STAGE_AT_ONCE);
        add_update(WORD_DIED, BEFORE_X_MARKED, call, "S", STAGE_AT_ONCE);
    }
    static const char *const beside_update[] = {"", "X", "UX"};
    for (size_t i = 0; i < COUNT(beside_update); i++)
        add_update(WORD_FREE, BEFORE_U, CALL_DOWN_S, beside_update[i], STAGE_AT_ONCE);
    add_impatient();
    struct scenario *beside = add(WORD_DIED, BEFORE_U, CALL_DOWN_S, PATIENCE_LONG_NS);
    add_holders(beside, "S", STAGE_VICTIM_DEAD);
    add_waiters(beside, "X", STAGE_AT_ONCE);
}

static void add_biased_update(enum scenario_before before, enum scenario_call call, const char *who)
{
    bool drains = call == CALL_UPGRADE || call == CALL_U_UPGRADE;
    enum stage_when leave = drains           ? STAGE_VICTIM_SLEEPS
                            : call == CALL_U ? STAGE_VICTIM_WAITS
                                             : STAGE_VICTIM_DEAD;
    add_bias(WORD_BIASED, before, call, who, leave, STAGE_AT_ONCE)->sleeps =
        strpbrk(who, "RB") && (drains || call == CALL_TIMED_UPGRADE);
}

static void add_biased_updates(void)
{
    static const char *const taking[] = {"", "f", "v", "Bx"};
    static const char *const upgrading[] = {"", "f", "B", "Bf"};
    for (size_t i = 0; i < COUNT(taking); i++)
        add_biased_update(BEFORE_NOTHING, CALL_U, taking[i]);
    for (size_t i = 0; i < COUNT(upgrading); i++) {
        add_biased_update(BEFORE_NOTHING, CALL_U_UPGRADE, upgrading[i]);
        add_biased_update(BEFORE_U, CALL_UPGRADE, upgrading[i]);
        add_biased_update(BEFORE_U, CALL_TRY_UPGRADE, upgrading[i]);
    }
    add_biased_update(BEFORE_U, CALL_TIMED_UPGRADE, "Bf");
    add_biased_update(BEFORE_U, CALL_RELEASE, "Bx");
    add_biased_update(BEFORE_U, CALL_RELEASE, "f");
    add_biased_update(BEFORE_U, CALL_DOWN_S, "x");
    add_biased_update(BEFORE_U, CALL_DOWN_S, "v");
    add_biased_update(BEFORE_U, CALL_DOWN_S, "w");
    add_bias(WORD_BIASED, BEFORE_NOTHING, CALL_INLINE_S, "v", STAGE_VICTIM_DEAD, STAGE_AT_ONCE)
        ->joined = true;
    add_bias(WORD_BIASED, BEFORE_S, CALL_INLINE_RELEASE, "v", STAGE_VICTIM_DEAD, STAGE_AT_ONCE)
        ->joined = true;
}

const struct scenario *scenarios(size_t *out_count)
{
    if (all_count == 0) {
        add_uncontended();
        add_releases();
        add_marks();
        add_expiring();
        add_granted();
        add_late();
        add_bias_readers();
        add_bias_writers();
        add_bias_refused();
        add_bias_lingering();
        size_t others = all_count;
        add_update_takers();
        add_update_releases();
        add_upgrades();
        add_downgrades();
        add_biased_updates();
        for (size_t i = others; i < all_count; i++)
            all[i].update = true;
    }
    *out_count = all_count;
    return all;
}
