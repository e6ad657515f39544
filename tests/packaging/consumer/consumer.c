/* SPDX-License-Identifier: MIT */
/* A program that knows only the installed package. Valid C11 and C++17. */
#include <lockkeeper/inline.h>
#include <lockkeeper/lockkeeper.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    const char *text = lk_strerror(-ETIMEDOUT);
    if (text == NULL || text[0] == '\0') {
        fprintf(stderr, "consumer: no text for -ETIMEDOUT\n");
        return 1;
    }

    /* Nobody can have made a socket below a device: the library has to say no, and say why. */
    struct lk_session_options options;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.flags = LK_NO_AUTOSTART;
    struct lk_session *session = NULL;
    int r = lk_session_open("/dev/null/lockkeeper.sock", &options, &session);
    if (r >= 0 || session != NULL) {
        fprintf(stderr, "consumer: opened a session with nobody: %d\n", r);
        return 1;
    }
    if (lk_inline_acquire(NULL, NULL, LK_EXCLUSIVE, 0) != -EINVAL || lk_lock_inline(NULL, 1)) {
        fprintf(stderr, "consumer: locked nothing\n");
        return 1;
    }
    printf("%s; %s\n", text, lk_last_error());
    return lk_last_error()[0] == '\0';
}
