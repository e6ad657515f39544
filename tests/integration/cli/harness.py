# SPDX-License-Identifier: MIT
"""What the tests of the command line share: a private broker, running the programs, waiting for events.

Everything runs against the build tree named by LK_BUILD, with a socket in a temporary directory. Every
output is looked through for a sanitizer's report.
"""
import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

BUILD = os.environ["LK_BUILD"]
LOCKKEEPER = os.path.join(BUILD, "bin/lockkeeper")
LOCKKEEPERD = os.path.join(BUILD, "bin/lockkeeperd")
LONG_S = 30  # nothing takes that long unless it hangs


def check_clean(text):
    if "Sanitizer:" in text or "runtime error:" in text:
        raise AssertionError("a sanitizer reports:\n" + text)
    return text


class Process(subprocess.Popen):
    """A process that is killed and waited for when its test ends, and whose pipes are text."""

    def __init__(self, arguments, **options):
        super().__init__(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=options.pop("stderr", subprocess.PIPE), text=True, **options)

    def line(self, stream=None):
        """The next line of stdout, or of the stream; the event that tests wait for."""
        fd = (stream or self.stdout).fileno()
        line = b""
        # Byte by byte and past the stream: what that read ahead, select would not see.
        while not line.endswith(b"\n"):
            if not select.select([fd], [], [], LONG_S)[0]:
                raise AssertionError("no line came from %r" % self.args)
            byte = os.read(fd, 1)
            if not byte:
                break
            line += byte
        return line.decode().rstrip("\n")

    def finish(self):
        out, err = self.communicate(timeout=LONG_S)
        return self.returncode, check_clean(out), check_clean(err or "")

    def end(self):
        if self.poll() is None:
            self.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()


class BrokerTest(unittest.TestCase):
    """Tests with one broker per class. Each uses lock names of its own."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="lk-cli-")
        cls.socket = os.path.join(cls.directory, "broker.sock")
        cls.environment = dict(os.environ, LOCKKEEPER_SOCKET=cls.socket, LC_ALL="C.UTF-8")
        cls.environment.pop("LOCKKEEPER_FENCE", None)
        cls.log = open(os.path.join(cls.directory, "broker.log"), "w+")
        cls.broker = subprocess.Popen([LOCKKEEPERD, "--socket", cls.socket], stdin=subprocess.DEVNULL,
                                      stdout=cls.log, stderr=cls.log)
        try:
            cls.until(lambda: cls.lk("where")[0] == 0)
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.broker.send_signal(signal.SIGTERM)
        try:
            code = cls.broker.wait(LONG_S)
        except subprocess.TimeoutExpired:
            cls.broker.kill()
            code = cls.broker.wait()
        cls.log.seek(0)
        log = cls.log.read()
        cls.log.close()
        left = sorted(set(os.listdir(cls.directory)) - {"broker.log"})
        shutil.rmtree(cls.directory)
        check_clean(log)
        if "another goes on" in log:
            raise AssertionError("a worker of the broker failed:\n" + log)
        if code != 0:
            raise AssertionError("the broker ended with %d:\n%s" % (code, log))
        # A broker leaves its lock file, since removing it would race with the next one; and, when it was
        # started by a client, its log. One that is killed, or ends before its clients, leaves their names.
        if [name for name in left if not name.endswith((".sock.lock", ".sock.log", ".sock.names"))]:
            raise AssertionError("left behind: %r" % left)

    @classmethod
    def until(cls, condition):
        """For what nobody announces: looks again and again."""
        end = time.monotonic() + LONG_S
        while not condition():
            if time.monotonic() > end:
                raise AssertionError("it never happened")
            time.sleep(0.01)

    @classmethod
    def program(cls, *arguments, **options):
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=LONG_S, env=options.pop("env", cls.environment), **options)
        return done.returncode, check_clean(done.stdout), check_clean(done.stderr)

    @classmethod
    def lk(cls, *arguments, **options):
        """Runs lockkeeper to its end: (exit code, stdout, stderr)."""
        return cls.program(LOCKKEEPER, *arguments, **options)

    def start(self, *arguments, **options):
        process = Process(list(arguments), env=options.pop("env", self.environment), **options)
        self.addCleanup(process.end)
        return process

    def rest(self):
        """Waits until nothing of earlier tests is left at the broker: only who asks is there."""
        self.until(lambda: self.json("where", "--json")["places"][0]["broker"]["sessions"] == 1)

    def hold(self, *arguments):
        """Starts `lockkeeper run ARGUMENTS`, waits until it holds. Ends when its stdin is closed."""
        process = self.start(LOCKKEEPER, "run", *arguments, "--", "sh", "-c", "echo held; read x")
        self.assertEqual(process.line(), "held")
        return process

    def wait_for(self, *arguments):
        """Starts `lockkeeper run --verbose ARGUMENTS`, waits until it waits."""
        process = self.start(LOCKKEEPER, "run", "--verbose", *arguments)
        lines = []  # several locks: those that it has got are announced before
        while not lines or "acquired" in lines[-1]:
            lines.append(process.line(process.stderr))
        self.assertIn("waiting", lines[-1])
        return process

    def json(self, *arguments):
        code, out, err = self.lk(*arguments)
        self.assertEqual((code, err), (0, ""))
        return json.loads(out)

    def locks(self, name):
        return {lock["name"]: lock for lock in self.json("ls", "--json", name)["locks"]}

    def assert_refused(self, arguments, code, pattern):
        """Golden text: all of stderr is one line that matches the whole pattern."""
        got, out, err = self.lk(*arguments)
        self.assertEqual((got, out), (code, ""), err)
        self.assertRegex(err, "^" + pattern + "\n$")


def exact(text):
    return re.escape(text)
