#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""lockkeeper monitor: what it prints of what happens, how it ends, and what a slow reader loses."""
import fcntl
import json
import os
import signal
import struct
import termios
import unittest

from harness import LOCKKEEPER, LOCKKEEPERD, LONG_S, BrokerTest, exact

HELPERS = os.environ["LK_HELPERS"]
CLOCK = r"\d\d:\d\d:\d\d\.\d\d\d "
WATCHING = "lockkeeper: monitor: watching; locks that nobody has to wait for do not show"


class Monitor(BrokerTest):
    def setUp(self):
        self.rest()  # what ends only now would be told

    def watch(self, *arguments, **options):
        """Starts `lockkeeper monitor ARGUMENTS`, waits until it watches."""
        monitor = self.start(LOCKKEEPER, "monitor", *arguments, **options)
        self.assertEqual(monitor.line(monitor.stderr), WATCHING)
        return monitor

    def next(self, monitor):
        return json.loads(monitor.line())

    def until_event(self, monitor, event):
        """Reads until one of this kind; (it, the kinds before it)."""
        before = []
        while True:
            found = self.next(monitor)
            if found["event"] == event:
                return found, before
            before.append(found["event"])

    def test_lines_of_a_short_life(self):
        monitor = self.watch("--segment", "short", "--count", "4")
        self.assertEqual(self.lk("run", "short", "true")[0], 0)
        code, out, err = monitor.finish()
        self.assertEqual((code, err), (0, ""))
        who = r"'short' %s\[\d+\] \(\S+\)"
        patterns = ["segment-created   " + who % "lockkeeper" + ": 0 bytes",
                    "attached          " + who % "lockkeeper",
                    # What it is called by then, if the broker still looks in time.
                    "detached          " + who % "(?:true|lockkeeper)" + ": exited",
                    r"segment-ended     'short' \(\S+\)"]
        self.assertRegex(out, "^" + "".join(CLOCK + pattern + "\n" for pattern in patterns) + "$")

    def test_json_of_a_death_inside(self):
        monitor = self.watch("--json", "--segment", "torn")
        self.addCleanup(self.lk, "seg", "rm", "torn")
        dead = self.start(os.path.join(HELPERS, "hold_and_die"), "torn")
        dead.wait(LONG_S)
        damaged, before = self.until_event(monitor, "lock-damaged")
        self.assertEqual(before, ["segment-created", "attached"])
        token = self.locks("torn")["torn"]["token"]
        expected = {"schema": "lockkeeper.monitor/1", "pid": dead.pid, "uid": os.getuid(),
                    "command": "hold_and_die", "name": "torn", "segment": "torn", "lock": 0,
                    "lock_name": None, "token": token, "cause": "exited", "lost": 0}
        self.assertEqual({key: damaged[key] for key in expected}, expected)
        self.assertRegex(damaged["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(self.next(monitor)["event"], "detached")

    def test_waiter_and_holder(self):
        holder = self.hold("busy#orders")
        monitor = self.watch("--json")
        waiter = self.wait_for("busy#orders", "--", "true")
        found, _ = self.until_event(monitor, "lock-waited-for")
        self.assertEqual((found["name"], found["pid"], found["lock_name"]), ("busy#orders", holder.pid, "orders"))
        self.assertEqual(found["text"], "pid %d (lockkeeper) waits for it" % waiter.pid)
        holder.stdin.close()
        ended, _ = self.until_event(monitor, "process-ended")
        self.assertEqual(ended["pid"], holder.pid)
        self.assertEqual(waiter.finish()[0], 0)

    def test_deadlock_is_told_with_its_ring(self):
        monitor = self.watch("--json")
        member = self.start(os.path.join(HELPERS, "wait_unasked"), "zoo", "ant")
        self.assertEqual(member.line(), "held")
        runner = self.start(LOCKKEEPER, "run", "-l", "ant", "-l", "zoo", "--", "true")
        found, _ = self.until_event(monitor, "lock-waited-for")
        self.assertEqual(found["pid"], member.pid)
        member.stdin.write("\n")
        member.stdin.flush()
        found, _ = self.until_event(monitor, "deadlock")
        self.assertEqual((found["name"], found["pid"]), ("zoo", runner.pid))
        self.assertEqual(found["text"], "2 sessions in a ring: it waits for 'zoo', held by pid %d (wait_unasked), "
                         "which waits for 'ant', held by pid %d (lockkeeper)" % (member.pid, runner.pid))
        self.assertEqual(runner.finish()[0], 75)

    def test_session_and_its_segment(self):
        monitor = self.watch("--json")
        self.assertEqual(self.lk("seg", "create", "made", "--size", "4K")[0], 0)
        self.assertEqual(self.lk("seg", "rm", "made")[0], 0)
        kinds, created = [], None
        while kinds.count("session-ended") < 2:
            event = self.next(monitor)
            kinds.append(event["event"])
            if event["event"] == "segment-created":
                created = event
        self.assertEqual(kinds, ["session-opened", "segment-created", "attached", "detached", "session-ended",
                                 "session-opened", "segment-removed", "segment-ended", "session-ended"])
        self.assertEqual((created["name"], created["size_bytes"], created["command"]), ("made", 4096, "lockkeeper"))

    def test_signals_and_a_closed_pipe_end_it_with_0(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            monitor = self.watch()
            monitor.send_signal(number)
            self.assertEqual(monitor.finish(), (0, "", ""))
        monitor = self.watch()
        monitor.stdout.close()  # and nothing happens that it could print
        self.assertEqual(monitor.wait(LONG_S), 0)

    def test_broker_that_goes_ends_it_with_66(self):
        path = os.path.join(self.directory, "mortal.sock")
        broker = self.start(LOCKKEEPERD, "--socket", path)
        self.until(lambda: self.lk("--socket", path, "where")[0] == 0)
        monitor = self.watch("--socket", path)
        broker.terminate()
        self.assertEqual(broker.finish()[0], 0)
        code, out, err = monitor.finish()
        self.assertEqual((code, out), (66, ""))
        self.assertRegex(err, "^lockkeeper: cannot watch any longer: the broker at %s is gone" % exact(path))
        os.unlink(path + ".lock")

    def test_reader_that_sleeps_loses_events_and_nobody_else_anything(self):
        monitor = self.watch("--json", "--segment", "flood")
        other = self.watch("--json", "--segment", "flood")
        monitor.send_signal(signal.SIGSTOP)
        self.assertEqual(self.lk("seg", "create", "flood")[0], 0)
        self.addCleanup(self.lk, "seg", "rm", "flood")
        told = [self.next(other)["lost"] for _ in range(3)]  # created, attached, detached
        with open("/proc/sys/net/core/wmem_default", encoding="ascii") as file:
            held = int(file.read()) // 768  # about; a record in a socket costs its buffer as well
        writer = self.start(os.path.join(HELPERS, "attach_often"), "flood", "20")
        for _ in range(held // 40 + 3):
            writer.stdin.write("\n")
            writer.stdin.flush()
            told += [self.next(other)["lost"] for _ in range(40)]  # so many are never too many at once
        self.assertEqual(sum(told), 0, "who reads loses nothing")
        monitor.send_signal(signal.SIGCONT)
        for _ in range(50):
            self.assertEqual(self.next(monitor)["lost"], 0)
        writer.stdin.write("\n")  # now there is room: an event comes that says what was lost
        self.assertEqual(writer.finish(), (0, "", ""))
        event, got = {"lost": 0}, 50
        while event["lost"] == 0:
            event = self.next(monitor)
            got += 1
            self.assertLess(got, len(told))
        self.assertGreater(event["lost"], 0)
        monitor.terminate()
        self.assertEqual(monitor.wait(LONG_S), 0)

    def test_signal_ends_it_although_its_output_is_full(self):
        monitor = self.watch("--json", "--segment", "pipe")
        fcntl.fcntl(monitor.stdout, fcntl.F_SETPIPE_SZ, 8192)
        self.assertEqual(self.lk("seg", "create", "pipe")[0], 0)
        self.addCleanup(self.lk, "seg", "rm", "pipe")
        for _ in range(8):  # three lines each, of some 400 bytes
            self.assertEqual(self.lk("run", "pipe", "true")[0], 0)

        def waiting_bytes():
            return struct.unpack("i", fcntl.ioctl(monitor.stdout, termios.FIONREAD, b"\0" * 4))[0]
        self.until(lambda: waiting_bytes() > 4096)
        monitor.terminate()
        self.assertEqual(monitor.wait(LONG_S), 0)

    def test_foreign_user_sees_what_it_may_read_and_no_more(self):
        if os.getuid() != 0:
            self.skipTest("needs to become another user")
        os.chmod(self.socket, 0o666)
        os.chmod(self.directory, 0o755)
        self.addCleanup(os.chmod, self.directory, 0o700)
        self.addCleanup(os.chmod, self.socket, 0o600)

        def demote():
            os.setgroups([])
            os.setgid(20000)
            os.setuid(20000)

        monitor = self.watch("--json", preexec_fn=demote)
        for name, mode in (("hidden", "600"), ("open", "644")):
            self.assertEqual(self.lk("seg", "create", name, "--mode", mode)[0], 0)
            self.assertEqual(self.lk("seg", "rm", name)[0], 0)
        found, before = self.until_event(monitor, "segment-ended")
        self.assertEqual(found["segment"], "~0/open")
        self.assertEqual(before, ["segment-created", "attached", "detached", "segment-removed"])

    def test_names_are_fit_for_a_terminal_and_for_json(self):
        monitor = self.watch("--json", "--count", "1", "--segment", 'q"\\u')
        self.lk("run", 'q"\\u', "true")
        code, out, _ = monitor.finish()
        self.assertEqual((code, json.loads(out)["name"]), (0, 'q"\\u'))
        # What a process calls itself is its own choice.
        script = os.path.join(self.directory, "a\x1b[2Jb")
        os.symlink(LOCKKEEPER, script)
        self.addCleanup(os.unlink, script)
        monitor = self.watch("--count", "2", "--segment", "escape")
        environment = dict(self.environment, LOCKKEEPERD=LOCKKEEPERD)
        self.assertEqual(self.program(script, "run", "escape", "true", env=environment)[0], 0)
        self.assertIn(" a?[2Jb[", monitor.finish()[1])

    def test_wrong_usage(self):
        tail = exact("; try 'lockkeeper monitor --help'")
        self.assert_refused(["monitor", "x"], 64, exact("lockkeeper: monitor: too many arguments") + tail)
        for count in ("0", "-1", "many"):
            self.assert_refused(["monitor", "--count", count], 64, exact(
                "lockkeeper: monitor: --count is a number from 1 on, not '%s'" % count) + tail)
        self.assert_refused(["monitor", "--segment", "a/b"], 64, "lockkeeper: .*EINVAL.*")

    def test_more_watchers_than_there_may_be(self):
        watchers = [self.watch("--segment", "none") for _ in range(32)]
        code, out, err = self.lk("monitor")
        self.assertEqual((code, out), (71, ""))
        self.assertEqual(err, "lockkeeper: cannot watch the broker: as many sessions as may do so get events "
                         "already (EDQUOT); end one of them\n")
        for watcher in watchers:
            watcher.terminate()
            self.assertEqual(watcher.wait(LONG_S), 0)
        self.watch("--segment", "none")


if __name__ == "__main__":
    unittest.main()
