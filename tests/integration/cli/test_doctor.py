#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""lockkeeper doctor: each thing that it looks for, made wrong."""
import json
import os
import resource
import shutil
import socket
import subprocess
import threading
import unittest

from harness import LOCKKEEPER, LOCKKEEPERD, LONG_S, BrokerTest, exact

HELPERS = os.environ["LK_HELPERS"]


class Doctor(BrokerTest):
    def setUp(self):
        self.rest()

    def findings(self, *arguments, code=1, **options):
        """By check: [(health, found, advice)] of those that are not ok; all must be asked for by name."""
        got, out, err = self.lk("doctor", "--json", *arguments, **options)
        self.assertEqual((got, err), (code, ""), out)
        document = json.loads(out)
        self.assertEqual(document["schema"], "lockkeeper.doctor/1")
        self.assertEqual(document["health"] == "ok", code == 0)
        found = {}
        for finding in document["findings"]:
            self.assertEqual(finding["health"] == "ok", finding["advice"] is None, finding)
            found.setdefault(finding["check"], []).append((finding["health"], finding["found"], finding["advice"]))
        return found

    def wrong(self, *arguments, **options):
        """As above, only what is not ok; asserts that it is one finding, and returns (check, health, found, advice)."""
        found = [(check,) + finding for check, findings in self.findings(*arguments, **options).items()
                 for finding in findings if finding[0] != "ok"]
        self.assertEqual(len(found), 1, found)
        return found[0]

    def path(self, name):
        path = os.path.join(self.directory, name)
        self.addCleanup(lambda: os.path.lexists(path + ".lock") and os.unlink(path + ".lock"))
        self.addCleanup(lambda: os.path.lexists(path) and os.unlink(path))
        return path

    def broker_at(self, path, *arguments, **options):
        broker = self.start(LOCKKEEPERD, "--socket", path, *arguments, stderr=subprocess.DEVNULL, **options)
        self.until(lambda: self.lk("--socket", path, "where")[0] == 0)
        return broker

    def test_healthy(self):
        code, out, err = self.lk("doctor")
        self.assertEqual((code, err), (0, ""), out)
        lines = out.splitlines()
        self.assertEqual(lines[-2:], ["", "All is well."])
        self.assertRegex(lines[0], "^ok       broker: pid %d answers at %s" % (self.broker.pid, exact(self.socket)))
        checks = {"broker", "owner", "pid-namespace", "files", "maps", "kernel", "memory", "program", "damaged",
                  "long-wait", "ring"}
        self.assertEqual({line.split()[1].rstrip(":") for line in lines[:-2]}, checks)
        self.assertEqual(set(self.findings(code=0)), checks)

    def test_nobody_there_yet_is_well(self):
        found = self.findings("--socket", self.path("future.sock"), code=0)
        self.assertRegex(found["broker"][0][1], "^nobody answers; the next program starts a broker at ")

    def test_stale_socket(self):
        path = self.path("stale.sock")
        broker = self.broker_at(path)
        broker.kill()
        broker.wait(LONG_S)
        self.assertEqual(self.wrong("--socket", path), (
            "socket", "warning", "nobody listens at %s: its broker ended without cleaning up" % path,
            "the next client replaces it; or start a broker: lockkeeperd --socket %s" % path))
        code, out, _ = self.lk("--socket", path, "doctor")
        self.assertEqual(code, 1)
        self.assertIn("\nwarning  socket: nobody listens at %s" % path, out)
        self.assertIn("\n         the next client replaces it", out)
        self.assertTrue(out.endswith("\n\n0 problems, 1 warning.\n"), out)

    def test_socket_removed_under_a_living_broker(self):
        path = self.path("gone.sock")
        broker = self.broker_at(path)
        os.unlink(path)
        check, health, found, advice = self.wrong("--socket", path)
        self.assertEqual((check, health), ("socket", "problem"))
        self.assertEqual(found, "a broker (pid %d) holds %s.lock, but its socket has been removed" % (
            broker.pid, path))
        self.assertIn("'kill %d'" % broker.pid, advice)
        left = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        left.bind(path)
        left.close()
        self.assertIn("was replaced: nobody listens at it", self.wrong("--socket", path)[2])

    def test_plain_file_in_its_place(self):
        path = self.path("plain")
        with open(path, "w"):
            pass
        self.assertEqual(self.wrong("--socket", path), (
            "socket", "problem", path + " is not a socket",
            "no broker can listen there: remove it, or choose another path: rm " + path))

    def test_path_that_is_too_long(self):
        self.assertEqual(self.wrong("--socket", "/tmp/" + "x" * 120), (
            "path", "problem", "the socket path was given explicitly: too long for a socket address (107 bytes)",
            "choose a shorter path"))

    def test_broker_of_another_version(self):
        path = self.path("old.sock")
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(server.close)
        server.bind(path)
        server.listen()
        server.settimeout(LONG_S)

        def refuse():
            with server.accept()[0] as client:
                client.recv(65536)
                detail = b"this broker speaks protocol 9"
                result = b"\x08\x1f\x1a" + bytes([len(detail)]) + detail  # status VERSION
                client.send(b"\x08\x01\xa2\x08" + bytes([len(result)]) + result)
        thread = threading.Thread(target=refuse)
        thread.start()
        self.addCleanup(thread.join)
        check, health, _, advice = self.wrong("--socket", path)
        self.assertEqual((check, health), ("version", "problem"))
        self.assertIn("of the same release", advice)

    def test_few_descriptors(self):
        path = self.path("few.sock")
        self.broker_at(path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
        check, health, found, advice = self.wrong("--socket", path)
        self.assertEqual((check, health), ("files", "warning"))
        self.assertRegex(found, "^the broker may open 64 files and needs about 34 for 1 sessions and 0 segments; "
                         "there is room for about 15 more$")
        self.assertIn("ulimit -n", advice)

    def test_more_is_allowed_than_the_broker_can_open(self):
        path = self.path("generous.sock")
        self.broker_at(path, "--limit", "sessions=3000", "--limit=segments=2000",
                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)))
        check, health, found, advice = self.wrong("--socket", path)
        self.assertEqual((check, health), ("limits", "warning"))
        self.assertEqual(found, "with 3000 sessions and 2000 segments the broker needs about 10032 files, and may "
                         "open 4096")
        self.assertIn("--limit", advice)

    def test_what_is_allowed_is_there(self):
        path = self.path("modest.sock")
        self.broker_at(path, "--limit", "sessions=100", "--limit", "bytes=1M")
        found = self.findings("--socket", path, code=0)
        self.assertEqual(found["limits"][0][0], "ok")
        self.assertEqual(found["limit-bytes"][0][0], "ok")

    def test_more_memory_is_allowed_than_there_is(self):
        path = self.path("huge.sock")
        self.broker_at(path, "--limit", "bytes=100T")
        check, health, found, _ = self.wrong("--socket", path)
        self.assertEqual((check, health), ("limit-bytes", "warning"))
        self.assertIn("%d MiB together" % (100 << 20), found)

    def in_new_namespace(self, *options):
        """The launcher for a process in namespaces of its own; skips the test where that is not allowed."""
        launcher = ["unshare", "-r", *options]
        if not shutil.which("unshare") or self.program(*launcher, "true")[0] != 0:
            self.skipTest("needs a namespace of its own")
        return launcher

    def test_client_in_another_pid_namespace(self):
        launcher = self.in_new_namespace("--pid", "--fork", "--kill-child", "--mount-proc")
        code, out, err = self.program(*launcher, LOCKKEEPER, "doctor")
        self.assertEqual((code, err), (1, ""))
        self.assertIn("\nwarning  pid-namespace: the broker runs in another pid namespace: ", out)
        self.assertIn("\n0 problems, 1 warning.\n", out)

    def test_broker_that_nobody_outside_its_namespace_may_use(self):
        path = self.path("inside.sock")
        launcher = self.in_new_namespace("--pid", "--fork", "--kill-child")
        broker = self.start(*launcher, LOCKKEEPERD, "--socket", path)
        self.assertIn("listens at", broker.line(broker.stderr))
        check, health, found, advice = self.wrong("--socket", path)
        self.assertEqual((check, health), ("path", "problem"))
        self.assertIn("EACCES", found)
        self.assertIn("in a pid namespace of its own", advice)

    def test_two_brokers(self):
        """With its own /run and /tmp: one where the system's belongs, and one of the user's own."""
        launcher = self.in_new_namespace("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        script = """
            set -e
            mount -t tmpfs none /run
            mkdir -p /run/lockkeeper /run/user/0/lockkeeper
            chmod 700 /run/user/0/lockkeeper
            for path in /run/lockkeeper /run/user/0/lockkeeper; do
                mkfifo $path/ready
                "$1" --socket $path/broker.sock --ready-fd 3 3<>$path/ready 2>/dev/null &
                read x <$path/ready
            done
            "$0" doctor --json || test $? = 1
            echo
            LOCKKEEPER_SOCKET=/run/user/0/lockkeeper/broker.sock "$0" doctor --json || test $? = 1
        """
        environment = dict(self.environment)
        del environment["LOCKKEEPER_SOCKET"]
        code, out, err = self.program(*launcher, "sh", "-c", script, LOCKKEEPER, LOCKKEEPERD, env=environment)
        self.assertEqual((code, err), (0, ""), out)
        plain, chosen = [json.loads(part) for part in out.split("\n\n")]
        for document, used, other in ((plain, "/run/lockkeeper", "/run/user/0/lockkeeper"),
                                      (chosen, "/run/user/0/lockkeeper", "/run/lockkeeper")):
            found = [finding for finding in document["findings"] if finding["health"] != "ok"]
            self.assertEqual([finding["check"] for finding in found], ["second-broker"])
            self.assertRegex(found[0]["found"],
                             r"^pid \d+ answers at %s/broker.sock \(.*\), beside pid \d+ at %s/broker.sock, which is "
                             "used from here$" % (other, used))
            self.assertIn("LOCKKEEPER_SOCKET", found[0]["advice"])

    def test_program_that_is_not_there(self):
        missing = dict(self.environment, LOCKKEEPERD="/nonexistent/lockkeeperd")
        self.assertEqual(self.wrong(env=missing)[:2], ("program", "warning"))
        self.assertEqual(self.wrong("--socket", self.path("none.sock"), env=missing)[:2], ("program", "problem"))
        self.findings(code=0, env=dict(missing, LOCKKEEPER_AUTOSTART="0"))

    def test_damaged_lock(self):
        dead = self.start(os.path.join(HELPERS, "hold_and_die"), "torn")
        dead.wait(LONG_S)
        self.addCleanup(self.lk, "seg", "rm", "torn")
        self.until(lambda: self.locks("torn")["torn"]["state"] == "damaged")
        check, health, found, advice = self.wrong()
        self.assertEqual((check, health), ("damaged", "warning"))
        self.assertEqual(found, "the last owner of 'torn' died while it changed the data, and nobody has repaired that")
        self.assertIn("lockkeeper why 'torn'", advice)
        self.lk("seg", "rm", "torn")
        self.findings(code=0)

    def test_long_wait(self):
        holder = self.hold("slow")
        waiter = self.wait_for("slow", "--", "true")
        self.findings(code=0)
        check, health, found, advice = self.wrong("--longest-wait", "0")
        self.assertEqual((check, health), ("long-wait", "warning"))
        self.assertRegex(found, r"^somebody has waited for 'slow' for .*; it is held by sh\[%d\]$" % holder.pid)
        self.assertIn("lockkeeper why 'slow'", advice)
        holder.stdin.close()
        self.assertEqual(waiter.finish()[0], 0)

    def test_ring(self):
        members = [self.start(os.path.join(HELPERS, "wait_unasked"), *names)
                   for names in (("left", "right"), ("right", "left"))]
        for member in members:
            self.assertEqual(member.line(), "held")
        for member in members:
            member.stdin.write("\n")
            member.stdin.flush()
        self.until(lambda: self.lk("graph")[0] == 3)
        check, health, found, advice = self.wrong()
        self.assertEqual((check, health), ("ring", "problem"))
        for member in members:
            self.assertIn("wait_unasked[%d]" % member.pid, found)
        self.assertIn("lockkeeper graph", advice)

    def test_wrong_usage(self):
        self.assert_refused(["doctor", "x"], 64, exact(
            "lockkeeper: doctor: too many arguments; try 'lockkeeper doctor --help'"))
        self.assert_refused(["doctor", "--longest-wait", "x"], 64, exact(
            "lockkeeper: doctor: --longest-wait takes seconds, not 'x'; try 'lockkeeper doctor --help'"))


if __name__ == "__main__":
    unittest.main()
