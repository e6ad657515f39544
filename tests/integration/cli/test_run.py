# SPDX-License-Identifier: MIT
"""lockkeeper run: habits and exit codes of flock(1), and what it does better."""
import os
import pty
import pwd
import select
import signal
import time
import unittest

from harness import LOCKKEEPER, LONG_S, BrokerTest, exact

USER = pwd.getpwuid(os.getuid()).pw_name
HOLDER = r"held by sh\[%d\] \(" + USER + r"\)( for [0-9.a-z]+)?"


class SideBySideWithFlock(BrokerTest):
    """The same arguments for both, with FILE and NAME in the same place; the same exit code."""

    def compare(self, before, after, name):
        path = os.path.join(self.directory, "flock." + name)
        with self.subTest(before=before, after=after):
            theirs = self.program("flock", *before, path, *after)
            ours = self.lk("run", *before, name, *after)
            self.assertEqual(ours[0], theirs[0], (ours, theirs))

    def remove_after(self, name):
        path = os.path.join(self.directory, "flock." + name)
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        return path

    def test_a_free_lock(self):
        self.remove_after("free")
        for before, after in [
            ([], ["true"]), ([], ["false"]), ([], ["sh", "-c", "exit 7"]), ([], ["-c", "exit 3"]),
            ([], ["--command", "exit 5"]), (["-F"], ["-c", "exit 4"]), (["-o"], ["sh", "-c", "exit 6"]),
            (["-n"], ["true"]), (["--nb"], ["true"]), (["--nonblock"], ["true"]), (["-s"], ["true"]),
            (["-x"], ["true"]), (["-e"], ["true"]), (["--shared"], ["true"]),
            (["--exclusive"], ["true"]), (["-s", "-x"], ["true"]), (["-w", "0"], ["true"]),
            (["-w", "0.5"], ["true"]), (["-w", "1e-1"], ["true"]), (["--timeout", "1"], ["true"]),
            (["--wait", "1"], ["true"]), (["-n", "-w", "3"], ["true"]), (["-E", "9"], ["sh", "-c", "exit 2"]),
            (["--verbose"], ["true"]), (["--close"], ["true"]), (["--no-fork"], ["true"]),
        ]:
            self.compare(before, after, "free")

    def test_a_command_that_cannot_be_executed(self):
        self.remove_after("free")
        for after in (["/nonexistent/x"], ["/etc/passwd"], [""], ["no-such-command"]):
            self.compare([], after, "free")

    def test_wrong_usage(self):
        self.remove_after("free")
        for before, after in [
            (["-w", "x"], ["true"]), (["-w", "1:00"], ["true"]), (["-E", "300"], ["true"]),
            (["-E", "-1"], ["true"]), (["-E", "x"], ["true"]), (["-F", "-o"], ["true"]),
            (["-z"], ["true"]), ([], ["-c"]), ([], ["-c", "true", "x"]), ([], []),
        ]:
            self.compare(before, after, "free")

    def test_a_lock_held_exclusively(self):
        path = self.remove_after("held")
        theirs = self.start("flock", path, "sh", "-c", "echo held; read x")
        self.assertEqual(theirs.line(), "held")
        self.hold("held")
        for before in (["-n"], ["-w", "0"], ["-w", "0.1"], ["-n", "-E", "9"], ["-w", "0.1", "-E", "9"],
                       ["-n", "-E", "0"], ["-n", "-s"], ["-n", "-w", "9"],
                       ["--nonblock", "--conflict-exit-code", "255"]):
            self.compare(before, ["true"], "held")

    def test_a_lock_held_shared(self):
        path = self.remove_after("shared")
        theirs = self.start("flock", "-s", path, "sh", "-c", "echo held; read x")
        self.assertEqual(theirs.line(), "held")
        self.hold("-s", "shared")
        for before in (["-n", "-s"], ["-n", "-x"], ["-n"], ["-n", "-s", "-x"]):
            self.compare(before, ["true"], "shared")

    def test_a_command_killed_by_a_signal_is_128_and_its_number(self):
        path = self.remove_after("killed")
        for runner in ("flock " + path, LOCKKEEPER + " run killed"):
            _, out, _ = self.program("sh", "-c", runner + " sh -c 'kill -9 $$'; echo $?")
            self.assertEqual(out, "137\n", runner)


class Refusals(BrokerTest):
    """Golden texts, with their exit codes."""

    def test_usage(self):
        def usage(text):
            return exact("lockkeeper: run: " + text + "; try 'lockkeeper run --help'")

        for arguments, text in [
            ([], "no lock given"),
            (["a"], "no command given"),
            (["-l", "a"], "no command given"),
            (["9"], "no command given, and '9' as a descriptor has no counterpart here: the lock belongs to "
                    "a process, not to a descriptor"),
            (["a", "-c"], "-c requires exactly one command argument"),
            (["-c", "x", "a", "y"], "-c requires exactly one command argument"),
            (["-w", "x", "a", "true"], "-w x: not a number of seconds"),
            (["-w", "-1", "a", "true"], "-w -1: out of range (0 and more seconds, or no -w at all to wait "
                                        "for ever)"),
            (["-E", "256", "a", "true"], "-E 256: exit code out of range (expected 0 to 255)"),
            (["-E", "x", "a", "true"], "-E x: not an exit code"),
            (["-u", "a", "true"], "-u: there is no descriptor to unlock; a lock of 'run' ends with its "
                                  "command, nothing earlier and nobody else"),
            (["-F", "-o", "a", "true"], "the --no-fork and --close options are incompatible"),
            (["-l", "a", "-l", "a:s", "true"], "lock 'a' is given twice"),
            (["a#99999999999", "true"], "'a#99999999999': no lock has such a number"),
        ]:
            with self.subTest(arguments):
                self.assert_refused(["run", *arguments], 64, usage(text))

    def test_json_is_refused_where_there_is_nothing_to_read(self):
        self.assert_refused(["--json", "run", "a", "true"], 64,
                            exact("lockkeeper: run: --json: this command prints nothing to read; try "
                                  "'lockkeeper run --help'"))

    def test_names_that_cannot_be(self):
        for name in ("", "a/b", "x" * 256, "tab\there", "a##", "a#"):
            with self.subTest(name):
                code, out, err = self.lk("run", name, "echo", "ran")
                self.assertEqual((code, out), (64, ""), err)
                self.assertRegex(err, r"^lockkeeper: .*\(EINVAL\).*\n$")

    def test_a_lock_beyond_the_table(self):
        code, out, err = self.lk("run", "small#16", "echo", "ran")
        self.assertEqual((code, out), (64, ""), err)
        self.assertIn("ERANGE", err)

    def test_a_command_that_cannot_be_executed(self):
        self.assert_refused(["run", "a", "/nonexistent"], 69,
                            exact("lockkeeper: run: cannot execute '/nonexistent': No such file or directory"))

    def test_busy_names_the_holder_and_the_next_step(self):
        holder = self.hold("busy")
        self.assert_refused(["run", "-n", "busy", "true"], 1,
                            "lockkeeper: busy: busy; " + HOLDER % holder.pid + "; see: lockkeeper why busy")

    def test_giving_up_names_the_holder_and_the_next_step(self):
        holder = self.hold("slow")
        self.assert_refused(["run", "-w", "0.2", "-E", "75", "slow", "true"], 75,
                            r"lockkeeper: slow: gave up after 0\.[2-9] s; " + HOLDER % holder.pid +
                            "; see: lockkeeper why slow")

    def test_the_next_step_has_the_socket_that_was_given(self):
        holder = self.hold("elsewhere")
        self.assert_refused(["run", "--socket", self.socket, "-n", "elsewhere", "true"], 1,
                            "lockkeeper: elsewhere: busy; " + HOLDER % holder.pid + "; see: " +
                            exact("lockkeeper --socket %s why elsewhere" % self.socket))

    def test_several_readers_are_counted(self):
        self.hold("-s", "read")
        self.hold("-s", "read")
        code, _, err = self.lk("run", "-n", "read", "true")
        self.assertEqual(code, 1)
        self.assertRegex(err, r"held shared by sh\[\d+\] .* and 1 more; see: lockkeeper why read\n$")

    def test_quiet_says_nothing_when_giving_up(self):
        self.hold("quiet")
        self.assertEqual(self.lk("run", "-q", "-n", "quiet", "true"), (1, "", ""))
        self.assertEqual(self.lk("-q", "run", "-w", "0.1", "-E", "4", "quiet", "true"), (4, "", ""))

    def test_no_broker(self):
        path = os.path.join(self.directory, "nowhere", "broker.sock")
        code, out, err = self.lk("--socket", path, "run", "a", "echo", "ran")
        self.assertEqual((code, out), (66, ""), err)
        self.assertIn(path, err)

    def test_a_socket_path_that_is_too_long(self):
        code, out, err = self.lk("--socket", "/tmp/" + "x" * 120, "run", "a", "echo", "ran")
        self.assertEqual((code, out), (64, ""), err)
        self.assertIn("107", err)

    def test_a_full_descriptor_table(self):
        # 0 to 2 and one more: enough to load the program, not for a session and two descriptors. The
        # leak checker would need some as well.
        environment = dict(self.environment, ASAN_OPTIONS="detect_leaks=0")
        code, out, err = self.program("sh", "-c", 'ulimit -n 4; exec "$0" run full echo ran', LOCKKEEPER,
                                      env=environment)
        self.assertEqual((code, out), (71, ""), err)
        self.assertRegex(err, r"^lockkeeper: .*\(EMFILE\).*\n$")

    def test_a_file_that_is_no_socket(self):
        path = os.path.join(self.directory, "plain")
        open(path, "w").close()
        self.addCleanup(os.unlink, path)
        code, out, err = self.lk("--socket", path, "ls")
        self.assertEqual((code, out), (66, ""), err)


class Holding(BrokerTest):
    def test_the_command_runs_in_place(self):
        process = self.start(LOCKKEEPER, "run", "place", "sh", "-c", "echo $$")
        self.assertEqual(process.line(), str(process.pid))

    def test_forms_of_the_command_line(self):
        for arguments in (["n", "echo", "ran"], ["n", "--", "echo", "ran"], ["-l", "n", "echo", "ran"],
                          ["-l", "n", "--", "echo", "ran"], ["-l", "n:s", "--", "echo", "ran"],
                          ["-l", "n", "-l", "m:x", "echo", "ran"], ["n", "-c", "echo ran"],
                          ["-l", "n", "-c", "echo ran"], ["-c", "echo ran", "n"], ["--", "n", "echo", "ran"],
                          ["n#3", "echo", "ran"], ["n#orders", "echo", "ran"], ["a:b", "echo", "ran"]):
            with self.subTest(arguments):
                self.assertEqual(self.lk("run", *arguments), (0, "ran\n", ""))

    def test_c_takes_the_shell_of_the_environment(self):
        shell = dict(self.environment, SHELL="/bin/echo")
        self.assertEqual(self.lk("run", "shell", "-c", "a b", env=shell), (0, "-c a b\n", ""))
        shell.pop("SHELL")
        self.assertEqual(self.lk("run", "shell", "-c", "echo $0", env=shell), (0, "/bin/sh\n", ""))

    def test_the_lock_ends_with_the_process_though_a_daemon_stays(self):
        daemon = self.start(LOCKKEEPER, "run", "daemon", "sh", "-c",
                            "sleep 1000 >/dev/null 2>&1 </dev/null & echo $!")
        left = int(daemon.line())
        self.addCleanup(os.kill, left, signal.SIGKILL)
        self.assertEqual(daemon.finish()[0], 0)
        self.assertEqual(self.lk("run", "-w", "10", "daemon", "echo", "free"), (0, "free\n", ""))
        os.kill(left, 0)  # and the daemon still runs

    def test_sigkill_of_the_command_frees_the_lock_at_once(self):
        for options in ([], ["-s"]):
            holder = self.hold(*options, "killed")
            waiter = self.wait_for("killed", "echo", "mine")
            before = time.monotonic()
            holder.kill()
            self.assertEqual(waiter.line(), "mine")
            self.assertLess(time.monotonic() - before, 2)
            code, _, err = waiter.finish()
            self.assertEqual(code, 0)
            self.assertNotIn("warning", err)  # to exit: a plain release

    def test_several_locks_are_taken_in_sorted_order(self):
        second = self.hold("order-b")
        both = self.wait_for("-l", "order-b", "-l", "order-a", "true")
        self.assertEqual(self.lk("run", "-q", "-n", "order-a", "true")[0], 1)
        second.stdin.close()
        self.assertEqual(both.finish()[0], 0)
        first = self.hold("order-a")
        both = self.wait_for("-l", "order-b", "-l", "order-a", "true")
        self.assertEqual(self.lk("run", "-n", "order-b", "true")[0], 0)
        first.stdin.close()
        self.assertEqual(both.finish()[0], 0)

    def test_opposite_orders_never_lock_each_other_out(self):
        loop = 'for i in 1 2 3 4 5 6 7 8 9 10; do "$0" run -w 20 -l "$1" -l "$2" true || exit; done'
        jobs = [self.start("sh", "-c", loop, LOCKKEEPER, *order)
                for order in (("left", "right"), ("right", "left"))]
        for job in jobs:
            self.assertEqual(job.finish()[0], 0)

    def test_the_fencing_token_rises(self):
        last = 0
        for _ in range(5):
            code, out, _ = self.lk("run", "fence", "-c", "echo $LOCKKEEPER_FENCE")
            self.assertEqual(code, 0)
            self.assertGreater(int(out), last)
            last = int(out)

    def test_several_locks_have_their_tokens_in_the_order_of_the_options(self):
        def one(*names):
            return [int(token) for token in
                    self.lk("run", *names, "-c", "echo $LOCKKEEPER_FENCE")[1].split()]

        self.hold("token-a#1")  # keeps the segments
        self.hold("token-b#1")
        for _ in range(8):
            one("token-a")
        tokens = one("-l", "token-b", "-l", "token-a")
        self.assertEqual(len(tokens), 2)
        self.assertGreater(one("token-b")[0], tokens[0])
        self.assertLess(one("token-b")[0] - tokens[0], 8)

    def test_the_segment_ends_with_its_last_user(self):
        holder = self.hold("brief")
        names = [segment["name"] for segment in self.json("seg", "ls", "--json")["segments"]]
        self.assertIn("brief", names)
        holder.stdin.close()
        holder.wait(LONG_S)
        self.until(lambda: "brief" not in self.lk("seg", "ls", "-o", "NAME")[1].split())


class Waiting(BrokerTest):
    def test_verbose_says_who_is_waited_for(self):
        holder = self.hold("verbose")
        waiter = self.start(LOCKKEEPER, "run", "--verbose", "verbose", "true")
        self.assertRegex(waiter.line(waiter.stderr),
                         "^lockkeeper: verbose: waiting, " + HOLDER % holder.pid + "$")
        holder.stdin.close()
        self.assertRegex(waiter.line(waiter.stderr), r"^lockkeeper: verbose: acquired after \d+\.\ds$")
        self.assertEqual(waiter.finish()[0], 0)

    def test_those_ahead_are_counted(self):
        self.hold("crowd")
        self.wait_for("crowd", "true")
        self.until(lambda: len(self.locks("crowd")["crowd"]["waiters"]) == 1)
        third = self.start(LOCKKEEPER, "run", "--verbose", "crowd", "true")
        self.assertRegex(third.line(third.stderr), ", 1 ahead of you$")

    def test_a_terminal_gets_the_waiting_line_too(self):
        holder = self.hold("tty")
        try:
            ours, theirs = pty.openpty()
        except OSError as error:  # a container without /dev/pts
            self.skipTest(str(error))
        with open(ours, "rb") as terminal:
            self.start(LOCKKEEPER, "run", "tty", "true", stderr=theirs)
            os.close(theirs)
            self.assertIn(b"lockkeeper: tty: waiting, held by sh[%d]" % holder.pid, terminal.readline())

    def test_without_a_terminal_waiting_is_silent(self):
        holder = self.hold("silent")
        waiter = self.start(LOCKKEEPER, "run", "silent", "true")
        self.until(lambda: self.locks("silent")["silent"]["waiters"])
        holder.stdin.close()
        self.assertEqual(waiter.finish(), (0, "", ""))

    def test_signals_end_the_wait_at_once(self):
        holder = self.hold("signal")
        for number in (signal.SIGINT, signal.SIGTERM):
            # Default again: under nohup or in the background the test itself may ignore it.
            waiter = self.start(LOCKKEEPER, "run", "--verbose", "signal", "true",
                                preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
            waiter.line(waiter.stderr)
            self.until(lambda: self.waiting_pids("signal") == [waiter.pid])
            before = time.monotonic()
            waiter.send_signal(number)
            self.assertEqual(waiter.wait(LONG_S), -number)
            self.assertLess(time.monotonic() - before, 2)
            # The queue is empty again, and the lock as it was.
            self.until(lambda: self.waiting_pids("signal") == [])
            self.assertEqual(self.locks("signal")["signal"]["holders"][0]["pid"], holder.pid)

    def test_a_shell_sees_128_and_the_number_of_the_signal(self):
        self.hold("status")
        shell = self.start("sh", "-c", '"$0" run status true; echo $?', LOCKKEEPER)
        self.until(lambda: self.waiting_pids("status"))
        os.kill(self.waiting_pids("status")[0], signal.SIGTERM)
        self.assertEqual(shell.line(), "143")

    def waiting_pids(self, name):
        return [waiter["pid"] for waiter in self.locks(name)[name]["waiters"]]

    def test_an_owner_that_died_is_one_warning_and_no_more(self):
        code, out, _ = self.program(os.path.join(os.environ["LK_HELPERS"], "hold_and_die"), "died")
        self.assertEqual((code, out), (-signal.SIGKILL, "held\n"))
        code, out, err = self.lk("run", "died", "echo", "ran")
        self.assertEqual((code, out), (0, "ran\n"))
        self.assertRegex(err, r"^lockkeeper: died: warning: hold_and_die\[\d+\] \(" + USER + r"\) held it and "
                              r"died inside; running all the same\n$")
        self.assertEqual(self.lk("run", "died", "echo", "ran"), (0, "ran\n", ""))


class Autostart(BrokerTest):
    def test_run_starts_the_broker_that_nobody_started(self):
        path = os.path.join(self.directory, "auto.sock")
        environment = dict(self.environment, LOCKKEEPER_SOCKET=path)
        self.assertEqual(self.lk("run", "first", "echo", "ran", env=environment), (0, "ran\n", ""))
        code, out, _ = self.lk("where", "-o", "PID", "--raw", "--no-headings", env=environment)
        self.assertEqual(code, 0)
        broker = int(out)
        self.addCleanup(self.end_stranger, broker)
        with open("/proc/%d/cmdline" % broker) as command_line:
            self.assertIn("lockkeeperd", command_line.read())
        # It is not in our session, and holds nothing of ours open.
        self.assertNotEqual(os.getsid(broker), os.getsid(0))
        self.assertEqual(self.lk("run", "second", "true", env=environment)[0], 0)
        self.assertEqual(self.lk("where", "-o", "PID", "--raw", "--no-headings", env=environment)[1], out)

    def test_a_dead_socket_file_is_no_broker_and_no_hindrance(self):
        path = os.path.join(self.directory, "dead.sock")
        environment = dict(self.environment, LOCKKEEPER_SOCKET=path)
        self.assertEqual(self.lk("run", "a", "true", env=environment)[0], 0)
        self.end_stranger(self.pid_of_broker(environment), signal.SIGKILL)
        self.assertTrue(os.path.exists(path))
        code, out, err = self.lk("ls", env=environment)
        self.assertEqual((code, out), (66, ""))
        self.assertIn(path, err)
        self.assertEqual(self.lk("where", env=environment)[0], 66)
        self.assertEqual(self.lk("run", "a", "echo", "ran", env=environment), (0, "ran\n", ""))
        self.end_stranger(self.pid_of_broker(environment))

    def pid_of_broker(self, environment):
        return int(self.lk("where", "-o", "PID", "--raw", "--no-headings", env=environment)[1])

    def end_stranger(self, pid, number=signal.SIGTERM):
        watch = os.pidfd_open(pid)
        signal.pidfd_send_signal(watch, number)
        self.assertTrue(select.select([watch], [], [], LONG_S)[0])
        os.close(watch)


if __name__ == "__main__":
    unittest.main()
