/* SPDX-License-Identifier: MIT */
/* attach_often NAME TIMES: for each line of its input opens the segment NAME and closes it again, TIMES
 * times, over one session. */
#include <stdio.h>
#include <stdlib.h>

#include <lockkeeper/lockkeeper.h>

static int fail(void)
{
    fprintf(stderr, "%s\n", lk_last_error());
    return 1;
}

int main(int argc, char **argv)
{
    struct lk_session *session;
    char line[8];
    if (argc != 3 || lk_session_open(NULL, NULL, &session) < 0)
        return fail();
    while (fgets(line, sizeof(line), stdin)) {
        for (int i = atoi(argv[2]); i > 0; i--) {
            struct lk_segment *segment;
            if (lk_segment_open(session, argv[1], NULL, &segment) < 0)
                return fail();
            lk_segment_close(segment);
        }
    }
    lk_session_close(session);
    return 0;
}
