# SPDX-License-Identifier: MIT
"""check_leftovers.py before|after STATE DAEMON

`before` writes down what there is of ours on the machine: processes that run DAEMON, entries of
/tmp named lk-* or lockkeeper-*, and Unix sockets below such paths. `after` fails if there is more
than before. What a living process of somebody else names in its command line is not ours: several
checkouts may be tested on one machine."""

import glob
import json
import os
import re
import sys
import time

OURS = re.compile(r"/tmp/(?:lk-|lockkeeper-)[^/\0 ]*")
PATIENCE_S = 10


def processes():
    """pid -> (executable, command line) of all that can be read."""
    found = {}
    for entry in glob.glob("/proc/[0-9]*"):
        try:
            executable = os.readlink(entry + "/exe").removesuffix(" (deleted)")
            with open(entry + "/cmdline", "rb") as file:
                found[int(entry[6:])] = (executable, file.read().decode(errors="replace"))
        except OSError:
            pass  # it ended meanwhile, or is a kernel thread
    return found


def look(daemon):
    """What there is now, as a set of lines."""
    running = processes()
    foreign = set()
    build = os.path.dirname(os.path.dirname(daemon))
    for executable, command in running.values():
        if not executable.startswith(build + "/"):
            foreign.update(OURS.findall(command))
    found = {f"process {pid}: {command.replace(chr(0), ' ').strip()}"
             for pid, (executable, command) in running.items() if executable == daemon}
    for path in glob.glob("/tmp/lk-*") + glob.glob("/tmp/lockkeeper-*"):
        if path not in foreign:
            found.add(f"file {path}")
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        for path in OURS.findall(file.read()):
            if path not in foreign:
                found.add(f"socket below {path}")
    return found


def main() -> int:
    phase, state, daemon = sys.argv[1:]
    if phase == "before":
        with open(state, "w", encoding="utf-8") as file:
            json.dump(sorted(look(daemon)), file)
        return 0
    with open(state, encoding="utf-8") as file:
        before = set(json.load(file))
    # A daemon that a client started ends a moment after its last client has gone.
    deadline = time.monotonic() + PATIENCE_S
    while (left := look(daemon) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    for line in sorted(left):
        print("left behind:", line)
    print(f"{len(left)} left behind by the tests")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
