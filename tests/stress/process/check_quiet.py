# SPDX-License-Identifier: MIT
"""check_quiet.py PROGRAM: runs quiet_pairs under strace. Fails if it made any system call between
two marks (getppid), or if not all marks are there."""

import re
import subprocess
import sys
import tempfile

MARKS = 5


def main() -> int:
    with tempfile.NamedTemporaryFile(prefix="lk-test-strace-") as trace:
        # -f: calls of any thread count; the broker, a child, is traced too and told apart by its
        # pid below. -z is not wanted: a call that fails is a call.
        run = subprocess.run(["strace", "-f", "-qq", "-o", trace.name, *sys.argv[1:]], check=False)
        if run.returncode != 0:
            print(f"quiet_pairs ended with {run.returncode}")
            return 1
        lines = trace.read().decode(errors="replace").splitlines()
    calls = [re.match(r"(\d+) +(\w+)\(", line) for line in lines]
    calls = [(match[1], match[2]) for match in calls if match]
    marked = {pid for pid, name in calls if name == "getppid"}
    # The broker's starter asks for its parent too, but only once, before it becomes the broker.
    own = [pid for pid in marked if calls.count((pid, "getppid")) == MARKS]
    if len(own) != 1:
        print(f"expected one process with {MARKS} marks, found {len(own)}")
        return 1
    names = [name for pid, name in calls if pid == own[0]]
    first = names.index("getppid")
    last = len(names) - 1 - names[::-1].index("getppid")
    noise = [name for name in names[first:last] if name != "getppid"]
    print(f"{len(names)} system calls in all, {len(noise)} between the marks {noise[:10]}")
    return 1 if noise else 0


if __name__ == "__main__":
    sys.exit(main())
