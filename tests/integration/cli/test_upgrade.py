# SPDX-License-Identifier: MIT
"""A running broker becomes the program that is installed by now, and nobody notices."""
import os
import shutil
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import LOCKKEEPER, LOCKKEEPERD, BrokerTest


class Upgrade(BrokerTest):
    """With a broker that runs from a copy, so that another one can take the copy's place."""

    def setUp(self):
        self.program_path = os.path.join(self.directory, "lockkeeperd-copy")
        self.path = os.path.join(self.directory, "own.sock")
        shutil.copy(LOCKKEEPERD, self.program_path)
        self.own = dict(self.environment, LOCKKEEPER_SOCKET=self.path)
        self.broker_log = os.path.join(self.directory, "own.log")
        with open(self.broker_log, "w") as log:
            self.daemon = subprocess.Popen([self.program_path, "--socket", self.path],
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(self.clean)
        self.until(lambda: self.lk("where", env=self.own)[0] == 0)

    def clean(self):
        self.daemon.send_signal(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(harness.LONG_S), 0)
        for name in os.listdir(self.directory):
            if name.startswith(("own", "lockkeeperd-copy")):
                os.unlink(os.path.join(self.directory, name))

    def replace(self, content=None):
        """As a package manager does: a new file takes the name."""
        fresh = self.program_path + ".new"
        if content is None:
            shutil.copy(LOCKKEEPERD, fresh)
        else:
            with open(fresh, "w") as file:
                file.write(content)
            os.chmod(fresh, 0o755)
        os.rename(fresh, self.program_path)

    def upgrade(self):
        return self.program(LOCKKEEPERD, "--upgrade", "--socket", self.path, env=self.own)

    def read_log(self):
        with open(self.broker_log) as log:
            return log.read()

    def executes(self):
        return os.stat("/proc/%d/exe" % self.daemon.pid).st_ino

    def hold(self, name):
        holder = self.start(LOCKKEEPER, "run", "-l", name, "--", "sh", "-c", "echo held; read x; true",
                            env=self.own)
        self.assertEqual(holder.line(), "held")
        return holder

    def test_clients_notice_nothing(self):
        holder = self.hold("held")
        waiter = self.start(LOCKKEEPER, "run", "--verbose", "-l", "held", "--", "echo", "got it",
                            env=self.own)
        self.assertIn("waiting", waiter.line(waiter.stderr))
        for _ in range(3):
            self.replace()
            code, out, err = self.upgrade()
            self.assertEqual((code, err), (0, ""))
            self.assertIn("was upgraded", out)
            self.assertEqual(self.executes(), os.stat(self.program_path).st_ino)
        self.assertIsNone(self.daemon.poll())
        self.assertIsNone(waiter.poll())
        listed = self.lk("ls", env=self.own)[1]
        self.assertIn("held", listed)
        self.assertEqual(holder.finish()[0], 0)
        code, out, _ = waiter.finish()
        self.assertEqual((code, out), (0, "got it\n"))

    def test_a_program_that_cannot_go_on_is_left_alone(self):
        holder = self.hold("held")
        before = self.executes()
        self.replace("#!/bin/sh\nexit 1\n")
        code, out, err = self.program(LOCKKEEPERD, "--upgrade", "--socket", self.path,
                                      env=self.own)
        self.assertEqual((code, out), (75, ""))
        self.assertIn("goes on as it is", err)
        self.assertEqual(self.executes(), before)
        self.until(lambda: "no upgrade" in self.read_log())
        self.assertEqual(self.lk("run", "-n", "-l", "held", "--", "true", env=self.own)[0], 1)
        self.assertEqual(holder.finish()[0], 0)
        self.assertEqual(self.lk("run", "-n", "-l", "held", "--", "true", env=self.own)[0], 0)

    def test_nobody_to_upgrade(self):
        code, out, err = self.program(LOCKKEEPERD, "--upgrade", "--socket", self.path + ".none")
        self.assertEqual((code, out), (69, ""))
        self.assertIn("no broker answers at", err)


if __name__ == "__main__":
    unittest.main()
