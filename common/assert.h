/* SPDX-License-Identifier: MIT */
/* Assertions for our own mistakes. They stay on in release builds; the argument has no side
 * effects. What a peer, a file or shared memory says is never asserted: it is checked and answered.
 */
#pragma once

/* Prints the place and the expression to stderr and aborts. Never returns. Threads: any. */
void lki_assert_failed(const char *expression, const char *file, int line)
    __attribute__((noreturn, cold));

#define LKI_ASSERT(expression)                                                                     \
    do {                                                                                           \
        if (__builtin_expect(!(expression), 0))                                                    \
            lki_assert_failed(#expression, __FILE__, __LINE__);                                    \
    } while (0)

/* For a place that is never reached; says why. Its own macro, since clang warns of !"text". */
#define LKI_UNREACHABLE(why) lki_assert_failed(why, __FILE__, __LINE__)
