# SPDX-License-Identifier: MIT
"""What the tests of the protocol share: a broker, the C library as a process, clients in processes."""
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
HELPERS = os.environ["LK_HELPERS"]
sys.path[:0] = [HERE, os.path.join(HERE, "../integration/cli"), HELPERS]
import client
import harness
import lockkeeper_pb2 as wire

EPERM, EBUSY, EDEADLK, ETIMEDOUT = -1, -16, -35, -110


class Peer:
    """peer.c: the C library in a process of its own. Answers are lists of numbers."""

    def __init__(self, test):
        self.process = test.start(os.path.join(HELPERS, "protocol_peer"))
        test.assertEqual(self.process.line(), "ready")

    def say(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def hear(self):
        return [int(word) for word in self.process.line().split()]

    def do(self, *words):
        self.say(*words)
        return self.hear()


class MeetingTest(harness.BrokerTest):
    """Clients get segments with names of their test, so that tests do not meet each other."""

    def setUp(self):
        self.name = self.id().split(".")[-1]

    def connect(self, **options):
        made = client.Client(self.socket, **options)
        self.addCleanup(made.close)
        return made

    def segment(self, flags=client.CREATE, size_bytes=4096, session=None, **fields):
        return (session or self.connect()).open(self.name, flags, size_bytes=size_bytes, **fields)

    def peer(self, flags=client.CREATE, size_bytes=4096, locks=16):
        made = Peer(self)
        self.assertGreaterEqual(made.do("open", self.name, flags, size_bytes, locks)[0], 0)
        return made

    def process(self, work):
        """Runs work() in a child until it is killed. work() returns a number and
        what has to stay open. Returns the pid and the number."""
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                kept = work()  # all of it: what is collected is closed
                os.write(write_end, b"%d\n" % kept[0])
                signal.pause()
            finally:
                os._exit(1)
        os.close(write_end)
        self.addCleanup(self.end, pid)
        with os.fdopen(read_end) as answer:
            return pid, int(answer.readline())

    @staticmethod
    def end(pid):
        """Once more does no harm: nobody else has waited for it, or it is known to be gone."""
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def until_waiting(self, segment, count, lock=0):
        self.until(lambda: segment.holder(lock).waiters == count)

    def refused(self, status, call, *arguments, **fields):
        with self.assertRaises(client.Refused) as caught:
            call(*arguments, **fields)
        self.assertEqual(wire.Status.Name(caught.exception.status), "STATUS_" + status, caught.exception)
