# SPDX-License-Identifier: MIT
"""docs/errors.md against the programs: every row of its tables comes out as it stands there.

A row is | what was done | result | `text` | test |. In the text, an ellipsis stands for what changes from
run to run. The test is one of
  misuse NAME      a case of the program misuse, which also checks that nobody has lost anything by it
  cli NAME         a case below, run through the command line
  FILE: NAME       a test elsewhere, which has to exist
"""
import json
import os
import re
import resource
import socket
import sys
import unittest

SOURCE = os.environ["LK_SOURCE"]
sys.path.insert(0, os.path.join(SOURCE, "tests/integration/cli"))
from harness import LOCKKEEPER, LOCKKEEPERD, BrokerTest  # noqa: E402


class Row:
    def __init__(self, line):
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if len(cells) != 4:
            raise AssertionError("docs/errors.md: not four cells: " + line)
        self.what, self.result, text, self.test = cells
        self.text = text.strip("`")
        self.pattern = ".*?".join(re.escape(part) for part in self.text.split("…"))


def read_rows():
    rows, in_table = [], False
    with open(os.path.join(SOURCE, "docs/errors.md"), encoding="utf-8") as document:
        for line in document:
            if line.startswith("| input "):
                in_table = True
            elif not line.startswith("|"):
                in_table = False
            elif in_table and not line.startswith("| ---"):
                rows.append(Row(line))
    return rows


ROWS = read_rows()


def rows_of(kind):
    """By name: the rows whose test is 'KIND NAME'."""
    found = {}
    for row in ROWS:
        if row.test.startswith(kind + " "):
            name = row.test[len(kind) + 1:]
            if name in found:
                raise AssertionError("docs/errors.md: twice: " + row.test)
            found[name] = row
    return found


class Document(unittest.TestCase):
    def test_every_row_names_a_test_that_exists(self):
        for row in ROWS:
            with self.subTest(row.test):
                if row.test.startswith(("misuse ", "cli ")):
                    continue  # below
                path, name = row.test.split(": ")
                with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
                    text = file.read()
                self.assertRegex(text, r"(TEST|Test)\((\w+, )?%s\b|def %s\(" % (name, name))


class Library(BrokerTest):
    def test_every_misuse_has_its_result_and_text_and_loses_nothing(self):
        code, out, err = self.program(os.environ["LK_MISUSE"], self.socket, self.directory)
        rows = rows_of("misuse")
        for line in out.splitlines():
            name, result, text = line.split("\t")
            with self.subTest(name):
                self.assertIn(name, rows, "docs/errors.md has no such row; it says: " + text)
                row = rows.pop(name)
                self.assertEqual(row.result, result)
                self.assertRegex(text, "^" + row.pattern + "$")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(list(rows), [], "in docs/errors.md, but in no test")


class CommandLine(BrokerTest):
    """Each case: a method with the name that the document has. It returns (code, stdout, stderr)."""

    def unwritable(self, *command):
        """As a user who may not write to the directory."""
        become = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        os.chmod(self.directory, 0o755)
        # The program runs from anywhere; the daemon that it starts has to be reachable for that user.
        if self.program(*become, "test", "-x", LOCKKEEPERD)[0] != 0:
            self.skipTest("the build directory is closed to other users")
        return self.program(*become, *command)

    def dead_socket(self):
        path = os.path.join(self.directory, "dead.sock")
        dead = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        dead.bind(path)
        dead.close()
        self.addCleanup(os.unlink, path)
        return path

    def plain_file(self):
        path = os.path.join(self.directory, "plain")
        if not os.path.exists(path):
            open(path, "w").close()
            self.addCleanup(os.unlink, path)
            self.addCleanup(os.unlink, path + ".lock")  # of the broker that refused
        return path

    def case_no_broker(self):
        return self.lk("--socket", self.directory + "/none.sock", "ls")

    def case_dead_socket(self):
        return self.lk("--socket", self.dead_socket(), "ls")

    def case_plain_file(self):
        return self.lk("--socket", self.plain_file(), "run", "a", "true")

    def case_long_path(self):
        return self.lk("--socket", "/tmp/" + "x" * 120, "ls")

    def case_unwritable_path(self):
        if os.getuid() != 0:
            self.skipTest("needs to become another user")
        return self.unwritable(LOCKKEEPER, "--socket", self.directory + "/new.sock", "run", "a", "true")

    def case_not_permitted(self):
        if os.getuid() != 0:
            self.skipTest("needs to become another user")
        return self.unwritable(LOCKKEEPER, "ls")

    def case_full_table(self):
        # Where there is a leak checker, it would not find a descriptor left either.
        environment = dict(self.environment, ASAN_OPTIONS="detect_leaks=0")
        return self.lk("run", "a", "true", env=environment,
                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4)))

    def case_busy(self):
        self.hold("busy")
        return self.lk("run", "-n", "busy", "true")

    def case_gave_up(self):
        self.hold("slow")
        return self.lk("run", "-w", "0.05", "slow", "true")

    def case_wrong_name(self):
        return self.lk("run", "a/b", "true")

    def case_monitor_name(self):
        return self.lk("monitor", "--segment", "a/b")

    def case_monitor_count(self):
        return self.lk("monitor", "--count", "0")

    def case_doctor_seconds(self):
        return self.lk("doctor", "--longest-wait", "x")

    def case_control_bytes(self):
        return self.lk("seg", "create", "a\x1b[2Jb")

    def case_lock_beyond(self):
        return self.lk("run", "few#16", "true")

    def case_size_zero(self):
        return self.lk("seg", "create", "new", "--size", "0")

    def case_size_2_63(self):
        return self.lk("seg", "create", "new", "--size", "9223372036854775808")

    def case_mode(self):
        return self.lk("seg", "create", "new", "--mode", "1777")

    def case_exists(self):
        self.lk("seg", "create", "twice")
        self.addCleanup(self.lk, "seg", "rm", "twice")
        return self.lk("seg", "create", "twice")

    def case_dump_beyond(self):
        self.lk("seg", "create", "data", "--size", "4K")
        self.addCleanup(self.lk, "seg", "rm", "data")
        return self.lk("seg", "dump", "data", "--offset", "4097")

    def case_remove_unknown(self):
        return self.lk("seg", "rm", "missing")

    def case_remove_foreign(self):
        if os.getuid() != 0:
            self.skipTest("needs to become another user")
        self.lk("seg", "create", "mine")
        self.addCleanup(self.lk, "seg", "rm", "mine")
        os.chmod(self.socket, 0o666)
        try:
            return self.unwritable(LOCKKEEPER, "seg", "rm", "~root/mine")
        finally:
            os.chmod(self.socket, 0o600)

    def case_release_without_force(self):
        self.hold("tight")
        return self.lk("release", "tight")

    def case_release_without_reason(self):
        return self.lk("release", "--force", "tight")

    def case_release_unknown(self):
        return self.lk("release", "--force", "missing", "--reason", "it hangs")

    def case_release_beyond(self):
        self.lk("seg", "create", "small")
        self.addCleanup(self.lk, "seg", "rm", "small")
        return self.lk("release", "--force", "small#16", "--reason", "it hangs")

    def case_cannot_execute(self):
        return self.lk("run", "a", "/nonexistent")

    def broker_at(self, path):
        code, out, err = self.program(LOCKKEEPERD, "--socket", path)
        return code, out, re.sub(r"(?m)^\S+Z ", "", err)

    def case_second_broker(self):
        return self.broker_at(self.socket)

    def case_broker_full(self):
        """A broker of 48 descriptors, and readers until it has none left: the newest is refused."""
        path = os.path.join(self.directory, "full.sock")
        broker = self.start(LOCKKEEPERD, "--socket", path,
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48)))
        self.until(lambda: self.lk("--socket", path, "where")[0] == 0)
        command = [LOCKKEEPER, "--socket", path, "run", "-s", "read", "sh", "-c", "echo held; read x; true"]
        readers = [self.start(*command)]
        while readers[-1].line() == "held":
            readers.append(self.start(*command))
            self.assertLess(len(readers), 64)
        refused = readers.pop().finish()
        self.assertGreater(len(readers), 20)
        # The others hold as before, and where one leaves there is room again.
        self.assertEqual(readers.pop().finish()[0], 0)
        self.until(lambda: self.lk("--socket", path, "ls")[0] == 0)
        listed = json.loads(self.lk("--socket", path, "ls", "--json")[1])["locks"][0]["holders"]
        self.assertEqual({holder["pid"] for holder in listed}, {reader.pid for reader in readers})
        for reader in readers:
            self.assertEqual(reader.finish()[0], 0)
        broker.terminate()
        self.assertEqual(broker.finish()[0], 0)
        os.unlink(path + ".lock")
        return refused

    def case_broker_long_path(self):
        return self.broker_at("/tmp/" + "x" * 120)

    def case_broker_no_directory(self):
        return self.broker_at("/nonexistent/b.sock")

    def case_broker_plain_file(self):
        return self.broker_at(self.plain_file())

    def test_every_refusal_has_its_exit_code_and_text_and_loses_nothing(self):
        self.hold("kept#1")
        fds = "/proc/%d/fd" % self.broker.pid
        before = len(os.listdir(fds))
        token = self.locks("kept")["kept#1"]["token"]
        for name, row in rows_of("cli").items():
            with self.subTest(name):
                code, out, err = getattr(self, "case_" + name.replace("-", "_"))()
                self.assertEqual(("exit %d" % code, out), (row.result, ""), err)
                self.assertRegex(err, "^" + row.pattern + "\n$")
        self.assertEqual({name for name in dir(self) if name.startswith("case_")},
                         {"case_" + name.replace("-", "_") for name in rows_of("cli")})
        self.assertEqual(self.locks("kept")["kept#1"]["token"], token)
        self.doCleanups()
        self.until(lambda: len(os.listdir(fds)) < before)  # also what the holder had


if __name__ == "__main__":
    unittest.main()
