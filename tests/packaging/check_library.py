#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Checks what the shared library exports, what it pulls in, and when that is resolved, of the daemon too.

Exported: every function that the header declares, in the given version node, and nothing else.
Needed at run time: the C library and protobuf-c. Anything more would be a burden on every program
that links us, and a way for two versions of it to meet in one process.
Resolved: when loaded, so that the tables of addresses are read-only from then on.
"""

import argparse
import os
import re
import subprocess
import sys

ALLOWED = re.compile(r"libc\.so\.6|ld-linux.*\.so\.\d|libprotobuf-c\.so\.1")


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def declared_functions(header):
    # Preprocessed, so that comments and macros are gone. What is inline is in no library.
    include = os.path.dirname(os.path.dirname(os.path.abspath(header)))
    text = output_of("cc", "-E", "-P", "-I", include, header)
    inline = set(re.findall(r"static inline \w+ (lk_\w+)\(", text))
    return set(re.findall(r"\b(lk_\w+)\s*\((?!\*)", text)) - inline


def exported_symbols(library):
    """Pairs of name and version node; the node's own symbol is left out."""
    pairs = set()
    for line in output_of("nm", "-D", "--defined-only", "--with-symbol-versions", library).splitlines():
        _, kind, symbol = line.split()
        if kind != "A":
            name, _, node = symbol.partition("@")
            pairs.add((name, node.lstrip("@")))
    return pairs


def dynamic_entries(library, tag):
    return re.findall(rf"\({tag}\).*\[(.*)\]", output_of("readelf", "-dW", library))


def is_resolved_at_start(binary):
    segments, entries = output_of("readelf", "-lW", binary), output_of("readelf", "-dW", binary)
    return "GNU_RELRO" in segments and re.search(r"\(FLAGS_1\).*\bNOW\b", entries) is not None


def faults(arguments):
    declared = declared_functions(arguments.header)
    exported = exported_symbols(arguments.library)
    if not declared:
        yield f"no function found in {arguments.header}"
    for name in sorted(declared - {name for name, _ in exported}):
        yield f"declared but not exported: {name}"
    for name, node in sorted(exported):
        if name not in declared:
            yield f"exported but not declared: {name}"
        if node != arguments.node:
            yield f"{name} is in version node '{node}', not '{arguments.node}'"
    for needed in dynamic_entries(arguments.library, "NEEDED"):
        if not ALLOWED.fullmatch(needed):
            yield f"needs {needed} at run time"
    if dynamic_entries(arguments.library, "SONAME") != [arguments.soname]:
        yield f"soname is {dynamic_entries(arguments.library, 'SONAME')}, not {arguments.soname}"
    for binary in (arguments.library, arguments.daemon):
        if not is_resolved_at_start(binary):
            yield f"{binary} looks for symbols while it runs"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library")
    parser.add_argument("header")
    parser.add_argument("daemon")
    parser.add_argument("--soname", required=True)
    parser.add_argument("--node", required=True)
    found = list(faults(parser.parse_args()))
    for fault in found:
        print(f"check_library: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
