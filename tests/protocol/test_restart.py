# SPDX-License-Identifier: MIT
"""The broker's worker is killed, and the client that was written from the documents repeats what was not
answered. LK_SEED chooses the random part."""
import contextlib
import os
import random
import signal
import tempfile
import threading
import unittest

from meeting import EBUSY, MeetingTest, wire
from client import CREATE, CREATE_NEW, EXCLUSIVE, FOREVER, KEEP, Refused, SHARED, STRICT, UNPUBLISHED, UPDATE

ROUNDS = int(os.environ.get("LK_ROUNDS", 400))
SEED = int(os.environ.get("LK_SEED", 1))


class Restart(MeetingTest):
    def worker(self):
        """The pid of the broker's worker; 0 while there is none."""
        with open("/proc/%d/task/%d/children" % (self.broker.pid, self.broker.pid)) as children:
            return int((children.read().split() or [0])[0])

    def kill_worker(self):
        """And waits for the next one."""
        old = self.worker()
        os.kill(old, signal.SIGKILL)
        self.until(lambda: self.worker() not in (0, old))

    def stopped(self):
        """Stops the worker: what is sent now stays unread, and so dies with it."""
        os.kill(self.worker(), signal.SIGSTOP)

    @classmethod
    def tearDownClass(cls):
        """Workers that were killed are what these tests are about: their lines are no failures here."""
        cls.log.seek(0)
        log = cls.log.read()
        bad = [line for line in log.splitlines() if "another goes on" in line and "signal 9 (" not in line]
        cls.log.seek(0)
        cls.log.truncate()
        cls.log.write(log.replace("another goes on", "one was killed"))
        cls.log.flush()
        super().tearDownClass()
        if bad:
            raise AssertionError("a worker failed by itself:\n" + "\n".join(bad))

    @contextlib.contextmanager
    def workers_dying(self):
        """Kills one after the other, at random moments. Gives the list of their pids."""
        done, kills = threading.Event(), []

        def kill():
            pause = random.Random(SEED + 1)
            while not done.wait(pause.uniform(0.001, 0.03)):
                worker = self.worker()
                if worker:
                    try:
                        os.kill(worker, signal.SIGKILL)
                        kills.append(worker)
                    except ProcessLookupError:
                        pass

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield kills
        finally:
            done.set()
            killer.join()
            self.until(self.worker)

    def test_what_died_with_the_worker_is_repeated_and_done_once(self):
        mine = self.segment(STRICT | CREATE)
        before = mine.sequence()
        self.stopped()
        later = mine.acquire_later()
        self.kill_worker()
        grant = mine.granted(later)
        self.assertEqual(grant.token, before + 1)
        self.stopped()
        later = mine.client.send("release", segment=mine.number, attachment=grant.attachment)
        self.kill_worker()
        mine.client.result(later)
        self.assertEqual(mine.sequence(), before + 2)
        self.assertEqual(len(mine.client.resumed), 2)
        self.assertLess(*mine.client.resumed)

    def test_a_change_of_mode_is_repeated_and_done_once(self):
        mine = self.segment(STRICT | CREATE)
        grant = mine.acquire(UPDATE)
        for mode, held in ((EXCLUSIVE, 1), (UPDATE, 2), (EXCLUSIVE, 3), (SHARED, 4)):
            self.stopped()
            later = mine.change_later(grant, mode)
            self.kill_worker()
            mine.client.result(later, "granted" if mode == EXCLUSIVE else "result")
            self.assertEqual((mine.sequence(), mine.holder().mode), (grant.token + held, mode))
        mine.release(grant)

    def test_an_upgrade_that_waits_goes_on_with_the_next_worker(self):
        for how in {}, {"asynchronous": True}:
            with self.subTest(**how):
                mine, other = (self.connect().open(self.name, STRICT | CREATE) for _ in range(2))
                grant, reads = mine.acquire(UPDATE, **how), other.acquire(SHARED)
                mine.acquire(lock=1)
                later = mine.change_later(grant, EXCLUSIVE)
                for _ in range(2):
                    self.assertEqual(other.holder().mode, EXCLUSIVE)
                    self.assertNotIn(later, mine.client.replies)
                    self.kill_worker()
                    mine.holder()
                other.release(reads)
                raised = mine.granted(later)
                self.assertEqual((raised.attachment, raised.token), (grant.attachment, grant.token + 1))
                mine.release(grant)
                mine.client.goodbye()

    def test_a_one_way_release_outlives_the_worker_that_has_not_read_it(self):
        """Its client says nothing more, and does not read that it should resume."""
        mine, other = self.segment(STRICT | CREATE), self.segment(0, 0)
        for mode, how in ((EXCLUSIVE, {}), (SHARED, {}), (EXCLUSIVE, {"asynchronous": True}), (EXCLUSIVE, {})):
            grant = mine.acquire(mode, **how)
            self.stopped()
            mine.let_go(grant)
            self.kill_worker()
            grant = other.acquire()
            self.assertEqual(wire.Status.Name(grant.status), "STATUS_OK")
            other.release(grant)

    def test_one_way_releases_and_acquires_behind_them_keep_their_order(self):
        """Asynchronously, with a wait of the session under way that no worker has answered."""
        mine, other = self.segment(STRICT | CREATE), self.segment(0, 0)
        blocks = other.acquire(lock=1)
        waits = mine.acquire_later(lock=1, asynchronous=True)
        for _ in range(3):
            first = mine.acquire(asynchronous=True)
            self.stopped()
            mine.let_go(first)
            later = mine.acquire_later(asynchronous=True)
            self.kill_worker()
            second = mine.granted(later)
            self.assertEqual((second.token, mine.sequence()), (first.token + 2, first.token + 2))
            mine.let_go(second)
        self.assertNotIn(waits, mine.client.replies)
        other.release(blocks, lock=1)
        mine.let_go(mine.granted(waits), lock=1)
        self.assertEqual(other.acquire(lock=1).token, blocks.token + 4)

    def test_a_one_way_release_of_who_has_gone_is_read(self):
        mine, other = self.segment(STRICT | CREATE), self.segment(0, 0)
        grant = mine.acquire()
        self.stopped()
        mine.let_go(grant)
        mine.client.close()
        self.kill_worker()
        grant = other.acquire()
        self.assertEqual(wire.Status.Name(grant.status), "STATUS_OK")
        other.release(grant)

    def test_hello_and_open_are_repeated_where_nothing_was_answered(self):
        self.stopped()
        session = self.connect()
        later = session.send("open", name=self.name.encode(), flags=CREATE_NEW)
        self.kill_worker()
        self.assertTrue(session.wait(later)[1].created)

    def test_a_file_is_offered_again_with_its_descriptor(self):
        with tempfile.TemporaryFile() as file:
            file.write(b"kept" * 1024)
            file.flush()
            session = self.connect()
            session.list(wire.LIST_BROKER)
            self.stopped()
            later = session.send("open", [file.fileno()], name=self.name.encode(), flags=CREATE, offered=True)
            self.kill_worker()
            name, opened, _ = session.wait(later)
            self.assertEqual((name, opened.file, opened.data_bytes_max), ("opened", True, 4096))

    def test_holds_and_places_in_the_queue_stay(self):
        peer = self.peer(CREATE)
        self.assertEqual(peer.do("acquire", 0, EXCLUSIVE, 0)[0], 0)
        waiters = [self.segment(0, 0) for _ in range(3)]
        later = []
        for count, one in enumerate(waiters):
            later.append(one.acquire_later(asynchronous=True))
            self.until_waiting(waiters[0], count + 1)
        self.kill_worker()
        self.until_waiting(waiters[0], 3)
        self.assertEqual(waiters[0].holder().pid, peer.process.pid)
        peer.do("release", 0)
        token = 0
        for one, request in zip(waiters, later):
            grant = one.granted(request)
            self.assertGreater(grant.token, token)
            self.assertEqual(peer.do("acquire", 0, EXCLUSIVE, 0)[0], EBUSY)
            token = grant.token
            one.release(grant)

    def test_nothing_is_heard_before_resume_and_an_old_resume_counts_for_nothing(self):
        mine = self.segment(CREATE | STRICT)
        numbers = []
        mine.client.resume = numbers.append
        self.kill_worker()
        later = mine.client.send("holder", segment=mine.number)
        while not numbers:
            self.assertTrue(mine.client.receive(30))
        # The broker takes an old number for what was meant for a worker before it; all of it stays unheard.
        mine.client.send("resume", number=numbers[0] - 1)
        mine.client.transmit(mine.client.unanswered[later][0])
        self.segment(0, 0).holder()  # a round trip of somebody else, behind what was sent
        self.assertFalse(mine.client.receive(0))
        del mine.client.resume
        mine.client.resume(numbers[0])
        self.assertEqual(mine.client.result(later, "holder_is").pid, 0)

    def test_each_request_has_one_effect_however_often_workers_die(self):
        """Two sessions do all that can be told from not being done, or being done twice, pipelined, while
        workers die at random moments. A CREATE_NEW done twice would be EXISTS, a REMOVE NOT_FOUND, a RELEASE
        NOT_HOLDER, and the sequence counts the holds."""
        chance = random.Random(SEED)
        session, other = self.connect(), self.connect()
        kept = session.open(self.name + "-kept", CREATE | STRICT, size_bytes=64, locks=4)
        theirs = other.open(self.name + "-kept", 0)
        start, holds = kept.sequence(), 0
        with self.workers_dying() as kills:
            for turn in range(ROUNDS):
                for who in chance.sample([kept, theirs], 2):
                    holds += self.pipelined_holds(who)
                    holds += self.holds_let_go(who)
                self.crossed_wait(kept, theirs)
                holds += 2
                self.crossed_upgrade(kept, theirs)
                self.life_of_a_segment(session, "%s-%d" % (self.name, turn))
                self.life_of_a_file(session, "%s-%d" % (self.name, turn))
                self.assertEqual(kept.sequence(), start + 2 * holds)
        self.assertEqual(kept.sequence(), start + 2 * holds)
        self.assertGreater(len(session.resumed), 0)
        print("seed %d: %d workers killed, %d RESUMED, %d holds" % (SEED, len(set(kills)),
                                                                   len(session.resumed), holds))

    def test_a_random_pipeline_is_answered_as_if_nobody_died(self):
        """Right and wrong requests on four locks, thirty at a time without waiting for an answer, against what
        one who holds alone has to be told. Two sessions by turns, so that none knows the other's words."""
        chance = random.Random(SEED)
        first = self.segment(CREATE | STRICT, locks=4)
        sides = [first, self.connect().open(self.name)]
        sequences = [first.sequence(lock) for lock in range(4)]
        with self.workers_dying():
            for turn in range(ROUNDS):
                self.pipeline(chance, sides[turn % 2], sequences)
        self.assertEqual([first.sequence(lock) for lock in range(4)], sequences)

    def pipeline(self, chance, segment, sequences):
        held, expected = {}, []
        script = [(chance.randrange(4), chance.choice(["acquire", "acquire", "release", "release",
                                                        "change_mode", "change_mode", "change_mode",
                                                        "mark_consistent", "declare"])) for _ in range(30)]
        script += [(lock, "release") for lock in range(4)]
        for lock, verb in script:
            fields = {"segment": segment.number, "lock": lock}
            mode, raised = held.get(lock), 0
            if verb == "acquire":
                mode = fields["mode"] = chance.choice([SHARED, EXCLUSIVE, UPDATE])
                right, wrong = lock not in held, "DEADLOCK"
            else:
                fields["attachment"] = segment.opened.attachment
                right, wrong = verb == "release" and lock in held or mode == EXCLUSIVE, "NOT_HOLDER"
            if verb == "change_mode":
                fields["mode"] = chance.choice([SHARED, EXCLUSIVE, UPDATE])
                right = (mode, fields["mode"]) in ((UPDATE, EXCLUSIVE), (EXCLUSIVE, UPDATE), (EXCLUSIVE, SHARED),
                                                   (UPDATE, SHARED))
            if verb in ("acquire", "change_mode"):
                fields["deadline_ns"] = chance.choice([0, FOREVER])
            if right and verb in ("acquire", "change_mode", "release"):
                before, after = held.pop(lock, None), fields.get("mode")
                raised = EXCLUSIVE in (before, after)
                if verb == "acquire" and mode == UPDATE:
                    raised = 2
                if after:
                    held[lock] = after
            expected.append((segment.client.send(verb, **fields), lock, "OK" if right else wrong, raised))
        for request, lock, answer, raised in expected:
            name, message, _ = segment.client.wait(request)
            self.assertEqual(wire.Status.Name(message.status)[7:], answer, script)
            sequences[lock] += raised
            if name == "granted" and raised == 2:  # for update: raised once more where a worker died at it
                self.assertEqual((message.token >= sequences[lock], message.token % 2), (True, 0), script)
                sequences[lock] = message.token
            elif name == "granted":
                self.assertEqual(message.token, sequences[lock], script)

    @staticmethod
    def pipelined_holds(segment):
        """Three holds sent in one go: the attachment of a brokered session is known beforehand."""
        session, later = segment.client, []
        reference = {"segment": segment.number, "attachment": segment.opened.attachment}
        for _ in range(3):
            later.append((segment.acquire_later(), "granted"))
            later.append((session.send("declare", offset=8, length_bytes=8, **reference), "result"))
            later.append((session.send("mark_consistent", **reference), "result"))
            later.append((session.send("release", **reference), "result"))
        for request, expected in later:
            session.result(request, expected)
        return 3

    def holds_let_go(self, segment):
        """Five holds, each of whose releases goes out with the next acquire, or for good."""
        for _ in range(5):
            grant = segment.acquire()
            self.assertEqual(wire.Status.Name(grant.status), "STATUS_OK")
            segment.let_go(grant)
        self.refused("NOT_HOLDER", segment.release, grant)
        return 5

    def crossed_wait(self, first, second):
        """One holds, the other waits, is canceled, waits again, and is granted on release."""
        grant = first.acquire()
        later = second.acquire_later()
        try:
            second.client.cancel(later)
        except Refused as refused:  # asked again, of a worker that found it canceled
            self.assertEqual(wire.Status.Name(refused.status), "STATUS_NOT_FOUND")
        self.refused("CANCELED", second.granted, later)
        later = second.acquire_later()
        first.release(grant)
        second.release(second.granted(later))
        self.refused("NOT_HOLDER", first.release, grant)

    def crossed_upgrade(self, first, second):
        """One holds for update and the other reads: an upgrade is canceled, waits again, and is granted when
        the reader leaves. Of another lock than what was acquired last."""
        grant = first.acquire(UPDATE, lock=1)
        between = first.acquire(lock=2)
        reads = second.acquire(SHARED, lock=1)
        later = first.change_later(grant, EXCLUSIVE, lock=1)
        try:
            first.client.cancel(later)
        except Refused as refused:
            self.assertEqual(wire.Status.Name(refused.status), "STATUS_NOT_FOUND")
        self.refused("CANCELED", first.granted, later)
        later = first.change_later(grant, EXCLUSIVE, lock=1)
        first.holder()
        self.assertNotIn(later, first.client.replies)
        second.release(reads, lock=1)
        self.assertEqual(first.granted(later).token, grant.token + 1)
        first.downgrade(grant, UPDATE, lock=1)
        second.release(second.acquire(SHARED, lock=1, deadline_ns=0), lock=1)
        first.downgrade(grant, SHARED, lock=1)
        first.release(grant, lock=1)
        first.release(between, lock=2)
        self.assertEqual(first.sequence(1), grant.token + 2)

    def life_of_a_segment(self, session, name):
        made = session.open(name, CREATE_NEW | KEEP | UNPUBLISHED, size_bytes=4096, size_max_bytes=8192)
        self.assertTrue(made.opened.created)
        session.ask("publish", segment=made.number)
        self.assertEqual(session.ask("grow", segment=made.number, size_bytes=8192).value, 8192)
        self.assertEqual((made.lock_named("a"), made.lock_named("b"), made.lock_named("a")), (1, 2, 1))
        shared = made.acquire(SHARED, lock=1, asynchronous=True)
        made.release(shared, lock=1)
        made.detach()
        session.remove(name)
        self.refused("NOT_FOUND", session.remove, name)

    @staticmethod
    def life_of_a_file(session, name):
        with tempfile.TemporaryFile() as file:
            file.write(b"kept")
            file.flush()
            made = session.open(name, CREATE_NEW, [file.fileno()])
            made.detach()

    def test_goodbye_is_answered_by_the_next_worker(self):
        session = self.connect()
        self.segment(CREATE | KEEP, session=session)
        self.stopped()
        later = session.send("goodbye")
        self.kill_worker()
        session.result(later)
        self.assertEqual(self.connect().list(wire.LIST_SEGMENTS, self.name)[0].attachments, 0)


if __name__ == "__main__":
    unittest.main()
