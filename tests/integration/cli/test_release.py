# SPDX-License-Identifier: MIT
"""lockkeeper release: ends the holder, by force and with a reason, and nobody else."""
import os
import signal
import unittest

from harness import LOCKKEEPER, BrokerTest, exact


class Release(BrokerTest):
    def log_text(self):
        with open(os.path.join(self.directory, "broker.log"), encoding="utf-8") as log:
            return log.read()

    def test_the_holder_is_ended_and_the_next_one_holds(self):
        holder = self.hold("forced")
        waiter = self.start(LOCKKEEPER, "run", "forced", "sh", "-c", "echo mine; read x")
        self.until(lambda: self.locks("forced")["forced"]["waiters"])
        got = self.lk("release", "--force", "forced", "--reason", "it hangs\n\x1b[2J")
        self.assertEqual(got, (0, "", "lockkeeper: forced: 1 hold was ended\n"))
        self.assertEqual(waiter.line(), "mine")
        self.assertEqual(holder.wait(), -signal.SIGTERM)
        log = self.log_text()
        self.assertRegex(log, r"forced release of lock 0 asked for by pid \d+ \(lockkeeper\), uid %d: "
                              r"it hangs\?\?\[2J; 1 hold it; segment 'forced'" % os.getuid())
        self.assertRegex(log, r"forced release: pid %d \(sh\), uid" % holder.pid)

    def test_one_that_ignores_sigterm_is_killed(self):
        holder = self.start(LOCKKEEPER, "run", "deaf", "sh", "-c", "trap '' TERM; echo held; read x")
        self.assertEqual(holder.line(), "held")
        code, out, err = self.lk("release", "-q", "--force", "deaf", "--reason", "deaf")
        self.assertEqual((code, out, err), (0, "", ""))
        self.assertEqual(holder.wait(), -signal.SIGKILL)

    def test_all_who_hold_it_shared_are_ended(self):
        holders = [self.hold("-s", "many#3") for _ in range(3)]
        other = self.hold("-s", "many#4")
        got = self.lk("release", "--force", "many#3", "--reason", "x")
        self.assertEqual(got, (0, "", "lockkeeper: many#3: 3 holds were ended\n"))
        for holder in holders:
            self.assertEqual(holder.wait(), -signal.SIGTERM)
        self.assertIsNone(other.poll())

    def test_a_lock_by_name(self):
        holder = self.hold("by-name#orders")
        self.assertEqual(self.lk("release", "--force", "by-name#orders", "--reason", "x")[0], 0)
        self.assertEqual(holder.wait(), -signal.SIGTERM)

    def test_a_lock_that_nobody_holds(self):
        self.lk("seg", "create", "idle")
        got = self.lk("release", "--force", "idle", "--reason", "x")
        self.assertEqual(got, (0, "", "lockkeeper: idle: nobody holds it\n"))
        self.assert_refused(["release", "idle"], 64, exact(
            "lockkeeper: release: only a holder can release a lock, and nobody holds 'idle'; "
            "try 'lockkeeper release --help'"))
        self.lk("seg", "rm", "idle")

    def test_another_user_may_not(self):
        if os.getuid() != 0:
            self.skipTest("needs to become another user")
        become = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        os.chmod(self.directory, 0o755)
        if self.program(*become, "test", "-x", LOCKKEEPER)[0] != 0:
            self.skipTest("the build directory is closed to other users")
        self.lk("seg", "create", "--mode", "0666", "ours")
        holder = self.hold("ours")
        os.chmod(self.socket, 0o666)
        try:
            code, out, err = self.program(*become, LOCKKEEPER, "release", "--force", "~0/ours",
                                          "--reason", "x")
        finally:
            os.chmod(self.socket, 0o600)
        self.assertEqual((code, out), (77, ""))
        self.assertRegex(err, r"^lockkeeper: cannot release '~0/ours' by force: pid %d \(sh\) of uid 0 holds "
                              r"it \(EACCES\); only that user, root and uid 0, whose broker this is, may end it"
                              % holder.pid)
        self.assertIsNone(holder.poll())
        self.lk("seg", "rm", "ours")

    def test_usage(self):
        for arguments, text in [
            ([], "exactly one NAME, please"),
            (["a", "b"], "exactly one NAME, please"),
            (["a#"], "'a#': no lock has such a name"),
            (["--force", "a", "--reason", ""],
             "--force needs a --reason: why do you end another process?"),
            (["--force", "a", "--reason", "x" * 201], "--reason: more than 200 bytes"),
        ]:
            self.assert_refused(["release"] + arguments, 64, exact(
                "lockkeeper: release: %s; try 'lockkeeper release --help'" % text))


if __name__ == "__main__":
    unittest.main()
