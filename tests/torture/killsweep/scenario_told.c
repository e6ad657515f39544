/* SPDX-License-Identifier: MIT */
/* What a scenario is, and who has to be told of a death in it. */
#include "scenario.h"

bool scenario_is_acquire(const struct scenario *scenario)
{
    return scenario->call <= CALL_TIMED_S ||
           (scenario->call >= CALL_U && scenario->call <= CALL_U_UPGRADE);
}

bool scenario_is_release(const struct scenario *scenario)
{
    return scenario->call == CALL_RELEASE || scenario->call == CALL_INLINE_RELEASE;
}

bool scenario_is_upgrade(const struct scenario *scenario)
{
    return scenario->call >= CALL_UPGRADE && scenario->call <= CALL_TIMED_UPGRADE;
}

char scenario_mode(const struct scenario *scenario)
{
    switch (scenario->call) {
    case CALL_S:
    case CALL_INLINE_S:
    case CALL_TRY_S:
    case CALL_TIMED_S:
    case CALL_DOWN_S:
        return 'S';
    case CALL_U:
    case CALL_TRY_U:
    case CALL_TIMED_U:
    case CALL_DOWN_U:
        return 'U';
    case CALL_X:
    case CALL_EXIT:
    case CALL_TRY_X:
    case CALL_TIMED_X:
    case CALL_U_UPGRADE:
    case CALL_UPGRADE:
    case CALL_TRY_UPGRADE:
    case CALL_TIMED_UPGRADE:
        return 'X';
    case CALL_RELEASE:
    case CALL_INLINE_RELEASE:
    case CALL_MARK:
    case CALL_DECLARE:
    case CALL_CLOSE_HANDLE:
        break;
    }
    return 0;
}

bool scenario_holds_at_end(const struct scenario *scenario, bool succeeded)
{
    return scenario_is_acquire(scenario) ? succeeded
                                         : scenario_is_upgrade(scenario) || scenario_mode(scenario);
}

bool scenario_died_meanwhile(const struct scenario *scenario)
{
    bool damaged = scenario->word == WORD_DIED || scenario->word == WORD_BROKEN;
    return damaged && scenario->before != BEFORE_X_MARKED;
}

bool scenario_died_at_start(const struct scenario *scenario)
{
    return scenario->before == BEFORE_X || scenario->before == BEFORE_X_MARKED ||
           scenario_died_meanwhile(scenario);
}

bool scenario_died_at_end(const struct scenario *scenario, bool acquired)
{
    switch (scenario->call) {
    case CALL_X:
    case CALL_TRY_X:
    case CALL_TIMED_X:
    case CALL_U_UPGRADE:
    case CALL_UPGRADE:
    case CALL_TRY_UPGRADE:
    case CALL_TIMED_UPGRADE:
        return acquired || scenario_died_meanwhile(scenario);
    case CALL_MARK: /* of data: still inside; to exit: nothing is torn any more */
        return scenario->before == BEFORE_X;
    case CALL_DECLARE:
        return true;
    case CALL_S:
    case CALL_INLINE_S:
    case CALL_EXIT:
    case CALL_TRY_S:
    case CALL_TIMED_S:
    case CALL_RELEASE:
    case CALL_INLINE_RELEASE:
    case CALL_CLOSE_HANDLE:
    case CALL_U:
    case CALL_TRY_U:
    case CALL_TIMED_U:
    case CALL_DOWN_U:
    case CALL_DOWN_S:
        break;
    }
    return scenario_died_meanwhile(scenario);
}
