# SPDX-License-Identifier: MIT
"""lockkeeperd under a service manager: this program plays the manager, and systemd-socket-activate
the starting half of it."""
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

BUILD = os.environ["LK_BUILD"]
LOCKKEEPER = os.path.join(BUILD, "bin/lockkeeper")
LOCKKEEPERD = os.path.join(BUILD, "bin/lockkeeperd")
LONG_S = 30  # nothing takes that long unless it hangs
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID",
             "LISTEN_FDNAMES")


class ServiceTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="lk-service-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "b.sock")
        self.log_path = os.path.join(self.directory, "log")
        self.notify_path = os.path.join(self.directory, "notify")
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(self.notify_path)
        self.manager.settimeout(LONG_S)
        self.environment = {name: value for name, value in os.environ.items()
                            if name not in VARIABLES and not name.startswith("LOCKKEEPER")}
        self.pid = None
        self.addCleanup(self.end_daemon)

    # --- The manager's side ---

    def end_daemon(self):
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self):
        """The exit code, negative for a signal."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = None
        self.assertNotRegex(self.log(), "Sanitizer:|runtime error:")
        return os.waitstatus_to_exitcode(status)

    def log(self):
        with open(self.log_path, encoding="utf-8") as file:
            return file.read()

    def listener(self, path=None, kind=socket.SOCK_SEQPACKET):
        made = socket.socket(socket.AF_UNIX, kind)
        self.addCleanup(made.close)
        made.bind(path or self.path)
        made.listen(16)
        return made

    def start(self, *arguments, fds=(), names=None, program=LOCKKEEPERD, **variables):
        """Starts the daemon as a manager does: descriptors from 3 on, its own pid in LISTEN_PID."""
        environment = dict(self.environment, NOTIFY_SOCKET=self.notify_path)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                environment.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()))
                if names is not None:
                    environment["LISTEN_FDNAMES"] = names
                environment.update(variables)
                log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.dup2(log, 2)
                high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
                for number, fd in enumerate(high):
                    os.dup2(fd, 3 + number)
                os.closerange(3 + len(fds), 1000)
                os.execve(program, [program, *arguments], environment)
            finally:
                os._exit(127)

    def told(self):
        """The next datagram and its descriptors."""
        text, fds, _, _ = socket.recv_fds(self.manager, 8192, 8)
        return text.decode(), fds

    def told_of_service(self):
        """The next one that is not about segments."""
        while True:
            text, fds = self.told()
            if not re.search("FDNAME=(ledger|[adr][0-9]+)", text):
                return text, fds
            for fd in fds:
                os.close(fd)

    def expect(self, *texts):
        for text in texts:
            try:
                self.assertEqual(self.told_of_service(), (text, []))
            except TimeoutError:
                self.fail(f"never told {text!r}:\n{self.log()}")

    def expect_silence(self):
        """For when the daemon has ended: what it said would be there."""
        self.manager.setblocking(False)
        with self.assertRaises(BlockingIOError):
            self.told_of_service()
        self.manager.settimeout(LONG_S)

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)

    # --- A client's ---

    def client(self):
        """One that takes a lock, and never starts a broker of its own."""
        environment = dict(self.environment, LOCKKEEPER_SOCKET=self.path, LOCKKEEPER_AUTOSTART="0")
        process = subprocess.Popen([LOCKKEEPER, "run", "name", "--", "true"], env=environment,
                                   stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        return process

    def expect_served(self, process=None):
        process = process or self.client()
        _, errors = process.communicate(timeout=LONG_S)
        self.assertEqual(process.returncode, 0, errors + self.log())

    # --- Tests ---

    def test_socket_of_the_manager_is_used_and_left(self):
        listener = self.listener()
        before = os.stat(self.path)
        early = self.client()  # waits in the queue until there is a broker
        for _ in range(2):
            self.start(fds=[listener.fileno()], names="listener")
            self.expect(f"STATUS=Listens at {self.path}", "READY=1")
            self.expect_served(early)
            self.expect_served()
            early = None
            self.stop()
            self.expect("STOPPING=1")
            self.assertEqual(self.wait(), 0)
            self.expect_silence()
            self.assertEqual(os.stat(self.path).st_ino, before.st_ino)

    def test_socket_option_that_agrees_is_accepted(self):
        self.start("--socket", self.directory + "/./b.sock", fds=[self.listener().fileno()])
        self.expect(f"STATUS=Listens at {self.path}", "READY=1")
        self.expect_served()

    def test_own_socket_is_stored_and_its_queue_survives_a_crash(self):
        self.start("--socket", self.path)
        text, (stored,) = self.told()
        self.addCleanup(os.close, stored)
        self.assertEqual(text, "FDSTORE=1\nFDNAME=own-listener\nFDPOLL=0")
        self.expect(f"STATUS=Listens at {self.path}", "READY=1")
        os.kill(self.pid, signal.SIGKILL)
        self.assertEqual(self.wait(), -signal.SIGKILL)

        meanwhile = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(meanwhile.close)
        meanwhile.connect(self.path)
        self.start("--socket", self.path, fds=[stored], names="own-listener")
        text, (again,) = self.told()
        os.close(again)
        self.assertIn("FDNAME=own-listener", text)
        self.expect(f"STATUS=Listens at {self.path}", "READY=1")
        meanwhile.send(b"no message")
        meanwhile.settimeout(LONG_S)
        self.assertEqual(meanwhile.recv(1), b"", "it is accepted, read and dropped")
        self.expect_served()
        self.stop()
        self.expect("STOPPING=1", "FDSTOREREMOVE=1\nFDNAME=own-listener")
        self.assertEqual(self.wait(), 0)
        self.assertFalse(os.path.exists(self.path))

    # --- What the manager keeps of segments ---

    def serve_stored(self, count, store, **more):
        """Starts the daemon with everything in `store` (name: descriptor) and takes what it stores
        then, until that is `count` descriptors and it is ready."""
        self.start("--socket", self.path, fds=list(store.values()), names=":".join(store), **more)
        self.ready = False
        self.take_stored(count, store)

    def take_stored(self, count, store):
        while len(store) != count or not self.ready:
            try:
                text, fds = self.told()
            except TimeoutError:
                self.fail(f"stored: {sorted(store)}, not {count}:\n{self.log()}")
            name = re.search("FDNAME=(.*)", text)
            if text.startswith("FDSTORE=1"):
                if name[1] in store:
                    os.close(store[name[1]])
                store[name[1]], = fds
            elif text.startswith("FDSTOREREMOVE=1"):
                if name[1] in store:
                    os.close(store.pop(name[1]))
            self.ready = self.ready or text == "READY=1"

    def holder(self, segment, script):
        """A process that holds the lock of the segment until it is told to end."""
        environment = dict(self.environment, LOCKKEEPER_SOCKET=self.path, LOCKKEEPER_AUTOSTART="0")
        process = subprocess.Popen([LOCKKEEPER, "run", segment, "--", "sh", "-c", script],
                                   env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), "held\n")
        return process

    def crash(self):
        os.kill(self.pid, signal.SIGKILL)
        self.assertEqual(self.wait(), -signal.SIGKILL)

    def run_client(self, *arguments):
        environment = dict(self.environment, LOCKKEEPER_SOCKET=self.path, LOCKKEEPER_AUTOSTART="0")
        return subprocess.run([LOCKKEEPER, *arguments], env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=LONG_S)

    def test_segments_and_who_holds_them_survive_the_loss_of_keeper_and_worker(self):
        store = {}
        self.addCleanup(lambda: [os.close(fd) for fd in store.values()])
        self.serve_stored(1, store)
        made = self.run_client("seg", "create", "kept", "--size", "64K")
        self.assertEqual(made.returncode, 0, made.stderr)
        living = self.holder("living", "echo held; read end")
        dying = self.holder("dying", "echo held; read end")
        # own-listener, ledger; area and data of 'kept', areas of the other two
        self.take_stored(6, store)
        self.assertEqual(sorted(name[0] for name in store), ["a", "a", "a", "d", "l", "o"])

        self.crash()
        dying.kill()
        dying.wait()
        self.serve_stored(6, store)
        busy = self.run_client("run", "-w", "0", "living", "--", "true")
        self.assertEqual(busy.returncode, 1, busy.stderr + self.log())
        self.assertIn(f"held by sh[{living.pid}]", busy.stderr, "not only refused")
        told = self.run_client("run", "dying", "--", "true")
        self.assertEqual(told.returncode, 0, told.stderr + self.log())
        listed = self.run_client("seg", "ls", "--json").stdout
        self.assertIn('"kept"', listed)

        living.stdin.write("end\n")
        living.stdin.flush()
        living.wait()
        free = self.run_client("run", "living", "--", "true")
        self.assertEqual(free.returncode, 0, free.stderr + self.log())
        self.run_client("seg", "rm", "kept")
        self.take_stored(2, store)
        self.assertEqual(sorted(store), ["ledger", "own-listener"])

        self.stop()
        self.take_stored(0, store)
        self.assertEqual(self.wait(), 0)

    def test_segment_whose_memory_was_not_kept_is_refused_while_its_clients_live(self):
        store = {}
        self.addCleanup(lambda: [os.close(fd) for fd in store.values()])
        self.serve_stored(1, store)
        living = self.holder("living", "echo held; read end")
        other = self.holder("other", "echo held; read end")
        self.take_stored(4, store)
        lost = sorted(name for name in store if name.startswith("a"))[0]
        os.close(store.pop(lost))

        self.crash()
        self.serve_stored(3, store)
        self.assertIn("segments not kept: 1", self.log())
        refused = [self.run_client("run", "-w", "0", name, "--", "true")
                   for name in ("living", "other")]
        self.assertEqual([client.returncode for client in refused], [1, 1],
                         self.log())
        self.assertIn("earlier broker", refused[0].stderr)
        self.assertIn(f"held by sh[{other.pid}]", refused[1].stderr)

    def test_ledger_of_other_limits_is_dropped(self):
        store = {}
        self.addCleanup(lambda: [os.close(fd) for fd in store.values()])
        self.serve_stored(1, store)
        self.holder("living", "echo held; read end")
        self.take_stored(3, store)
        self.crash()
        self.start("--socket", self.path, "--limit", "sessions=100", fds=list(store.values()),
                   names=":".join(store))
        self.ready = False
        self.take_stored(1, store)
        self.assertIn("begins with nothing", self.log())
        refused = self.run_client("run", "-w", "0", "living", "--", "true")
        self.assertIn("earlier broker", refused.stderr, self.log())

    def test_stored_socket_whose_file_is_gone_is_replaced(self):
        old = self.listener()
        os.unlink(self.path)
        self.start("--socket", self.path, fds=[old.fileno()], names="own-listener")
        self.expect("FDSTOREREMOVE=1\nFDNAME=own-listener")
        _, (stored,) = self.told()
        os.close(stored)
        self.expect(f"STATUS=Listens at {self.path}", "READY=1")
        self.expect_served()

    def test_watchdog_is_pinged(self):
        self.start(fds=[self.listener().fileno()], WATCHDOG_USEC="300000")
        self.expect(f"STATUS=Listens at {self.path}", "READY=1", "WATCHDOG=1", "WATCHDOG=1",
                    "WATCHDOG=1")

    def test_wrong_sockets_are_refused(self):
        elsewhere = os.path.join(self.directory, "elsewhere")
        for what, listener, arguments, text in (
                ("stream", self.listener(kind=socket.SOCK_STREAM), [], "ListenSequentialPacket="),
                ("elsewhere", self.listener(elsewhere), ["--socket", self.path],
                 f"listens at {elsewhere}, not at {self.path}")):
            with self.subTest(what):
                self.start(*arguments, fds=[listener.fileno()], names="listener")
                self.assertEqual(self.wait(), 64)
                self.assertIn(text, self.log())
                self.expect_silence()

    def test_descriptors_that_nobody_knows_are_dropped(self):
        null = os.open("/dev/null", os.O_RDONLY)
        self.addCleanup(os.close, null)
        self.start(fds=[null, self.listener().fileno()], names="old-segment:listener")
        self.expect("FDSTOREREMOVE=1\nFDNAME=old-segment", f"STATUS=Listens at {self.path}",
                    "READY=1")
        self.assertIn("'old-segment'", self.log())
        self.expect_served()

    def test_values_that_cannot_be_are_named_and_ignored(self):
        self.start("--socket", self.path, LISTEN_FDS="many", WATCHDOG_USEC="soon")
        _, (stored,) = self.told()
        os.close(stored)
        self.expect(f"STATUS=Listens at {self.path}", "READY=1")
        self.expect_served()
        self.assertIn("LISTEN_FDS=many ignored", self.log())
        self.assertIn("WATCHDOG_USEC=soon ignored", self.log())

    def test_manager_that_is_not_there_keeps_nobody_from_serving(self):
        self.start(fds=[self.listener().fileno()], NOTIFY_SOCKET="/nonexistent/notify")
        self.expect_served()
        self.assertIn("cannot tell the service manager READY=1: No such file", self.log())

    def test_daemon_that_a_client_started_does_not_speak_to_the_clients_manager(self):
        self.start("--autostarted", "--idle-exit", "1", "--socket", self.path, LISTEN_FDS="0")
        self.assertEqual(self.wait(), 0)
        self.expect_silence()

    def test_systemd_starts_it_with_the_first_connection(self):
        environment = dict(self.environment)
        with open(self.log_path, "w", encoding="utf-8") as log:
            process = subprocess.Popen(
                ["systemd-socket-activate", "--seqpacket", "-l", self.path, "--fdname=listener",
                 "-E", f"NOTIFY_SOCKET={self.notify_path}", LOCKKEEPERD],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.PIPE,
                text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        while "Listening on" not in (line := process.stderr.readline()):
            self.assertNotEqual(line, "", "systemd-socket-activate ended")
        self.expect_served()
        self.expect(f"STATUS=Listens at {self.path}", "READY=1")
        process.terminate()
        self.expect("STOPPING=1")
        self.assertEqual(process.wait(LONG_S), 0)


if __name__ == "__main__":
    unittest.main()
