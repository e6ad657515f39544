# SPDX-License-Identifier: MIT
"""A second client of the broker, written from docs/protocol.md and proto/lockkeeper.proto alone.

It shares no line with the C library, so that a rule which only the library's authors know shows up as a
test that fails here. It locks through the broker, and so never writes to a control area. One thread at a
time; a session belongs to the process that made it. Needs lockkeeper_pb2, which protoc makes of the schema.
"""
import collections
import fcntl
import mmap
import os
import select
import socket
import sys
import time
import warnings

import lockkeeper_pb2 as wire

REQUEST_BYTES_MAX = 16384
REPLY_BYTES_MAX = 65536
DESCRIPTORS_MAX = 4
FOREVER = 2**64 - 1

CREATE, CREATE_NEW, READ_ONLY, KEEP, STRICT = 1, 2, 4, 8, 16
RESERVE, INHERIT, GUARD, ACCEPT_KILL, UNPUBLISHED = 32, 64, 128, 256, 512
SHARED, EXCLUSIVE, UPDATE = wire.MODE_SHARED, wire.MODE_EXCLUSIVE, wire.MODE_UPDATE

F_GET_SEALS, F_SEAL_SHRINK = 1034, 2  # linux/fcntl.h; Python's fcntl has no names for all releases
MAGIC, LAYOUT_MAJOR, HEADER_BYTES = 0x6B4C6B31, 2, 4096
HOT_BYTES, ATTACHMENT_BYTES, COLD_BYTES = 64, 256, 384

REQUESTS = {field.name for field in wire.Envelope.DESCRIPTOR.fields if 101 <= field.number < 132}
MESSAGES = {field.name for field in wire.Envelope.DESCRIPTOR.fields if field.number > 100}
ONE_WAY = {"ask", "nudge", "resume"}


class Refused(Exception):
    """The broker decided against it: a RESULT with this status."""

    def __init__(self, result):
        super().__init__("%s: %s" % (wire.Status.Name(result.status), result.detail.decode()))
        self.status = result.status


class Gone(Exception):
    """The connection has ended, or the broker broke the protocol."""


def has_unknown_fields(message):
    """On any level. An enum value outside the schema counts: protobuf keeps it as an unknown field."""
    if len(message.UnknownFields()):
        return True
    for field, value in message.ListFields():
        if field.message_type:
            values = value if field.label == field.LABEL_REPEATED else [value]
            if any(has_unknown_fields(one) for one in values):
                return True
    return False


def parse(record, requests):
    """The envelope in a record and the name of its message. Raises ValueError where docs/protocol.md says
    that it breaks the protocol."""
    if not 0 < len(record) <= (REQUEST_BYTES_MAX if requests else REPLY_BYTES_MAX):
        raise ValueError("an empty record, or too long")
    envelope = wire.Envelope()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # some implementations only warn of a stray end of a group
            envelope.ParseFromString(record)
    except Exception as error:  # DecodeError, but the implementations of protobuf raise others as well
        raise ValueError("malformed") from error
    if has_unknown_fields(envelope):
        raise ValueError("unknown fields, or a value outside its enum")
    names = [field.name for field, _ in envelope.ListFields() if field.name in MESSAGES]
    if len(names) != 1:
        raise ValueError("%d messages" % len(names))
    if (names[0] in REQUESTS) != requests:
        raise ValueError("a message that goes in the other direction")
    return envelope, names[0]


class Client:
    """A session. Methods that ask raise Refused, or return what the reply has."""

    def __init__(self, path, hello=(1, 4, 2)):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self.last_id = 0
        self.unanswered = {}  # id: (record, descriptors), in the order of the ids; to be repeated
        self.replies = {}  # id: (name, message, descriptors)
        self.events = collections.deque()
        self.resumed = []  # the numbers of the workers that said so
        self.answered = False
        try:
            self.socket.connect(path)
            self.send("hello", protocol_major=hello[0], protocol_minor=hello[1], layout_major=hello[2])
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Without a word: what is held stays until the process has ended."""
        for _, _, descriptors in self.replies.values():
            close_all(descriptors)
        for _, descriptors in self.unanswered.values():
            close_all(descriptors)
        self.replies, self.unanswered = {}, {}
        self.socket.close()

    # --- Records ---

    def send(self, request, descriptors=(), /, **fields):
        """Sends a request and returns its id at once. Borrows the descriptors, and copies them: they have to
        be there if the request is to be repeated."""
        envelope = wire.Envelope()
        if request != "resume":
            self.last_id += 1
            envelope.id = self.last_id
        message = getattr(envelope, request)
        message.SetInParent()
        for field, value in fields.items():
            setattr(message, field, value)
        record = envelope.SerializeToString()
        if request not in ONE_WAY and not fields.get("one_way"):
            self.unanswered[envelope.id] = (record, [os.dup(fd) for fd in descriptors])
        self.transmit(record, descriptors)
        return envelope.id

    def transmit(self, record, descriptors=()):
        try:
            if descriptors:
                socket.send_fds(self.socket, [record], list(descriptors))
            else:
                self.socket.send(record)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the reason may be there to be read

    def receive(self, timeout_s=None):
        """Takes one record from the socket. False if none came in time."""
        if not select.select([self.socket], [], [], timeout_s)[0]:
            return False
        try:
            record, descriptors, flags, _ = socket.recv_fds(
                self.socket, REPLY_BYTES_MAX, DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return True  # requests were unread; what the broker sent last comes behind this
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            close_all(descriptors)
            raise Gone("a record or its descriptors did not fit")
        if not record:
            raise Gone("the broker has closed")
        try:
            envelope, name = parse(record, requests=False)
        except ValueError as error:
            close_all(descriptors)
            raise Gone("the broker sent nonsense: %s" % error) from error
        self.take(envelope.id, name, getattr(envelope, name), descriptors)
        return True

    def take(self, reply_id, name, message, descriptors):
        if name == "resumed":
            self.resume(message.number)
        elif name == "event":
            self.events.append(message)
        elif reply_id == 0:  # a RESULT about the connection itself
            raise Refused(message)
        elif reply_id not in self.unanswered:
            close_all(descriptors)
            raise Gone("a second answer to %d, or one to nothing: %s" % (reply_id, name))
        else:
            if not self.answered:
                self.answered = True
                if reply_id != 1:
                    self.unanswered.pop(1, None)  # HELLO has no other answer
            close_all(self.unanswered.pop(reply_id)[1])
            self.replies[reply_id] = (name, message, descriptors)

    def resume(self, number):
        self.resumed.append(number)
        self.send("resume", number=number)
        for record, descriptors in list(self.unanswered.values()):
            self.transmit(record, descriptors)

    def wait(self, request_id, timeout_s=30):
        """The reply to a request: (name, message, descriptors)."""
        end = time.monotonic() + timeout_s
        while request_id not in self.replies:
            if not self.receive(max(0, end - time.monotonic())):
                raise TimeoutError("no answer to %d" % request_id)
            if 1 in self.replies:
                raise Refused(self.replies.pop(1)[1])
        return self.replies.pop(request_id)

    def result(self, request_id, expected="result"):
        """The message of the reply to a request. Raises Refused if it is a refusal."""
        name, message, descriptors = self.wait(request_id)
        close_all(descriptors)
        if name == "result" and (expected != "result" or message.status != wire.STATUS_OK):
            raise Refused(message)
        if name != expected:
            raise Gone("%s instead of %s" % (name, expected))
        return message

    def ask(self, request, expected="result", /, **fields):
        return self.result(self.send(request, **fields), expected)

    # --- Requests ---

    def open(self, name, flags=0, descriptors=(), **fields):
        if descriptors:
            self.ask("list", "list_page", what=wire.LIST_BROKER)  # descriptors only behind the first answer
            fields["offered"] = True
        reply = self.wait(self.send("open", descriptors, name=name.encode(), flags=flags, **fields))
        if reply[0] == "result":
            raise Refused(reply[1])
        if reply[0] != "opened":
            raise Gone("%s instead of opened" % reply[0])
        return Segment(self, reply[1], reply[2])

    def remove(self, name):
        self.ask("remove", name=name.encode())

    def list(self, what, name=""):
        entries, cursor = [], 0
        while True:
            page = self.ask("list", "list_page", what=what, cursor=cursor, name=name.encode())
            entries += page.entries
            cursor = page.next_cursor
            if not cursor:
                return entries

    def cancel(self, request_id):
        self.ask("cancel", request=request_id)

    def goodbye(self):
        self.ask("goodbye")
        self.close()


class Segment:
    """What OPENED brought: numbers and two maps. Consumes the descriptors, on failure too."""

    def __init__(self, client, opened, descriptors):
        self.client, self.opened, self.number = client, opened, opened.segment
        self.area = self.data = None
        try:
            if len(descriptors) != (2 if opened.data_bytes_max else 1):
                raise Gone("%d descriptors with OPENED" % len(descriptors))
            self.area = map_checked(descriptors[0], opened.area_bytes, mmap.PROT_READ, sealed=True)
            self.words32, self.words64 = (memoryview(self.area).cast(kind) for kind in "IQ")
            self.check_layout()
            if opened.data_bytes_max:
                protection = mmap.PROT_READ | (0 if opened.read_only else mmap.PROT_WRITE)
                length = self.size() if opened.file else opened.data_bytes_max
                self.data = map_checked(descriptors[1], length, protection, sealed=not opened.file)
        finally:
            close_all(descriptors)

    def check_layout(self):
        area_bytes = self.words64[1]
        major = self.words32[1] & 0xFFFF if sys.byteorder == "little" else self.words32[1] >> 16
        if self.words32[0] != MAGIC or major != LAYOUT_MAJOR or area_bytes != self.opened.area_bytes:
            raise Gone("not a control area of layout 1")
        self.locks, slots = self.words32[4], self.words32[5]
        self.hot, attachments, self.cold = self.words64[3:6]
        for offset, count, each in ((self.hot, self.locks, HOT_BYTES), (attachments, slots, ATTACHMENT_BYTES),
                                    (self.cold, self.locks, COLD_BYTES)):
            if offset < HEADER_BYTES or offset % 8 or offset + count * each > area_bytes:
                raise Gone("the tables of the control area do not fit into it")

    def size(self):
        return self.words64[8]

    def sequence(self, lock=0):
        """One aligned load of 8 bytes, which struct.unpack does not promise."""
        return self.words64[(self.hot + HOT_BYTES * lock + 8) // 8]

    def read(self, offset, length, lock=0, tries=1000000):
        """Bytes that no writer of the lock changed meanwhile, and the token of who left them."""
        for _ in range(tries):
            before = self.sequence(lock)
            if before % 2:
                continue
            copy = self.data[offset:offset + length]
            if self.sequence(lock) == before:
                return copy, before
        raise TimeoutError("writers were always inside")

    def lock_named(self, name):
        return self.client.ask("lock_named", segment=self.number, name=name.encode()).value

    def acquire_later(self, mode=EXCLUSIVE, lock=0, deadline_ns=FOREVER, **fields):
        return self.client.send("acquire", segment=self.number, lock=lock, mode=mode, deadline_ns=deadline_ns,
                                **fields)

    def acquire(self, mode=EXCLUSIVE, lock=0, deadline_ns=FOREVER, **fields):
        return self.granted(self.acquire_later(mode, lock, deadline_ns, **fields))

    def granted(self, request_id):
        return self.client.result(request_id, "granted")

    def release(self, grant, lock=0):
        self.hold("release", grant, lock)

    def let_go(self, grant, lock=0):
        """RELEASE without an answer, of what was granted so."""
        assert grant.one_way
        self.client.send("release", segment=self.number, lock=lock, attachment=grant.attachment, one_way=True)

    def hold(self, request, grant, lock=0, **fields):
        """RELEASE, MARK_CONSISTENT or DECLARE, of what was granted."""
        self.client.ask(request, segment=self.number, lock=lock, attachment=grant.attachment, **fields)

    def change_later(self, grant, mode, lock=0, deadline_ns=FOREVER):
        return self.client.send("change_mode", segment=self.number, lock=lock, attachment=grant.attachment,
                                mode=mode, deadline_ns=deadline_ns)

    def upgrade(self, grant, lock=0, deadline_ns=FOREVER):
        return self.granted(self.change_later(grant, EXCLUSIVE, lock, deadline_ns))

    def downgrade(self, grant, mode, lock=0):
        self.client.result(self.change_later(grant, mode, lock))

    def holder(self, lock=0):
        return self.client.ask("holder", "holder_is", segment=self.number, lock=lock)

    def detach(self):
        self.client.ask("detach", segment=self.number)
        self.words32.release()
        self.words64.release()
        self.area.close()
        if self.data:
            self.data.close()


def map_checked(descriptor, length, protection, sealed):
    """Maps what cannot shrink while it is mapped: a memfd that says so, or a file at one's own risk."""
    if sealed and not fcntl.fcntl(descriptor, F_GET_SEALS) & F_SEAL_SHRINK:
        raise Gone("memory that its sender could truncate")
    if os.fstat(descriptor).st_size < length:
        raise Gone("memory shorter than announced")
    return mmap.mmap(descriptor, length, mmap.MAP_SHARED, protection)


def close_all(descriptors):
    for descriptor in descriptors:
        os.close(descriptor)
