# SPDX-License-Identifier: MIT
"""ls, why and where: tables, JSON, and what they say."""
import os
import pwd
import subprocess
import unittest

from harness import LOCKKEEPER, BrokerTest, check_clean, exact

USER = pwd.getpwuid(os.getuid()).pw_name
HEADINGS = "NAME MODE STATE PID COMMAND USER HELD WAITERS TOKEN".split()


class Ls(BrokerTest):
    def queue(self, name, count):
        """A holder and a queue behind it, each there before the next."""
        holder = self.hold(name)
        waiters = []
        for i in range(count):
            waiters.append(self.wait_for("-s" if i % 2 else "-x", name, "true"))
            self.until(lambda: len(self.locks(name)[name]["waiters"]) == i + 1)
        return holder, waiters

    def test_json_has_every_holder_and_waiter_with_numbers_as_numbers(self):
        holder, waiters = self.queue("json", 3)
        document = self.json("ls", "--json", "json")
        self.assertEqual(document["schema"], "lockkeeper.ls/1")
        lock, = document["locks"]
        self.assertEqual((lock["name"], lock["segment"], lock["lock"], lock["state"], lock["mode"]),
                         ("json", "json", 0, "held", "exclusive"))
        self.assertIsInstance(lock["token"], int)
        self.assertGreater(lock["token"], 0)
        one, = lock["holders"]
        self.assertEqual((one["pid"], one["uid"], one["user"], one["command"], one["to_exit"]),
                         (holder.pid, os.getuid(), USER, "sh", True))
        self.assertEqual([waiter["pid"] for waiter in lock["waiters"]], [w.pid for w in waiters])
        self.assertEqual([waiter["mode"] for waiter in lock["waiters"]],
                         ["exclusive", "shared", "exclusive"])
        for waiter in lock["waiters"]:
            self.assertIsInstance(waiter["waiting_ns"], (int, type(None)))

    def test_the_table_shows_the_queue_as_a_tree(self):
        holder, waiters = self.queue("tree", 2)
        code, out, err = self.lk("ls", "tree")
        self.assertEqual((code, err), (0, ""))
        lines = out.splitlines()
        self.assertEqual(lines[0].split(), HEADINGS)
        self.assertRegex(lines[1], r"^tree +excl +held +%d +sh +%s +\S+ +2 +\d+$" % (holder.pid, USER))
        self.assertRegex(lines[2], r"^├─ +excl +wait +%d +lockkeeper +%s +\S+ +- +-$" % (waiters[0].pid, USER))
        self.assertRegex(lines[3], r"^└─ +shared +wait +%d " % waiters[1].pid)
        self.assertEqual(len(lines), 4)

    def test_it_tells_how_long_a_command_holds_in_both_modes(self):
        self.hold("since-x")
        self.hold("-s", "since-s")
        for name in ("since-x", "since-s"):
            # The broker may still be about to learn that the process has become another program.
            self.until(lambda: self.locks(name)[name]["holders"][0]["command"] == "sh")
            self.assertGreater(self.locks(name)[name]["holders"][0]["held_ns"], 0)
            self.assertRegex(self.lk("run", "-n", name, "true")[2], r" for \d+\.\ds; see: ")

    def test_columns_raw_and_no_headings(self):
        holder, waiters = self.queue("cols", 1)
        self.assertEqual(self.lk("ls", "-o", "pid,NAME", "--raw", "cols")[1],
                         "PID NAME\n%d cols\n%d cols\n" % (holder.pid, waiters[0].pid))
        self.assertEqual(self.lk("ls", "-o", "STATE", "--no-headings", "cols")[1], "held\nwait\n")

    def test_the_columns_are_the_same_on_a_narrow_terminal(self):
        self.hold("narrow")
        out = self.lk("ls", "narrow", env=dict(self.environment, COLUMNS="20"))[1]
        self.assertEqual(out.split("\n")[0].split(), HEADINGS)

    def test_options_may_stand_before_the_command(self):
        self.hold("global")
        environment = dict(self.environment, LOCKKEEPER_SOCKET="/nonexistent/x")
        code, out, err = self.lk("--socket", self.socket, "--json", "ls", "global", env=environment)
        self.assertEqual((code, err), (0, ""))
        self.assertIn('"global"', out)

    def test_nothing_held_is_an_empty_list(self):
        self.lk("seg", "create", "idle")
        self.assertEqual(self.json("ls", "--json", "idle"), {"schema": "lockkeeper.ls/1", "locks": []})
        self.assertEqual(self.lk("ls", "idle")[0], 0)

    def test_a_lock_with_a_name_or_a_number(self):
        self.hold("seg#orders")
        self.hold("seg#7")
        self.assertEqual(sorted(self.locks("seg")), ["seg#7", "seg#orders"])

    def test_more_locks_than_fit_on_a_page(self):
        holders = [self.hold(*(word for i in range(25) for word in ("-l", "many%d-%d" % (j, i))))
                   for j in range(4)]
        held = {lock["name"]: lock["holders"][0]["pid"]
                for lock in self.json("ls", "--json")["locks"] if lock["holders"]}
        for j, holder in enumerate(holders):
            for i in range(25):
                self.assertEqual(held["many%d-%d" % (j, i)], holder.pid)

    def test_a_damaged_lock(self):
        self.program(os.path.join(os.environ["LK_HELPERS"], "hold_and_die"), "torn")
        self.until(lambda: self.locks("torn")["torn"]["state"] == "damaged")
        self.assertRegex(self.lk("why", "torn")[1],
                         "^torn is held by nobody, but its last owner(, .*,)? died inside: the next holder "
                         "is told, and repairs\n")

    def test_refusals(self):
        def usage(text):
            return exact("lockkeeper: ls: " + text + "; try 'lockkeeper ls --help'")

        self.assert_refused(["ls", "-o", "PID,NO"], 64, usage(
            "-o: unknown column 'NO'; there are " + ",".join(HEADINGS)))
        self.assert_refused(["ls", "--json", "--raw"], 64, usage(
            "--json prints everything; -o, --raw and --no-headings are for tables"))
        self.assert_refused(["ls", "a", "b"], 64, usage("too many arguments"))
        self.assertEqual(self.lk("ls", "no-such-segment")[0], 1)
        self.assertEqual(self.lk("ls", "a/b")[0], 64)

    def test_a_full_disk_is_no_success(self):
        self.hold("full")
        with open("/dev/full", "w") as full:
            done = subprocess.run([LOCKKEEPER, "ls"], stdout=full, stderr=subprocess.PIPE, text=True,
                                  env=self.environment)
        self.assertEqual(done.returncode, 71)
        self.assertIn("No space left on device", check_clean(done.stderr))


class Why(BrokerTest):
    def test_it_names_the_holder_what_it_waits_for_and_the_queue(self):
        last = self.hold("why-b")
        # Sorted: it gets why-a and waits for why-b.
        holder = self.wait_for("-l", "why-a", "-l", "why-b", "true")
        waiter = self.wait_for("-s", "why-a", "true")
        self.until(lambda: self.locks("why-a")["why-a"]["waiters"] and
                   self.locks("why-b")["why-b"]["waiters"])
        code, out, err = self.lk("why", "why-a")
        self.assertEqual((code, err), (0, ""))
        lines = out.splitlines()
        self.assertRegex(lines[0], r"^why-a is held EXCLUSIVE by lockkeeper\[%d\], user %s(, since "
                         r"\d\d:\d\d:\d\d \(\S+\))?, token \d+$" % (holder.pid, USER))
        self.assertEqual(lines[1], "  command line: %s run --verbose -l why-a -l why-b true" % LOCKKEEPER)
        self.assertEqual(lines[2], "  held until that process ends")
        self.assertEqual(lines[3], "  itself waits for: why-b (exclusive)")
        self.assertRegex(lines[4], r"^  queue: 1\. lockkeeper\[%d\] \(%s\) shared(, \S+s)?$"
                         % (waiter.pid, USER))
        self.assertEqual(len(lines), 5)

        document = self.json("why", "--json", "why-a")
        self.assertEqual((document["schema"], document["name"]), ("lockkeeper.why/1", "why-a"))
        one = document["locks"][0]["holders"][0]
        self.assertEqual(one["waits_for"], [{"name": "why-b", "mode": "exclusive"}])
        self.assertIn("run --verbose -l why-a", one["command_line"])
        self.assertEqual(document["locks"][0]["waiters"][0]["pid"], waiter.pid)
        self.assertEqual(self.json("why", "--json", "why-b")["locks"][0]["holders"][0]["pid"], last.pid)

    def test_a_holder_that_waits_for_nothing_and_no_queue(self):
        self.hold("alone")
        lines = self.lk("why", "alone")[1].splitlines()
        self.assertEqual(lines[-2:], ["  itself waits for: nothing", "  queue: nobody"])

    def test_one_lock_of_a_segment(self):
        self.hold("part#3")
        self.hold("part#orders")
        self.assertRegex(self.lk("why", "part#3")[1], r"^part#3 is held")
        self.assertRegex(self.lk("why", "part#orders")[1], r"^part#orders is held")
        self.assertEqual(self.lk("why", "part#4")[1], "part#4 is held by nobody, and nobody waits for it\n")
        self.assertEqual(len(self.json("why", "--json", "part")["locks"]), 2)

    def test_nobody(self):
        self.lk("seg", "create", "free")
        self.assertEqual(self.lk("why", "free"), (0, "free is held by nobody, and nobody waits for it\n", ""))
        self.assertEqual(self.lk("why", "none"), (0, "none is held by nobody, and nobody waits for it (there "
                                                  "is no segment of this name)\n", ""))
        self.assertEqual(self.json("why", "--json", "none"),
                         {"schema": "lockkeeper.why/1", "name": "none", "segment_exists": False, "locks": []})

    def test_refusals(self):
        usage = exact("lockkeeper: why: exactly one NAME, please; try 'lockkeeper why --help'")
        self.assert_refused(["why"], 64, usage)
        self.assert_refused(["why", "a", "b"], 64, usage)
        self.assert_refused(["why", "a#"], 64, exact("lockkeeper: why: 'a#': no lock has such a name; try "
                                                     "'lockkeeper why --help'"))
        self.assertEqual(self.lk("why", "a/b")[0], 64)


class Where(BrokerTest):
    def test_the_broker_that_answers(self):
        document = self.json("where", "--json")
        self.assertEqual((document["schema"], document["used"]), ("lockkeeper.where/1", self.socket))
        place, = document["places"]
        self.assertEqual((place["kind"], place["state"], place["used"]), ("environment", "answers", True))
        self.assertEqual((place["broker"]["pid"], place["broker"]["uid"]), (self.broker.pid, os.getuid()))
        code, out, _ = self.lk("where")
        self.assertEqual(code, 0)
        self.assertEqual(out.splitlines()[0], "Programs started from here use the broker at %s (pid %d)."
                         % (self.socket, self.broker.pid))

    def test_an_explicit_path_comes_first(self):
        environment = dict(self.environment, LOCKKEEPER_SOCKET="/nonexistent/x")
        place, = self.json_in(environment, "--socket", self.socket, "where", "--json")["places"]
        self.assertEqual(place["kind"], "explicit")

    def json_in(self, environment, *arguments):
        import json
        code, out, err = self.lk(*arguments, env=environment)
        self.assertEqual((code, err), (0, ""))
        return json.loads(out)

    def test_nobody_answers(self):
        path = os.path.join(self.directory, "other.sock")
        code, out, err = self.lk("--socket", path, "where")
        self.assertEqual((code, err), (66, ""))
        self.assertEqual(out.splitlines()[0], "Nobody answers. The next program starts a broker at %s." % path)
        self.assertEqual(self.lk("--socket", path, "where", "-o", "USE,STATE", "--raw", "--no-headings")[1],
                         "start nobody\n")

    def test_a_place_that_cannot_be_used_is_not_called_empty(self):
        path = os.path.join(self.directory, "plain")
        open(path, "w").close()
        self.addCleanup(os.unlink, path)
        code, out, _ = self.lk("--socket", path, "where")
        self.assertEqual((code, out.splitlines()[0]),
                         (66, "No broker can be used at %s: it is not a socket." % path))
        self.assertEqual(self.lk("--socket", path, "where", "-o", "USE,STATE", "--raw", "--no-headings")[1],
                         "- unusable\n")

    @unittest.skipIf(os.getuid() != 0, "needs to become another user")
    def test_a_broker_of_somebody_else(self):
        os.chmod(self.directory, 0o755)
        code, out, _ = self.program("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", LOCKKEEPER,
                                    "where")
        self.assertEqual((code, out.splitlines()[0]),
                         (77, "No broker can be used at %s: Permission denied." % self.socket))

    def test_a_path_that_is_too_long(self):
        code, out, _ = self.lk("--socket", "/tmp/" + "x" * 120, "where")
        self.assertEqual(code, 64)
        self.assertRegex(out, r"^No broker can be used: .*107 bytes")

    def test_the_reading_commands_start_no_broker(self):
        path = os.path.join(self.directory, "other.sock")
        for arguments in (["ls"], ["why", "a"], ["seg", "ls"], ["seg", "stat", "a"], ["seg", "dump", "a"],
                          ["seg", "rm", "a"]):
            with self.subTest(arguments):
                code, out, err = self.lk("--socket", path, *arguments)
                self.assertEqual((code, out), (66, ""))
                self.assertRegex(err, "^lockkeeper: .*" + exact(path) + r".*; .*\n$")
        self.assertFalse(os.path.exists(path))


class Help(BrokerTest):
    COMMANDS = ([], ["run"], ["ls"], ["why"], ["where"], ["graph"], ["seg"], ["seg", "create"], ["seg", "ls"],
                ["seg", "stat"], ["seg", "dump"], ["seg", "rm"])

    def test_each_command_explains_itself(self):
        for command in self.COMMANDS:
            with self.subTest(command):
                code, out, err = self.lk(*command, "--help")
                self.assertEqual((code, err), (0, ""))
                for part in ("Usage: lockkeeper " + " ".join(command), "EXIT STATUS", "EXAMPLES"):
                    self.assertIn(part, out)
                self.assertLessEqual(max(map(len, out.splitlines())), 100)
                self.assertEqual(self.lk(*command, "-h"), (0, out, ""))

    def test_version(self):
        for command in self.COMMANDS:
            self.assertRegex(self.lk(*command, "--version")[1], r"^lockkeeper \d+\.\d+\.\d+\n$")

    def test_an_unknown_command_or_option(self):
        self.assert_refused(["fly"], 64, exact("lockkeeper: there is no command 'fly'; try 'lockkeeper --help'"))
        self.assert_refused([], 64, exact("lockkeeper: no command given; try 'lockkeeper --help'"))
        self.assert_refused(["seg", "fly"], 64,
                            exact("lockkeeper: seg: there is no command 'fly'; try 'lockkeeper seg --help'"))
        for command in self.COMMANDS:
            code, _, err = self.lk(*command, "--fly")
            self.assertEqual(code, 64)
            self.assertIn("unrecognized option '--fly'", err)


if __name__ == "__main__":
    unittest.main()
