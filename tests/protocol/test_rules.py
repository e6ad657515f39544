# SPDX-License-Identifier: MIT
"""What docs/protocol.md says of records and refusals, rule by rule, by the client that was written from it."""
import mmap
import os
import socket
import tempfile
import time
import unittest

from meeting import MeetingTest, wire
from client import (ACCEPT_KILL, CREATE, CREATE_NEW, EXCLUSIVE, KEEP, READ_ONLY, REQUEST_BYTES_MAX, SHARED, STRICT,
                    UNPUBLISHED, UPDATE, Gone)

HELLO = bytes.fromhex("0801aa06040801" + "1802")  # as it stands in the document
GROW_DONE = 8192


def record(request_id, name, /, **fields):
    envelope = wire.Envelope(id=request_id)
    message = getattr(envelope, name)
    message.SetInParent()
    for field, value in fields.items():
        setattr(message, field, value)
    return envelope.SerializeToString()


class Records(MeetingTest):
    def raw(self, *records):
        """A connection that has sent these as they are."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(connection.close)
        connection.connect(self.socket)
        connection.settimeout(30)
        try:
            for one in records:
                connection.send(one)
        except (BrokenPipeError, ConnectionResetError):
            pass  # dropped already
        return connection

    def ending(self, connection):
        """All that came until the connection ended. ECONNRESET comes once, before what was sent last."""
        replies = []
        while True:
            try:
                reply = connection.recv(65536)
            except ConnectionResetError:
                continue
            if not reply:
                return replies
            replies.append(wire.Envelope.FromString(reply))

    def answer(self, connection):
        return wire.Envelope.FromString(connection.recv(65536))

    def test_the_first_record_as_the_document_shows_it(self):
        reply = self.answer(self.raw(HELLO, record(2, "list", what=wire.LIST_BROKER)))
        self.assertEqual((reply.id, len(reply.list_page.entries)), (2, 1))

    def test_breaches_end_the_connection(self):
        ask = record(2, "list", what=wire.LIST_BROKER)
        breaches = {
            "malformed": b"\xff",
            "an unknown field": ask + b"\x18\x01",
            "an unknown field inside": record(2, "goodbye")[:-1] + b"\x02\x08\x01",
            "no message": b"\x08\x02",
            "two messages": ask + record(2, "goodbye")[2:],
            "a message twice": ask + ask[2:],
            "an id twice": b"\x08\x02" + ask,
            "a reply": record(2, "result"),
            "a value outside its enum": ask[:-1] + b"\x05",
            "too long": record(2, "remove", name=b"x" * REQUEST_BYTES_MAX),
            "an id that does not rise": record(1, "list", what=wire.LIST_BROKER),
            "a second hello": b"\x08\x02" + HELLO[2:],
            "a resume that nobody asked for": record(0, "resume", number=1),
        }
        for name, breach in breaches.items():
            with self.subTest(name):
                self.assertEqual(self.ending(self.raw(HELLO, breach)), [])
        with self.subTest("no hello"):
            self.assertEqual(self.ending(self.raw(ask)), [])
        with self.subTest("a descriptor with what takes none"):
            connection = self.raw(HELLO, ask)
            self.answer(connection)
            with tempfile.TemporaryFile() as file:
                socket.send_fds(connection, [record(3, "list", what=wire.LIST_BROKER)], [file.fileno()])
            self.assertEqual(self.ending(connection), [])
        with self.subTest("an empty record"):
            connection = self.raw(HELLO)
            connection.send(b"")
            self.assertEqual(self.ending(connection), [])

    def test_another_version_is_told_so(self):
        for hello in ((2, 0, 2), (0, 4, 2), (1, 4, 1), (1, 4, 3)):
            client = self.connect(hello=hello)
            client.send("list", what=wire.LIST_BROKER)
            self.refused("VERSION", client.wait, 2)
            with self.assertRaises(Gone):
                while client.receive(30):
                    pass
        self.assertEqual(len(self.connect(hello=(1, 99, 2)).list(wire.LIST_BROKER)), 1)

    def test_replies_come_in_the_order_of_events(self):
        mine = self.segment(CREATE | STRICT)
        other = self.segment(STRICT, 0)
        grant = other.acquire()
        later = mine.acquire_later()
        mine.client.list(wire.LIST_BROKER)  # answered although the acquire before it is not
        self.assertNotIn(later, mine.client.replies)
        other.release(grant)
        mine.granted(later)

    def test_what_was_sent_last_comes_although_requests_are_unread(self):
        connection = self.raw(HELLO, record(2, "goodbye"), *(record(3 + i, "list", what=3) for i in range(20)))
        replies = self.ending(connection)
        self.assertEqual([(reply.id, reply.result.status) for reply in replies], [(2, wire.STATUS_OK)])


class Refusals(MeetingTest):
    def test_open(self):
        session = self.connect()
        name = self.name
        for status, fields in (
                ("NOT_FOUND", {"name": name}),
                ("NOT_FOUND", {"name": name, "flags": READ_ONLY}),
                ("NOT_FOUND", {"name": "~1/" + name}),
                ("INVALID", {"name": name, "flags": CREATE | READ_ONLY}),
                ("INVALID", {"name": name, "flags": CREATE | 1024}),
                ("INVALID", {"name": name, "flags": CREATE, "mode": 0o1000}),
                ("INVALID", {"name": name, "flags": CREATE, "size_bytes": 2, "size_max_bytes": 1}),
                ("INVALID", {"name": name, "flags": CREATE, "on_expiry": 1}),
                ("INVALID", {"name": name, "flags": CREATE, "lease_ns": 1, "on_expiry": 3}),
                ("TOO_LARGE", {"name": name, "flags": CREATE, "size_bytes": 2**46 + 1}),
                ("TOO_LARGE", {"name": name, "flags": CREATE, "locks": 1048577}),
                ("TOO_LARGE", {"name": name, "flags": CREATE, "attachments_max": 16385}),
                ("BAD_FD", {"name": name, "flags": CREATE, "offered": True})):
            with self.subTest(**fields):
                self.refused(status, session.open, **fields)
        for bad in ("", "a#b", "a/b", "~a", "@a", "~01/a", "~4294967295/a", "@/a", "a\x7f", "a\x85", "x" * 256):
            with self.subTest(name=bad):
                self.refused("INVALID", session.open, bad, CREATE)

    def test_open_what_exists(self):
        session = self.connect()
        self.segment(CREATE, 4096, locks=2, lease_ns=1000, attachments_max=2)
        for status, fields in (("EXISTS", {"flags": CREATE_NEW}), ("INVALID", {"size_bytes": 4097}),
                               ("INVALID", {"locks": 3}), ("INVALID", {"flags": STRICT}),
                               ("INVALID", {"lease_ns": 2}), ("INVALID", {"lease_ns": 1000, "on_expiry": 1})):
            with self.subTest(**fields):
                self.refused(status, session.open, self.name, **fields)
        first = session.open(self.name, size_bytes=1, locks=1, lease_ns=1000)
        again = session.open(self.name)
        self.assertEqual(first.opened.attachment, again.opened.attachment)
        self.assertFalse(again.opened.created)
        self.refused("FULL", self.connect().open, self.name)

    def test_a_segment_that_is_not_published(self):
        mine = self.segment(CREATE | UNPUBLISHED)
        self.refused("NOT_READY", self.connect().open, self.name)
        mine.client.ask("publish", segment=mine.number)
        other = self.connect().open(self.name)
        self.refused("NOT_HOLDER", other.client.ask, "publish", segment=other.number)

    def test_numbers_that_mean_nothing(self):
        mine = self.segment(CREATE | STRICT)
        for request in ("publish", "detach", "grow", "lock_named", "acquire", "release", "mark_consistent",
                        "declare", "change_mode", "holder", "deadlock_check"):
            with self.subTest(request):
                self.refused("STALE", mine.client.ask, request, segment=mine.number + 1)
        for request in ("acquire", "release", "mark_consistent", "declare", "change_mode", "holder"):
            with self.subTest(request):
                self.refused("OUT_OF_RANGE", mine.client.ask, request, segment=mine.number, lock=16)
        mine.client.ask("detach", segment=mine.number)
        self.refused("STALE", mine.acquire)
        self.refused("NOT_FOUND", mine.client.cancel, 1)
        self.refused("NOT_FOUND", mine.client.remove, "nobody made this")
        self.refused("INVALID", mine.client.list, 0)
        self.refused("NOT_FOUND", mine.client.list, wire.LIST_LOCKS, "nobody made this")

    def test_acquire(self):
        native, strict = self.segment(CREATE), self.connect().open(self.name + "2", CREATE | STRICT)
        self.refused("INVALID", native.acquire)
        self.refused("INVALID", native.acquire, 0, asynchronous=True)
        self.refused("INVALID", strict.acquire, 0)
        self.refused("INVALID", strict.acquire, SHARED, to_exit=True)
        wide = self.connect().open(self.name + "3", CREATE | STRICT, locks=20)
        for lock in range(16):
            wide.acquire(SHARED, lock=lock)
        self.refused("NO_CELL", wide.acquire, SHARED, lock=16)

    def test_change_mode_from_where_it_does_not_go(self):
        mine, other = self.segment(CREATE | STRICT), self.segment(STRICT, 0)
        self.assertGreaterEqual(mine.opened.protocol_minor, 4)
        for held, wrong in ((SHARED, (EXCLUSIVE, UPDATE, SHARED)), (UPDATE, (UPDATE,)), (EXCLUSIVE, (EXCLUSIVE,))):
            grant = mine.acquire(held)
            for mode in wrong:
                self.refused("NOT_HOLDER", mine.downgrade, grant, mode)
            self.refused("INVALID", mine.downgrade, grant, 0)
            for mode in (EXCLUSIVE, UPDATE, SHARED):
                self.refused("NOT_HOLDER", other.downgrade, grant, mode)
            self.assertEqual((other.holder().mode, other.holder().holders), (held, 1))
            mine.release(grant)
        for mode in (EXCLUSIVE, UPDATE, SHARED):
            self.refused("NOT_HOLDER", mine.downgrade, grant, mode)

    def test_an_upgrade_that_gets_nothing_leaves_the_hold(self):
        for how in {}, {"asynchronous": True}:
            with self.subTest(**how):
                self.upgrade_that_gets_nothing(how)

    def upgrade_that_gets_nothing(self, how):
        name = "%s-%d" % (self.name, len(how))
        mine, other = (self.connect().open(name, CREATE | STRICT, locks=20) for _ in range(2))
        grant, reads = mine.acquire(UPDATE, **how), other.acquire(SHARED)

        def refused(status, call, *arguments, **fields):
            self.refused(status, call, *arguments, **fields)
            self.assertEqual((other.holder().mode, other.holder().holders), (UPDATE, 2))

        refused("BUSY", mine.upgrade, grant, deadline_ns=0)
        refused("TIMED_OUT", mine.upgrade, grant, deadline_ns=time.monotonic_ns() + 1000000)
        later = mine.change_later(grant, EXCLUSIVE)
        self.refused("NOT_HOLDER", mine.release, grant)
        mine.client.cancel(later)
        refused("CANCELED", mine.granted, later)
        refused("NOT_FOUND", mine.client.cancel, later)
        if not how:
            taken = other.acquire(lock=1)
            later = mine.acquire_later(lock=1)
            refused("PENDING", mine.upgrade, grant)
            mine.client.cancel(later)
            self.refused("CANCELED", mine.granted, later)
            other.release(taken, lock=1)
        mine.acquire(lock=1)
        later = other.acquire_later(lock=1)
        self.until_waiting(mine, 1, lock=1)  # else it may be the one that closes the ring
        refused("DEADLOCK", mine.upgrade, grant)
        other.client.cancel(later)
        self.refused("CANCELED", other.granted, later)
        other.release(reads)
        self.assertGreater(mine.upgrade(grant).token, grant.token)
        mine.release(grant)

    def test_change_mode_to_shared_needs_a_cell(self):
        mine = self.segment(CREATE | STRICT, locks=20)
        for held in UPDATE, EXCLUSIVE:
            grant, reads = mine.acquire(held), [mine.acquire(SHARED, lock=lock) for lock in range(1, 17)]
            self.refused("NO_CELL", mine.downgrade, grant, SHARED)
            self.assertEqual(mine.holder().mode, held)
            mine.release(reads.pop(), lock=16)
            mine.downgrade(grant, SHARED)
            self.assertEqual(mine.holder().mode, SHARED)
            mine.release(grant)
            for lock, grant in enumerate(reads, 1):
                mine.release(grant, lock=lock)

    def test_asynchronous_waits_of_a_session(self):
        holder = self.segment(CREATE | STRICT, locks=70)
        for lock in range(65):
            holder.acquire(lock=lock)
        mine = self.connect().open(self.name)
        later = [mine.acquire_later(lock=lock, asynchronous=True) for lock in range(64)]
        self.refused("NOT_READY", mine.acquire, lock=64, asynchronous=True)
        mine.client.ask("detach", segment=mine.number)
        for request in later:
            self.refused("CANCELED", mine.granted, request)

    def test_who_does_not_hold_changes_nothing(self):
        mine, other = self.segment(CREATE | STRICT), self.segment(STRICT, 0)
        grant = mine.acquire()
        for request in ("release", "mark_consistent", "declare"):
            self.refused("NOT_HOLDER", other.hold, request, grant)
        self.assertEqual(other.holder().holders, 1)

    def test_read_only(self):
        mine = self.segment(CREATE, 4096, size_max_bytes=GROW_DONE)
        reader = self.connect().open(self.name, READ_ONLY)
        self.assertTrue(reader.opened.read_only and reader.opened.brokered)
        self.assertEqual(reader.opened.attachment & 0xFFFF0000, 0x10000)
        with self.assertRaises(TypeError):
            reader.data[0] = 1
        _, _, descriptors = reader.client.wait(
            reader.client.send("open", name=self.name.encode(), flags=READ_ONLY))
        for descriptor in descriptors:
            with self.assertRaises(PermissionError):
                mmap.mmap(descriptor, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            os.close(descriptor)
        self.refused("DENIED", reader.lock_named, "new")
        index = mine.lock_named("old")
        self.assertEqual(reader.lock_named("old"), index)
        self.refused("DENIED", reader.client.ask, "grow", segment=reader.number, size_bytes=GROW_DONE)
        self.assertEqual(mine.client.ask("grow", segment=mine.number, size_bytes=GROW_DONE).value, GROW_DONE)
        self.assertEqual(reader.size(), GROW_DONE)
        self.refused("TOO_LARGE", mine.client.ask, "grow", segment=mine.number, size_bytes=GROW_DONE + 1)
        self.refused("INVALID", mine.client.ask, "grow", segment=mine.number, size_bytes=1)
        reader.release(reader.acquire())  # exclusively too: it protects whatever they agreed on

    def test_names_of_locks(self):
        mine = self.segment(CREATE, locks=3)
        self.assertEqual([mine.lock_named(name) for name in ("~a", "b", "~a")], [1, 2, 1])
        self.refused("NO_SPACE", mine.lock_named, "c")
        for bad in ("", "12", "a#", "a/b", "x" * 256):
            self.refused("INVALID", mine.lock_named, bad)
        cold = mine.cold + 384
        length = mine.words32[cold // 4]
        self.assertEqual(mine.area[cold + 88:cold + 88 + length], b"~a")
        only = self.connect().open(self.name + "-one", CREATE, locks=1)
        self.assertEqual(only.lock_named("only"), 0)

    def test_files(self):
        session = self.connect()
        with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as other:
            file.write(b"data" * 2048)
            file.flush()
            mine = session.open(self.name, CREATE, [file.fileno()])
            self.assertTrue(mine.opened.file)
            self.assertEqual((mine.size(), mine.data[:4]), (8192, b"data"))
            other.write(b"x")
            other.flush()
            self.refused("STALE", self.connect().open, self.name, 0, [other.fileno()])
            same = self.connect().open(self.name, 0, [file.fileno()])
            same.data[:4] = b"DATA"
            self.assertEqual(mine.data[:4], b"DATA")
            readable = os.open("/proc/self/fd/%d" % file.fileno(), os.O_RDONLY)
            self.addCleanup(os.close, readable)
            self.refused("BAD_FD", self.connect().open, self.name + "2", CREATE, [readable])

    def test_listings_have_pages(self):
        session, keeper = self.connect(), self.connect()
        names = {"%s-%d" % (self.name, i) for i in range(70)}
        for name in names:
            keeper.open(name, CREATE)
        page = session.ask("list", "list_page", what=wire.LIST_SEGMENTS)
        self.assertEqual(len(page.entries), 64)
        self.assertGreater(page.next_cursor, 0)
        listed = [entry.name.decode() for entry in session.list(wire.LIST_SEGMENTS)]
        self.assertEqual(len(listed), len(set(listed)))
        self.assertLessEqual(names, set(listed))

    def test_events(self):
        watcher = self.connect()
        watcher.ask("monitor", name=self.name.encode())
        self.refused("PENDING", watcher.ask, "monitor")
        mine = self.segment(CREATE | STRICT | KEEP, 64, size_max_bytes=128)
        mine.client.ask("grow", segment=mine.number, size_bytes=128)
        mine.client.remove(self.name)
        mine.client.goodbye()
        kinds = []
        while wire.EVENT_SEGMENT_ENDED not in kinds:
            self.assertTrue(watcher.events or watcher.receive(30))
            while watcher.events:
                event = watcher.events.popleft()
                self.assertEqual((event.name.decode(), event.lost), (self.name, 0))
                kinds.append(event.kind)
        self.assertEqual([kind for kind in kinds if kind in range(5, 12)],
                         [wire.EVENT_SEGMENT_CREATED, wire.EVENT_ATTACHED, wire.EVENT_SEGMENT_GROWN,
                          wire.EVENT_SEGMENT_REMOVED, wire.EVENT_DETACHED, wire.EVENT_SEGMENT_ENDED])

    def test_forced_release(self):
        mine = self.segment(CREATE | STRICT | ACCEPT_KILL)
        ask = mine.client.ask
        name = self.name.encode()
        self.refused("INVALID", ask, "force_release", name=name)
        self.refused("INVALID", ask, "force_release", name=name, reason=b"x" * 201)
        self.refused("NOT_FOUND", ask, "force_release", name=name + b"2", reason=b"x")
        self.refused("NOT_FOUND", ask, "force_release", name=name, reason=b"x", lock_name=b"none")
        self.refused("OUT_OF_RANGE", ask, "force_release", name=name, reason=b"x", lock=16)
        self.assertEqual(ask("force_release", name=name, reason=b"x" * 200).value, 0)


if __name__ == "__main__":
    unittest.main()
