# SPDX-License-Identifier: MIT
"""tell_exit.py PROGRAM [ARGUMENT...]: runs it and prints, behind what it prints, how it ended: for an
expression that has to see both. Ends with 0 or 1 as the program did, also if that was by a signal."""

import subprocess
import sys


def main() -> int:
    done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False)
    print(done.stdout)
    print("exit code: zero" if done.returncode == 0 else f"exit code: not zero, {done.returncode}")
    return 0 if done.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
