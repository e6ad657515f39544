# SPDX-License-Identifier: MIT
"""The codec against Google's parser and the rules of docs/protocol.md: of the same bytes both say the same.

Records are made at random, then bent: LK_SEED chooses, LK_RECORDS says how many. Where verdicts may differ
stands in ALLOWED, with the reason; anything else fails.
"""
import collections
import os
import random
import struct
import subprocess
import sys
import unittest

HELPERS = os.environ["LK_HELPERS"]
sys.path.insert(0, HELPERS)
import lockkeeper_pb2 as wire
from client import REPLY_BYTES_MAX, REQUEST_BYTES_MAX, REQUESTS, parse

SEED = int(os.environ.get("LK_SEED", 1))
RECORDS = int(os.environ.get("LK_RECORDS", 12000))
MESSAGES = [field for field in wire.Envelope.DESCRIPTOR.fields if field.number > 100]
ENTRIES_MAX = 64  # of a page
VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)


# --- Verdicts ---

def text_of(message):
    """As codec_oracle prints it."""
    out = []
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.label == field.LABEL_REPEATED:
            for one in value:
                out.append(" [%s ]" % text_of(one))
        elif field.type == field.TYPE_BYTES:
            out.append(" %s=%s" % (field.name, value.hex()))
        else:
            out.append(" %s=%d" % (field.name, value))
    return "".join(out)


def read_varint(record, at):
    value = shift = 0
    while True:
        value |= (record[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if record[at - 1] < 128:
            return value, at


def fields_of(record):
    """What stands in a well-formed record: (tag, what follows it with its length, what follows without)."""
    at = 0
    while at < len(record):
        tag, at = read_varint(record, at)
        start = at
        if tag & 7 == VARINT:
            at = read_varint(record, at)[1]
            begin = start
        elif tag & 7 == BYTES:
            length, begin = read_varint(record, at)
            at = begin + length
        else:
            begin, at = start, at + {FIXED64: 8, FIXED32: 4}[tag & 7]
        if at > len(record):
            raise IndexError
        yield tag, record[start:at], record[begin:at]


def breaks_envelope(record):
    """Two rules that protobuf does not have: the Envelope has each field once (protobuf takes the last one,
    and merges messages; in a message the last one counts here as well), and numbers of at most 64 bits
    (protobuf drops what is above). Why, or None."""
    seen = set()
    for tag, raw, _ in fields_of(record):
        if tag >> 3 in seen:
            return "a field twice"
        seen.add(tag >> 3)
        if max(tag, read_varint(raw, 0)[0]) >= 2**64:
            return "more than 64 bits"
    return None


def python_says(record, requests):
    try:
        envelope, name = parse(record, requests)
    except ValueError as error:
        return None, str(error)
    reason = breaks_envelope(record)
    if reason:
        return None, reason
    if len(envelope.list_page.entries) > ENTRIES_MAX:
        return None, "too many entries in a page"
    number = wire.Envelope.DESCRIPTOR.fields_by_name[name].number - 100
    return "%d id=%d%s" % (number, envelope.id, text_of(getattr(envelope, name))), ""


def codec_says(cases):
    """For each (record, requests): (text or None, reason or the record that the codec writes)."""
    packed = b"".join((b"q" if requests else b"r") + struct.pack("=I", len(record)) + record
                      for record, requests in cases)
    done = subprocess.run([os.path.join(HELPERS, "protocol_codec_oracle")], input=packed, capture_output=True)
    if done.returncode != 0:
        raise AssertionError("codec_oracle: %d\n%s" % (done.returncode, done.stderr.decode()))
    answers = []
    for line in done.stdout.decode().splitlines():
        verdict, rest = line.split(" ", 1)
        answers.append((None, rest) if verdict == "refuse" else tuple(rest.split(" | ")))
    return answers


# --- Records ---

class Maker:
    def __init__(self, seed):
        self.chance = random.Random(seed)

    def number(self, bits):
        return self.chance.choice([0, 1, 2, 127, 128, 2**(bits - 1) - 1, 2**(bits - 1), 2**bits - 1,
                                   self.chance.getrandbits(bits), self.chance.getrandbits(7)])

    def value(self, field):
        if field.type == field.TYPE_BYTES:
            return self.chance.randbytes(self.chance.choice([0, 1, 3, 31, 255, 300]))
        if field.type == field.TYPE_BOOL:
            return self.chance.random() < 0.5
        if field.type == field.TYPE_ENUM:
            return self.chance.choice(field.enum_type.values).number
        if field.type == field.TYPE_INT32:
            return self.chance.choice([0, 1, -1, 2**31 - 1, -2**31, self.chance.getrandbits(20)])
        return self.number(32 if field.type == field.TYPE_UINT32 else 64)

    def fill(self, message):
        for field in message.DESCRIPTOR.fields:
            if field.label == field.LABEL_REPEATED:
                for _ in range(self.chance.choice([0, 1, 2, 5])):
                    self.fill(getattr(message, field.name).add())
            elif self.chance.random() < 0.7:
                setattr(message, field.name, self.value(field))

    def valid(self, field=None):
        """A record of a type, and whether it is a request."""
        field = field or self.chance.choice(MESSAGES)
        envelope = wire.Envelope(id=self.number(64))
        if self.chance.random() < 0.1:
            envelope.applied = self.number(64)
        message = getattr(envelope, field.name)
        message.SetInParent()
        self.fill(message)
        return envelope.SerializeToString(), field.name in REQUESTS

    @staticmethod
    def varint(value, extra=0):
        """Over-long by `extra` bytes."""
        out = bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
        for _ in range(extra):
            out[-1] |= 128
            out.append(0)
        return bytes(out)

    @staticmethod
    def tag(number, kind, extra=0):
        return Maker.varint(number << 3 | kind, extra)

    def any_field(self, number, kind=None):
        """A field of any wire type, well-formed."""
        kind = self.chance.randrange(6) if kind is None else kind
        if kind == VARINT:
            return self.tag(number, kind) + self.varint(self.number(64), self.chance.choice([0, 0, 0, 1, 3]))
        if kind == FIXED64:
            return self.tag(number, kind) + self.chance.randbytes(8)
        if kind == FIXED32:
            return self.tag(number, kind) + self.chance.randbytes(4)
        if kind == BYTES:
            inner = self.chance.randbytes(self.chance.choice([0, 1, 9]))
            return self.tag(number, kind) + self.varint(len(inner), self.chance.choice([0, 0, 1])) + inner
        if kind == GROUP:
            return self.tag(number, GROUP) + self.any_field(1, VARINT) + self.tag(number, END_GROUP)
        return self.tag(number, END_GROUP)

    def by_hand(self):
        """A record written field by field: over-long varints, numbers beyond their type, fields twice or in
        any order, sometimes of another wire type or unknown."""
        field = self.chance.choice(MESSAGES)
        inner = b"".join(self.member(field.message_type) for _ in range(self.chance.randrange(8)))
        parts = [self.tag(1, VARINT, self.chance.choice([0, 0, 0, 1])) +
                 self.varint(self.number(64), self.chance.choice([0, 0, 1, 2])),
                 self.tag(field.number, BYTES) + self.varint(len(inner), self.chance.choice([0, 0, 0, 1, 2])) +
                 inner]
        if self.chance.random() < 0.2:
            parts.append(self.chance.choice(parts))
        self.chance.shuffle(parts)
        return b"".join(parts), field.name in REQUESTS

    def member(self, kind):
        field = self.chance.choice(kind.fields) if kind.fields else None
        if field is None or self.chance.random() < 0.03:
            return self.any_field(self.chance.choice([1, 20, 200, 2**29 - 1]))
        if self.chance.random() < 0.03:
            return self.any_field(field.number)
        if field.type == field.TYPE_MESSAGE:
            inner = b"".join(self.member(field.message_type) for _ in range(self.chance.randrange(5)))
            return self.tag(field.number, BYTES) + self.varint(len(inner)) + inner
        if field.type == field.TYPE_BYTES:
            return self.any_field(field.number, BYTES)
        if field.type == field.TYPE_ENUM and self.chance.random() < 0.8:
            return self.tag(field.number, VARINT) + self.varint(self.value(field))
        return self.any_field(field.number, VARINT)

    def bent(self):
        record, requests = self.by_hand() if self.chance.random() < 0.3 else self.valid()
        record = bytearray(record)
        for _ in range(self.chance.choice([1, 1, 1, 2, 5])):
            at = self.chance.randrange(len(record) + 1)
            kind = self.chance.randrange(7)
            if kind == 0:
                record = record[:at]
            elif kind == 1 and record:
                record[at % len(record)] ^= 1 << self.chance.randrange(8)
            elif kind == 2:
                record[at:at] = self.chance.randbytes(self.chance.choice([1, 2, 8]))
            elif kind == 3:
                del record[at:at + self.chance.choice([1, 2, 8])]
            elif kind == 4:
                record += self.any_field(self.chance.choice([0, 1, 2, 3, 99, 101, 108, 122, 132, 139, 2**29 - 1]))
            elif kind == 5:
                record += self.valid()[0]
            else:
                record[at:at] = record[at:at + 16]
        return bytes(record), requests

    def case(self):
        record, requests = self.chance.choice([self.valid, self.by_hand, self.bent, self.bent])()
        if self.chance.random() < 0.05:
            requests = not requests
        return record, requests


# --- What may differ ---

def enum_of(field, raw):
    """The value as a signed number of 32 bits, to which parsers cut it."""
    value = read_varint(raw, 0)[0] & (2**32 - 1)
    return value if value < 2**31 else value - 2**32


def rewritten(record, descriptor, change):
    """The record with each field on every level as change(field, kind, raw, rest) has it: None leaves it as it
    is. rest are the later fields' tags of the same message."""
    fields, out = list(fields_of(record)), b""
    for place, (tag, raw, inner) in enumerate(fields):
        field = descriptor.fields_by_number.get(tag >> 3)
        later = {other >> 3 for other, _, _ in fields[place + 1:]}
        if field is None:
            made = None
        elif field.message_type and tag & 7 == BYTES:
            part = rewritten(inner, field.message_type, change)
            made = Maker.tag(field.number, BYTES) + Maker.varint(len(part)) + part
        else:
            made = change(field, tag & 7, raw, field.number in later)
        out += Maker.varint(tag) + raw if made is None else made
    return out


def without_overwritten_enums(field, kind, raw, comes_again):
    if field.type == field.TYPE_ENUM and kind == VARINT and comes_again:
        if enum_of(field, raw) not in field.enum_type.values_by_number:
            return b""
    return None


def with_bools_as_varints(field, kind, raw, _):
    if field.type == field.TYPE_BOOL and kind != VARINT:
        return Maker.tag(field.number, VARINT) + bytes([any(byte & 127 for byte in raw)])
    return None


def agrees_after(change):
    """Allowed only if both say the same once the quirk is taken out of the record."""
    def so(record, requests, text, _, expected):
        try:
            plain = rewritten(record, wire.Envelope.DESCRIPTOR, change)
        except (IndexError, KeyError):  # not well-formed
            return False
        return expected is None and plain != record and python_says(plain, requests)[0] == text
    return so


def too_much_memory(_record, _requests, text, rest, expected):
    return text is None and expected is not None and rest == "-90 takes too much memory"


def all_quirks(field, kind, raw, comes_again):
    made = without_overwritten_enums(field, kind, raw, comes_again)
    return with_bools_as_varints(field, kind, raw, comes_again) if made is None else made


ALLOWED = (
    ("overwritten enum", "Google's parser keeps an enum value outside the schema as an unknown field, also when a "
     "later one of the same field overwrites it; the codec looks at the value that counts",
     agrees_after(without_overwritten_enums)),
    ("bool of another wire type", "protobuf-c reads a bool of any wire type (true if any bit is set, without "
     "each byte's highest); harmless, since it is inside of the field. Nobody may rely on it",
     agrees_after(with_bools_as_varints)),
    ("both of these", "in one record", agrees_after(all_quirks)),
    ("memory", "docs/protocol.md limits the memory to unpack a record, which depends on the implementation",
     too_much_memory),
)


class Oracle(unittest.TestCase):
    def compare(self, cases):
        """The codec's answers; fails where the two differ and nothing allows it."""
        seen, allowed, differences = collections.Counter(), collections.Counter(), []
        answers = codec_says(cases)
        self.assertEqual(len(answers), len(cases))
        for (record, requests), (text, rest) in zip(cases, answers):
            expected, reason = python_says(record, requests)
            seen["accepted" if text else "refused"] += 1
            if text == expected:
                if text:
                    self.check_written(record, requests, text, rest, differences)
                continue
            for name, _, so in ALLOWED:
                if so(record, requests, text, rest, expected):
                    allowed[name] += 1
                    break
            else:
                differences.append("%s %s\n  codec:  %s\n  python: %s" % (
                    "request" if requests else "reply", record.hex(), text or "refuse " + rest,
                    expected or "refuse " + reason))
        if differences:
            self.fail("seed %d: %d differences, the first ones:\n%s" % (
                SEED, len(differences), "\n".join(sorted(differences, key=len)[:12])))
        return answers, seen, allowed

    @staticmethod
    def check_written(record, requests, text, written, differences):
        """What the codec writes for the message that it read is the same message to the other parser."""
        if written.startswith("error"):
            differences.append("it reads what it cannot write (%s): %s" % (written, record.hex()))
        elif python_says(bytes.fromhex(written), requests)[0] != text:
            differences.append("it reads %s\n  and writes %s" % (record.hex(), written))

    def test_both_say_the_same_of_random_and_bent_records(self):
        maker = Maker(SEED)
        _, seen, allowed = self.compare([maker.case() for _ in range(RECORDS)])
        # Neither verdict may be rare, or the test would say nothing about it.
        self.assertGreater(min(seen["accepted"], seen["refused"]), RECORDS // 5)
        print("seed %d: %d records, %d accepted, %d refused, allowed differences: %s" % (
            SEED, RECORDS, seen["accepted"], seen["refused"], dict(allowed) or "none"))

    def test_every_type_is_read_and_written(self):
        maker = Maker(SEED)
        answers, seen, _ = self.compare([maker.valid(field) for field in MESSAGES for _ in range(30)])
        self.assertEqual(seen["refused"], 0)
        self.assertEqual(len({text.split()[0] for text, _ in answers}), len(MESSAGES))

    def test_every_cut_of_a_record(self):
        maker = Maker(SEED)
        cases = [maker.valid(field) for field in MESSAGES]
        self.compare([(record[:end], requests) for record, requests in cases for end in range(len(record))])

    def test_each_enum_ends_where_the_schema_says(self):
        fields = [(message, field) for message in MESSAGES for field in message.message_type.fields
                  if field.type == field.TYPE_ENUM]
        maker, cases = Maker(SEED), []
        for message, field in fields:
            for value in list(range(40)) + [2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**64 - 1]:
                inner = maker.tag(field.number, VARINT) + maker.varint(value)
                cases.append((maker.tag(message.number, BYTES) + maker.varint(len(inner)) + inner,
                              message.name in REQUESTS))
        self.compare(cases)

    def test_limits(self):
        """Of length, of entries, and of memory: at the maximum, and one more."""
        def padded(message, field, size):
            for length in range(size, 0, -1):
                envelope = wire.Envelope()
                setattr(getattr(envelope, message), field, b"x" * length)
                if envelope.ByteSize() <= size:
                    return envelope.SerializeToString()

        def page(entries):
            return wire.Envelope(list_page=wire.ListPage(entries=[wire.ListEntry(lock=i) for i in range(entries)]))

        many = b"\x0a\x01x" * 5400
        cases = [(padded("remove", "name", REQUEST_BYTES_MAX), True),
                 (padded("remove", "name", REQUEST_BYTES_MAX + 1), True),
                 (padded("result", "detail", REPLY_BYTES_MAX), False),
                 (padded("result", "detail", REPLY_BYTES_MAX + 1), False),
                 (page(ENTRIES_MAX).SerializeToString(), False), (page(ENTRIES_MAX + 1).SerializeToString(), False),
                 (Maker.tag(105, BYTES) + Maker.varint(len(many)) + many, True)]
        self.assertEqual([len(record) for record, _ in cases[:4]],
                         [REQUEST_BYTES_MAX, REQUEST_BYTES_MAX + 1, REPLY_BYTES_MAX, REPLY_BYTES_MAX + 1])
        answers, _, allowed = self.compare(cases)
        self.assertEqual([text is not None for text, _ in answers], [True, False, True, False, True, False, False])
        self.assertEqual(dict(allowed), {"memory": 1})


if __name__ == "__main__":
    unittest.main()
