#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Lists what the core's library takes from outside, and fails on anything that is not pure.

    check_symbols.py NM LIBRARY

The core decides: no system call, no clock, no output. What it may use is written down here.
"""
import re
import subprocess
import sys

ALLOWED = [
    # memory and strings
    r"malloc|calloc|realloc|free",
    r"mem(cpy|set|cmp|move)|strlen|strcmp|strncmp|memchr|strnlen",
    r"v?snprintf|__v?snprintf_chk|__memcpy_chk|__memset_chk",
    # the engine, and the pure functions of proto and common
    r"lki_area_\w+|lki_attachment_open|lki_lock_\w+|lki_party_\w+|lki_repair_\w+|lki_wait_\w+",
    r"lki_wake_waiters|lki_step_hook",
    r"lki_name_\w+|lki_status_\w+|lki_printable|lki_assert_failed",
    # what compilers and sanitizers put in
    r"__stack_chk_fail|_GLOBAL_OFFSET_TABLE_",
    r"__(a|ub|t)san_\w+|__gcov_\w+|__llvm_\w+|__sanitizer_\w+|__sancov_\w+",
]


def main():
    nm, library = sys.argv[1:]
    listing = subprocess.run(
        [nm, "--format=posix", library], check=True, capture_output=True, text=True
    ).stdout
    defined, undefined = set(), set()
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) < 2 or line.endswith(":"):
            continue
        (undefined if fields[1] in "UwV" else defined).add(fields[0])
    if "lkd_core_new" not in defined:
        sys.exit(f"{library}: this is not the core: it does not define lkd_core_new")
    allowed = re.compile("|".join(f"(?:{pattern})" for pattern in ALLOWED))
    foreign = sorted(name for name in undefined - defined if not allowed.fullmatch(name))
    if foreign:
        sys.exit(f"{library}: the core has to stay pure, but uses: {', '.join(foreign)}")
    print(f"{len(undefined - defined)} symbols from outside, all of them pure")


if __name__ == "__main__":
    main()
