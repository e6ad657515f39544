/* SPDX-License-Identifier: MIT */
#include "client/error.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

Test(error, text_has_the_name_of_the_code_and_then_the_next_step)
{
    cr_assert(eq(int, lki_fail(-EBUSY, "cannot lock '%s': held by pid %d", "build", 812), -EBUSY));
    cr_assert(eq(int, lki_fail_hint(-EBUSY, "try -w %s", "SECONDS"), -EBUSY));

    cr_assert(eq(str, (char *)lk_last_error(),
                 "cannot lock 'build': held by pid 812 (EBUSY); try -w SECONDS"));
}

Test(error, text_that_does_not_fit_is_cut)
{
    char words[8000];
    memset(words, 'x', sizeof(words) - 1);
    words[sizeof(words) - 1] = '\0';

    lki_fail(-EIO, "%s", words);
    lki_fail_hint(-EIO, "%s", words);

    cr_assert(lt(sz, strlen(lk_last_error()), sizeof(words) / 2));
}

static void *fail_elsewhere(void *unused)
{
    lki_fail(-ENOENT, "of another thread");
    return unused;
}

Test(error, text_belongs_to_the_thread)
{
    lki_fail(-EBUSY, "of this thread");
    pthread_t thread;
    cr_assert(eq(int, pthread_create(&thread, NULL, fail_elsewhere, NULL), 0));
    pthread_join(thread, NULL);

    cr_assert(eq(str, (char *)lk_last_error(), "of this thread (EBUSY)"));
}

Test(error, text_keeps_errno)
{
    errno = EXDEV;
    lki_fail(-EBUSY, "something");
    lki_fail_hint(-EBUSY, "something");
    cr_assert(eq(int, errno, EXDEV));
}

Test(error, every_code_has_words)
{
    for (int code = 1; code < 4096; code++)
        cr_expect(ne(ptr, (void *)lk_strerror(-code), NULL), "code %d", code);
    cr_expect(eq(str, (char *)lk_strerror(-4095), "unknown code"));
    cr_expect(eq(str, (char *)lk_strerror(12345), "unknown code"));
    cr_expect(eq(str, (char *)lk_strerror(LK_ACQUIRED), "done"));
    cr_expect(ne(str, (char *)lk_strerror(-EDEADLK), "unknown code"));
}
