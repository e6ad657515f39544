# SPDX-License-Identifier: MIT
"""The client that was written from the documents meets the C library in one segment."""
import functools
import os
import time
import unittest

from meeting import EBUSY, EDEADLK, EPERM, ETIMEDOUT, MeetingTest, wire
from client import ACCEPT_KILL, CREATE, EXCLUSIVE, KEEP, READ_ONLY, SHARED, STRICT, UPDATE, Client

KINDS = ((CREATE, {"asynchronous": True}), (CREATE | STRICT, {}))  # the C library native, and brokered


def number_at(segment, offset):
    return int.from_bytes(segment.data[offset:offset + 8], "little")


def put_number(segment, offset, value):
    segment.data[offset:offset + 8] = value.to_bytes(8, "little")


def for_each_kind(test):
    """Runs a test once per kind of segment, with flags and how to acquire here."""
    @functools.wraps(test)
    def run(self):
        for flags, how in KINDS:
            with self.subTest(flags=flags):
                self.name = "%s-%d" % (test.__name__, flags)
                test(self, flags, how)
    return run


class Meet(MeetingTest):
    def both(self, flags, **fields):
        """The same segment opened here and there, not yet locked."""
        return self.segment(flags, **fields), self.peer(flags)

    @for_each_kind
    def test_the_other_finds_it_busy_and_names_the_holder(self, flags, how):
        mine, peer = self.both(flags)
        grant = mine.acquire(**how)
        self.assertEqual(peer.do("acquire", 0, EXCLUSIVE, 0)[0], EBUSY)
        self.assertEqual(peer.do("acquire", 0, SHARED, 0)[0], EBUSY)
        self.assertEqual(peer.do("acquire", 0, EXCLUSIVE, 20)[0], ETIMEDOUT)
        self.assertEqual(peer.do("holder", 0), [0, os.getpid(), EXCLUSIVE, 1, 0])
        code, _, err = self.lk("run", "-n", self.name, "true")
        self.assertEqual(code, 1)
        self.assertIn("[%d]" % os.getpid(), err)
        mine.release(grant)
        self.assertEqual(peer.do("acquire", 0, EXCLUSIVE, 0)[0], 0)
        self.assertEqual(mine.holder().pid, peer.process.pid)
        self.refused("BUSY", mine.acquire, deadline_ns=0, **how)

    @for_each_kind
    def test_it_waits_for_the_other_and_the_other_for_it(self, flags, how):
        mine, peer = self.both(flags)
        first = peer.do("acquire", 0, EXCLUSIVE, 0)[1]
        later = mine.acquire_later(**how)
        observer = self.connect().open(self.name, READ_ONLY)
        self.until_waiting(observer, 1)
        self.assertFalse(mine.client.receive(0), "granted while somebody holds it")
        self.assertEqual(peer.do("release", 0), [0])
        grant = mine.granted(later)
        self.assertGreater(grant.token, first)
        peer.say("acquire", 0, EXCLUSIVE, -1)
        self.until_waiting(observer, 1)
        mine.release(grant)
        result, token = peer.hear()
        self.assertEqual(result, 0)
        self.assertGreater(token, grant.token)

    @for_each_kind
    def test_data_and_tokens_go_both_ways(self, flags, how):
        mine, peer = self.both(flags)
        last = 0
        for turn in range(20):
            grant = mine.acquire(**how)
            self.assertEqual(grant.token, mine.sequence(), "the token of a hold is the sequence")
            self.assertGreater(grant.token, last)
            if turn:
                self.assertEqual(number_at(mine, 8), last)
            put_number(mine, 0, grant.token)
            mine.release(grant)
            result, token = peer.do("acquire", 0, EXCLUSIVE, -1)
            self.assertEqual((result, peer.do("get", 0)), (0, [grant.token]))
            self.assertGreater(token, grant.token)
            peer.do("put", 8, token)
            self.assertEqual(peer.do("release", 0), [0])
            last = token

    def test_an_optimistic_read_is_never_torn(self):
        """The writer stores one number at both ends of 64 KiB; whoever copies between the two has a pair
        that differs, and must not accept it."""
        writer = self.peer(KEEP | CREATE, size_bytes=65536)
        mine = self.segment(READ_ONLY, 0)
        writer.say("churn", 0, 1000)
        accepted, torn, end = 0, 0, time.monotonic() + 1
        while time.monotonic() < end:
            copy = mine.data[:]
            torn += copy[:8] != copy[-8:]
            copy, token = mine.read(0, 65536)
            if any(copy[:8]):
                self.assertEqual(copy[:8], copy[-8:])
                self.assertEqual(int.from_bytes(copy[:8], "little") + 1, token, "token + 1: it has released")
                accepted += 1
        self.assertGreater(writer.hear()[0], 0)
        self.assertGreater(accepted, 0)
        print("optimistic reads: %d whole pairs accepted; %d blind copies were torn" % (accepted, torn))

    @for_each_kind
    def test_readers_share_and_keep_writers_out(self, flags, how):
        mine, peer = self.both(flags)
        grant = mine.acquire(SHARED, **how)
        self.assertEqual(grant.token % 2, 0)
        self.assertEqual(peer.do("acquire", 0, SHARED, 0)[0], 0)
        observer = self.connect().open(self.name, READ_ONLY)
        self.assertEqual((observer.holder().holders, observer.holder().mode), (2, SHARED))
        mine.release(grant)
        self.refused("BUSY", mine.acquire, deadline_ns=0, **how)
        self.assertEqual(peer.do("release", 0), [0])
        mine.release(mine.acquire(**how))  # a try might come before the other's release was read

    @for_each_kind
    def test_it_upgrades_beside_readers_of_the_other(self, flags, how):
        mine, peer = self.both(flags)
        grant = mine.acquire(UPDATE, **how)
        self.assertEqual(peer.do("acquire", 0, UPDATE, 0)[0], EBUSY)
        self.assertEqual(peer.do("acquire", 0, SHARED, 0)[0], 0)
        self.assertEqual(peer.do("holder", 0), [0, os.getpid(), UPDATE, 2, 0])
        self.refused("BUSY", mine.upgrade, grant, deadline_ns=0)
        self.refused("TIMED_OUT", mine.upgrade, grant, deadline_ns=time.monotonic_ns() + 20000000)
        later = mine.change_later(grant, EXCLUSIVE)
        self.assertEqual(mine.holder().mode, EXCLUSIVE)  # answered behind it: it drains
        self.assertNotIn(later, mine.client.replies)
        self.assertEqual(peer.do("release", 0), [0])
        raised = mine.granted(later)
        self.assertEqual((raised.attachment, raised.token), (grant.attachment, mine.sequence()))
        self.assertGreater(raised.token, grant.token)
        self.assertEqual(peer.do("acquire", 0, SHARED, 0)[0], EBUSY)
        peer.say("acquire", 0, SHARED, -1)
        self.until_waiting(mine, 1)
        mine.downgrade(grant, UPDATE)
        self.assertEqual(peer.hear()[0], 0)
        mine.downgrade(grant, SHARED)
        self.assertEqual(mine.holder().mode, SHARED)
        self.assertEqual(peer.do("release", 0), [0])
        mine.release(grant)
        self.assertEqual(peer.do("acquire", 0, EXCLUSIVE, 0)[0], 0)

    @for_each_kind
    def test_the_other_upgrades_beside_its_readers(self, flags, how):
        mine, peer = self.both(flags)
        token = peer.do("acquire", 0, UPDATE, 0)[1]
        self.refused("BUSY", mine.acquire, UPDATE, deadline_ns=0, **how)
        grant = mine.acquire(SHARED, **how)
        self.assertEqual(peer.do("upgrade", 0, 0)[0], EBUSY)
        peer.say("upgrade", 0, -1)
        self.until(lambda: mine.holder().mode == EXCLUSIVE)
        self.refused("BUSY", self.connect().open(self.name).acquire, SHARED, deadline_ns=0, **how)
        mine.release(grant)
        result, raised = peer.hear()
        self.assertEqual(result, 0)
        self.assertGreater(raised, token)
        later = mine.acquire_later(UPDATE, **how)
        self.until_waiting(mine, 1)
        self.assertEqual(peer.do("downgrade", 0, SHARED), [0])
        grant = mine.granted(later)  # for update: beside readers
        self.assertGreater(grant.token, raised)
        self.assertEqual(peer.do("release", 0), [0])
        mine.release(grant)

    @for_each_kind
    def test_a_ring_through_both_has_one_victim(self, flags, how):
        mine, peer = self.both(flags)
        here = mine.acquire(lock=0, **how)
        self.assertEqual(peer.do("acquire", 1, EXCLUSIVE, 0)[0], 0)
        later = mine.acquire_later(lock=1, **how)
        self.until_waiting(self.connect().open(self.name, READ_ONLY), 1, lock=1)
        self.assertEqual(peer.do("acquire", 0, EXCLUSIVE, -1)[0], EDEADLK)
        self.assertEqual(peer.do("release", 1), [0])
        mine.release(mine.granted(later), lock=1)
        mine.release(here)

    @for_each_kind
    def test_locking_twice_is_a_deadlock(self, flags, how):
        mine = self.segment(flags)
        grant = mine.acquire(**how)
        self.refused("DEADLOCK", mine.acquire, **how)
        self.refused("DEADLOCK", mine.acquire, SHARED, **how)
        mine.release(grant)

    def holder_process(self, flags, mode=EXCLUSIVE, declare=False, close=False, upgrade=False, **how):
        """A process with this client that holds the lock: its pid and token."""
        def work():
            segment = Client(self.socket).open(self.name, flags, size_bytes=4096)
            grant = segment.acquire(mode, **how)
            if upgrade:
                grant = segment.upgrade(grant)
            if declare:
                segment.hold("declare", grant, offset=16, length_bytes=32)
            if close:
                segment.client.close()
            return grant.token, segment
        return self.process(work)

    @for_each_kind
    def test_the_other_is_told_of_a_death_inside(self, flags, how):
        peer = self.peer(flags)
        pid, token = self.holder_process(flags, declare=True, **how)
        peer.say("acquire", 0, EXCLUSIVE, -1)
        self.until_waiting(self.connect().open(self.name, READ_ONLY), 1)
        self.end(pid)
        self.assertEqual(peer.hear()[0], 1)
        self.assertEqual(peer.do("recovery", 0), [0, 1, pid, token, 1, 16, 32])
        self.assertEqual(peer.do("mark", 0), [0])
        self.assertEqual(peer.do("release", 0), [0])
        self.assertEqual(peer.do("acquire", 0, EXCLUSIVE, 0)[0], 0)

    @for_each_kind
    def test_the_other_is_told_of_a_death_after_an_upgrade(self, flags, how):
        peer = self.peer(flags)
        pid, token = self.holder_process(flags, UPDATE, upgrade=True, **how)
        self.end(pid)
        self.assertEqual(peer.do("acquire", 0, UPDATE, -1)[0], 1)
        self.assertEqual(peer.do("recovery", 0)[:4], [0, 1, pid, token])
        self.assertEqual(peer.do("mark", 0), [EPERM], "who holds for update repairs nothing")
        self.assertEqual(peer.do("upgrade", 0, -1)[0], 1)
        self.assertEqual(peer.do("mark", 0), [0])
        self.assertEqual(peer.do("release", 0), [0])

    @for_each_kind
    def test_a_death_that_tears_nothing_is_a_plain_release(self, flags, how):
        peer = self.peer(flags)
        observer = self.connect()
        for mode, to_exit in ((SHARED, False), (UPDATE, False), (EXCLUSIVE, True)):
            pid, _ = self.holder_process(flags, mode, to_exit=to_exit, **how)
            peer.say("acquire", 0, EXCLUSIVE, -1)
            # Before readers a writer does not wait: it owns the lock, and drains.
            state = wire.ENTRY_DRAINING if mode == SHARED else wire.ENTRY_WAITING
            self.until(lambda: (peer.process.pid, state) in [
                (entry.pid, entry.state) for entry in observer.list(wire.LIST_LOCKS, self.name)])
            self.end(pid)
            self.assertEqual(peer.hear()[0], 0)
            self.assertEqual(peer.do("release", 0), [0])

    @for_each_kind
    def test_it_is_told_of_a_death_of_the_other_until_somebody_repairs(self, flags, how):
        mine, peer = self.both(flags)
        token = peer.do("acquire", 0, EXCLUSIVE, 0)[1]
        later = mine.acquire_later(**how)
        self.until_waiting(self.connect().open(self.name, READ_ONLY), 1)
        peer.process.kill()
        grant = mine.granted(later)
        self.assertEqual(grant.status, wire.STATUS_OWNER_DIED)
        cold = mine.cold // 4
        self.assertEqual(list(mine.words32[cold + 2:cold + 4]), [1, peer.process.pid])
        self.assertEqual(mine.words64[mine.cold // 8 + 3], token)
        mine.release(grant)
        self.assertEqual(mine.sequence() % 2, 1, "damage is left, so that nobody reads optimistically")
        grant = mine.acquire(**how)
        self.assertEqual(grant.status, wire.STATUS_OWNER_DIED)
        mine.hold("mark_consistent", grant)
        mine.release(grant)
        self.assertEqual(mine.sequence() % 2, 0)
        grant = mine.acquire(**how)
        self.assertEqual(grant.status, wire.STATUS_OK)
        mine.release(grant)

    @for_each_kind
    def test_a_lost_connection_keeps_its_holds_until_the_process_ends(self, flags, how):
        peer = self.peer(flags)
        pid, _ = self.holder_process(flags, close=True, **how)
        observer = self.connect().open(self.name, READ_ONLY)
        peer.say("acquire", 0, EXCLUSIVE, -1)
        self.until_waiting(observer, 1)
        self.assertEqual(observer.holder().pid, pid)
        self.end(pid)
        self.assertEqual(peer.hear()[0], 1)

    @for_each_kind
    def test_goodbye_and_detach_hand_on_as_after_a_death(self, flags, how):
        for farewell in ("goodbye", "detach"):
            mine, peer = self.both(flags)
            token = mine.acquire(**how).token
            mine.client.goodbye() if farewell == "goodbye" else mine.detach()
            self.assertEqual(peer.do("acquire", 0, EXCLUSIVE, -1)[0], 1, farewell)
            self.assertEqual(peer.do("recovery", 0)[:4], [0, 2, os.getpid(), token])
            self.assertEqual(peer.do("mark", 0), [0])
            self.assertEqual(peer.do("release", 0), [0])

    @for_each_kind
    def test_cancel_and_deadline(self, flags, how):
        mine, peer = self.both(flags)
        self.assertEqual(peer.do("acquire", 0, EXCLUSIVE, 0)[0], 0)
        later = mine.acquire_later(**how)
        mine.client.cancel(later)
        self.refused("CANCELED", mine.granted, later)
        self.refused("TIMED_OUT", mine.acquire, deadline_ns=time.monotonic_ns() + 20000000, **how)
        later = mine.acquire_later(**how)
        self.refused("PENDING", mine.acquire, **how)
        peer.do("release", 0)
        grant = mine.granted(later)
        self.refused("NOT_FOUND", mine.client.cancel, later)
        mine.release(grant)
        self.refused("NOT_HOLDER", mine.release, grant)

    def test_one_session_waits_for_many_locks_at_once(self):
        mine, peer = self.both(CREATE)
        for lock in range(4):
            self.assertEqual(peer.do("acquire", lock, EXCLUSIVE, 0)[0], 0)
        later = [mine.acquire_later(lock=lock, asynchronous=True) for lock in range(4)]
        for lock in (2, 0, 3, 1):
            peer.do("release", lock)
            mine.release(mine.granted(later[lock]), lock)

    def test_a_lease_that_fences(self):
        mine = self.segment(CREATE | STRICT, lease_ns=20000000, on_expiry=2)
        peer = self.peer(0)
        grant = mine.acquire()
        self.assertEqual(peer.do("acquire", 0, EXCLUSIVE, -1)[0], 1)
        self.assertEqual(peer.do("recovery", 0)[1], 4)
        self.refused("STALE", mine.hold, "mark_consistent", grant)
        self.refused("STALE", mine.release, grant)
        self.refused("NOT_HOLDER", mine.release, grant)

    def test_a_holder_is_ended_by_force(self):
        pid, _ = self.holder_process(CREATE | STRICT | ACCEPT_KILL)
        mine = self.segment(STRICT, 0)
        force = {"name": self.name.encode(), "reason": b"a test"}
        self.refused("INVALID", mine.client.ask, "force_release", name=self.name.encode())
        self.assertEqual(mine.client.ask("force_release", **force).value, 1)
        os.waitpid(pid, 0)
        self.assertEqual(mine.acquire().status, wire.STATUS_OWNER_DIED)

    def test_the_command_line_shows_it(self):
        mine = self.segment(CREATE | STRICT)
        lock = mine.lock_named("orders")
        grant = mine.acquire(lock=lock)
        self.assertEqual(self.locks(self.name)["%s#orders" % self.name]["holders"][0]["pid"], os.getpid())
        self.assertIn(str(os.getpid()), self.lk("why", self.name + "#orders")[1])
        mine.release(grant, lock)


if __name__ == "__main__":
    unittest.main()
