# SPDX-License-Identifier: MIT
"""Checks docs/security.md: each row of the threat and of the fault model is there once, says what is promised, and
names tests that exist."""

import argparse
import json
import pathlib
import re
import subprocess
import sys

ROWS = [f"A{i}" for i in range(1, 33)] + [f"F{i}" for i in range(1, 28)]
TEST_NAME = re.compile(r"`([a-z][a-z0-9_]*)(?:/([a-z][a-z0-9_]*))?`(?: (A\d+))?")
# A test that only some builds have (figures, say) is no less a test.
IN_CMAKE = re.compile(r"(?:lk_figure_test|lk_process_test|lk_program_test|lk_faults_test)\((\w+)")
# Test(suite, case, and macros that put the suite in: LOCK_TEST(case.
CASE = re.compile(r"^(?:Test\(\w+,\s*|ParameterizedTest\([^,]*,\s*\w+,\s*|[A-Z]+_TEST\()(\w+)", re.M)
METHOD = re.compile(r"^\s+def (test_\w+)", re.M)
HOSTILE = re.compile(r'\.id = "(A\d+)"')


def known_tests(ctest, build, source):
    listed = subprocess.run([ctest, "--test-dir", build, "--show-only=json-v1"], check=True,
                            capture_output=True, text=True)
    names = {test["name"] for test in json.loads(listed.stdout)["tests"]}
    for file in (source / "tests").rglob("CMakeLists.txt"):
        names.update(IN_CMAKE.findall(file.read_text()))
    return names


def known_cases(source):
    cases = set()
    for file in (source / "tests").rglob("*.c"):
        cases.update(CASE.findall(file.read_text()))
    for file in (source / "tests").rglob("*.py"):
        cases.update(METHOD.findall(file.read_text()))
    return cases


def attacks_of(source, name):
    file = source / "tests" / "hostile" / f"test_{name.removeprefix('hostile_')}.c"
    return HOSTILE.findall(file.read_text()) if file.exists() else []


def check_row(row, promise, where, names, cases, source):
    """What is wrong with one row, as texts."""
    wrong = []
    tests = TEST_NAME.findall(where)
    if not promise.strip():
        wrong.append(f"{row}: nothing is promised")
    if not tests and not where.strip().startswith("promised; comes with "):
        wrong.append(f"{row}: neither a test nor the part that it comes with")
    for name, case, attack in tests:
        if name not in names:
            wrong.append(f"{row}: there is no test '{name}'")
        if case and case not in cases:
            wrong.append(f"{row}: there is no case '{case}'")
        if name.startswith("hostile_") and attack not in attacks_of(source, name):
            wrong.append(f"{row}: {name} has no row '{attack}'")
    return wrong


def check_hostile_rows(source, text):
    """Each attack that is programmed is in the page, in its own row."""
    wrong = []
    for file in sorted((source / "tests" / "hostile").glob("test_*.c")):
        program = "hostile_" + file.stem.removeprefix("test_")
        for attack in sorted(set(HOSTILE.findall(file.read_text()))):
            line = re.search(rf"^\| {attack} \|.*$", text, re.M)
            if line and f"`{program}` {attack}" not in line[0] and "comes with" not in line[0]:
                wrong.append(f"{attack}: {program} attacks it, and the page does not say so")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--build", required=True)
    parser.add_argument("--ctest", required=True)
    arguments = parser.parse_args()
    source = arguments.source
    text = (source / "docs/security.md").read_text()
    names = known_tests(arguments.ctest, arguments.build, source)
    cases = known_cases(source)
    found = re.findall(r"^\| ([AF]\d+) \|([^|]*)\|([^|]*)\|([^|]*)\|$", text, re.M)
    wrong = [f"{row} is there {count} times" for row in ROWS
             if (count := sum(1 for line in found if line[0] == row)) != 1]
    wrong += [f"{line[0]} is no row of the models" for line in found if line[0] not in ROWS]
    for row, _, promise, where in found:
        wrong += check_row(row, promise, where, names, cases, source)
    wrong += check_hostile_rows(source, text)
    print("\n".join(wrong) or f"{len(found)} rows, {len(TEST_NAME.findall(text))} tests named")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
