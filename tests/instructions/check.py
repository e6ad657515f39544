#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""check.py PROGRAM FILE [--write]

Counts the instructions of one uncontended pair of each case under callgrind: the difference between two
counts of pairs, so that starting and connecting do not matter. FILE has a line per case: its name and the
count that was agreed on. Fails if one has risen by more than 5 %, or has fallen by more than 5 % and
FILE was not told: it would let the count rise again unseen. --write puts today's counts into FILE.
"""
import re
import subprocess
import sys
import tempfile

FEW, MANY = 2000, 52000
TOLERANCE = 0.05
HEADER = ("# SPDX-License-Identifier: MIT\n"
          "# Instructions of one uncontended pair, release build, x86-64, gcc 12: counted by callgrind.\n"
          "# tests/instructions/check.py PROGRAM FILE --write puts new ones here; say in the commit why.\n")


def count(program, case, pairs):
    with tempfile.TemporaryDirectory(prefix="lk-test-count-") as folder:
        run = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=" + folder + "/%p.out",
                              program, case, str(pairs)], stderr=subprocess.PIPE, text=True, check=False)
    counted = re.findall(r"Collected : (\d+)", run.stderr)
    if run.returncode != 0 or not counted:
        raise SystemExit("%s %s %d ended with %d:\n%s" % (program, case, pairs, run.returncode, run.stderr))
    return max(int(number) for number in counted)  # a child that starts the broker has counted little


def measured(program, case):
    return (count(program, case, MANY) - count(program, case, FEW)) / (MANY - FEW)


def main():
    program, path = sys.argv[1:3]
    with open(path, encoding="ascii") as file:
        agreed = dict(line.split() for line in file if not line.startswith("#"))
    now = {case: measured(program, case) for case in agreed}
    if "--write" in sys.argv:
        with open(path, "w", encoding="ascii") as file:
            file.write(HEADER + "".join("%s %.1f\n" % row for row in now.items()))
    failed = False
    for case, instructions in now.items():
        before = float(agreed[case])
        change = instructions / before - 1
        bad = abs(change) > TOLERANCE
        failed |= bad
        print("%-17s %6.1f instructions, %+.1f %% of %.1f%s" % (
            case, instructions, 100 * change, before,
            "" if not bad else ": too many" if change > 0 else ": fewer; write it down"))
    return 1 if failed and "--write" not in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
