# SPDX-License-Identifier: MIT
"""lockkeeper seg: create, ls, stat, dump, rm."""
import os
import unittest

from harness import BrokerTest, exact


class Seg(BrokerTest):
    def create(self, name, *options):
        self.assertEqual(self.lk("seg", "create", name, *options), (0, "", ""))
        self.addCleanup(self.lk, "seg", "rm", name)

    def stat(self, name):
        return self.json("seg", "stat", "--json", name)

    def path(self, name):
        path = os.path.join(self.directory, name)
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        return path

    def file(self, name, content):
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def test_a_segment_outlives_the_command_that_made_it(self):
        self.create("frames", "--size", "64K", "--max", "1M", "--locks", "40", "--keep")
        stat = self.stat("frames")
        self.assertEqual(stat["schema"], "lockkeeper.seg-stat/1")
        self.assertEqual((stat["name"], stat["kind"], stat["size_bytes"], stat["size_max_bytes"],
                          stat["locks"], stat["uid"], stat["flags"]),
                         ("frames", "memory", 65536, 1 << 20, 40, os.getuid(), ["kept"]))
        self.assertEqual((stat["locks_held"], stat["locks_damaged"], stat["waiters"]), (0, 0, 0))

    def test_stat_counts_locks_in_use(self):
        self.create("used")
        self.hold("used#1")
        self.hold("used#2")
        self.wait_for("used#2", "true")
        self.until(lambda: self.stat("used")["waiters"] == 1)
        self.assertEqual(self.stat("used")["locks_held"], 2)
        self.assertIn("Locks:    16, 2 held, 0 damaged, 1 waiters\n", self.lk("seg", "stat", "used")[1])

    def test_ls(self):
        self.create("ls-memory", "--size", "3M", "--max", "1G", "--mode", "0640")
        self.create("ls-locks")
        rows = [line.split() for line in self.lk("seg", "ls", "--raw")[1].splitlines()]
        self.assertEqual(rows[0], "NAME SIZE MAX KIND OWNER MODE USERS LOCKS FLAGS".split())
        by_name = {row[0]: row for row in rows}
        self.assertEqual(by_name["ls-memory"][1:4] + by_name["ls-memory"][5:],
                         ["3M", "1G", "memory", "0640", "0", "16", "kept"])
        self.assertEqual(by_name["ls-locks"][1:4], ["-", "-", "locks"])
        self.assertEqual([row[0] for row in rows[1:]], sorted(row[0] for row in rows[1:]))
        document = self.json("seg", "ls", "--json")
        self.assertEqual(document["schema"], "lockkeeper.seg-ls/1")
        self.assertEqual({s["name"]: s["size_bytes"] for s in document["segments"]}["ls-memory"], 3 << 20)

    def test_a_file_is_dumped_byte_for_byte(self):
        content = bytes(range(256)) * 4096 + b"end"
        self.create("bytes", "--file", self.file("bytes.bin", content))
        out = self.path("bytes.out")
        self.assertEqual(self.lk("seg", "dump", "bytes", "--out", out), (0, "", ""))
        with open(out, "rb") as file:
            self.assertEqual(file.read(), content)
        self.assertEqual(self.lk("seg", "dump", "bytes", "--offset", "1048576")[1], "end")
        self.assertEqual(self.lk("seg", "dump", "bytes", "--offset", "65", "--length", "2")[1], "AB")
        self.assertEqual(self.lk("seg", "dump", "bytes", "--offset", "1048579"), (0, "", ""))
        self.assertEqual(self.stat("bytes")["kind"], "file")

    def test_hex_is_what_hexdump_prints(self):
        self.create("hex", "--file", self.file("hex.bin", b"Hello\n" + bytes(100) + b"\x7f\xffend"))
        self.assertEqual(self.lk("seg", "dump", "hex", "--hex")[1], """\
00000000  48 65 6c 6c 6f 0a 00 00  00 00 00 00 00 00 00 00  |Hello...........|
00000010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
*
00000060  00 00 00 00 00 00 00 00  00 00 7f ff 65 6e 64     |............end|
0000006f
""")

    def test_a_file_is_made_and_extended(self):
        path = self.path("new.bin")
        self.create("new", "--file", path, "--size", "8K")
        self.assertEqual(os.path.getsize(path), 8192)
        self.assertEqual(self.stat("new")["size_bytes"], 8192)

    def test_a_sparse_segment_is_dumped_without_being_filled(self):
        self.create("sparse", "--size", "6G")
        before = self.memory_of_the_broker()
        self.assertEqual(self.lk("seg", "dump", "sparse", "--offset", "5G", "--length", "64M", "--hex")[1],
                         "140000000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n"
                         "*\n144000000\n")
        self.assertLess(self.memory_of_the_broker() - before, 1 << 20)

    def memory_of_the_broker(self):
        """Bytes behind all descriptors of the broker: of every segment, that is."""
        directory = "/proc/%d/fd" % self.broker.pid
        return sum(os.stat(os.path.join(directory, fd)).st_blocks * 512 for fd in os.listdir(directory))

    def test_a_truncated_file_is_a_short_dump_that_says_so(self):
        path = self.file("cut.bin", b"x" * 20000)
        self.create("cut", "--file", path)
        os.truncate(path, 5000)
        code, out, err = self.lk("seg", "dump", "cut")
        self.assertEqual((code, out), (65, "x" * 5000))
        self.assertEqual(err, "lockkeeper: seg dump: stopped at byte 5000: the file behind the segment was "
                              "truncated\n")
        target = self.path("cut.out")
        self.assertEqual(self.lk("seg", "dump", "cut", "--out", target)[0], 65)
        self.assertFalse(os.path.exists(target))

    def test_rm(self):
        self.create("gone-a")
        self.create("gone-b", "--size", "4K")
        self.assertEqual(self.lk("seg", "rm", "gone-a", "gone-b"), (0, "", ""))
        self.assertEqual(self.lk("seg", "stat", "gone-a")[0], 1)
        code, out, err = self.lk("seg", "rm", "gone-a")
        self.assertEqual((code, out), (1, ""))
        self.assertRegex(err, r"^lockkeeper: .*gone-a.*\(ENOENT\).*\n$")

    def test_rm_goes_on_behind_a_failure(self):
        self.create("after")
        self.assertEqual(self.lk("seg", "rm", "missing", "after")[0], 1)
        self.assertEqual(self.lk("seg", "stat", "after")[0], 1)


class Refusals(BrokerTest):
    def refused(self, arguments, code, text):
        self.assert_refused(arguments, code, exact(text))

    def usage(self, command, arguments, text):
        self.refused(["seg", command, *arguments], 64,
                     "lockkeeper: seg %s: %s; try 'lockkeeper seg %s --help'" % (command, text, command))

    def test_sizes(self):
        for size, text in [
            ("0", "no size for data; leave --size out for a segment of locks alone"),
            ("9223372036854775808", "too large; a segment has at most 64T"),
            ("99999999999999999999", "too large; a segment has at most 64T"),
            ("16777216T", "too large; a segment has at most 64T"), ("65T", "too large; a segment has at most 64T"),
            ("-1", "not a size; give bytes, or a number with K, M, G or T"),
            ("", "not a size; give bytes, or a number with K, M, G or T"),
            ("12Q", "not a size; give bytes, or a number with K, M, G or T"),
            ("1.5G", "not a size; give bytes, or a number with K, M, G or T"),
        ]:
            with self.subTest(size):
                self.usage("create", ["bad", "--size", size], "--size %s: %s" % (size, text))
        self.usage("create", ["bad", "--size", "2M", "--max", "1M"], "--max is less than --size")
        self.usage("create", ["bad", "--max", "1M"], "--max without --size")
        self.assertEqual(self.lk("seg", "stat", "bad")[0], 1)

    def test_other_options(self):
        for locks in ("0", "1048577", "x", "-1"):
            self.usage("create", ["bad", "--locks", locks],
                       "--locks %s: give a number from 1 to 1048576" % locks)
        for mode in ("9", "0", "1777", "rw"):
            self.usage("create", ["bad", "--mode", mode],
                       "--mode %s: give permission bits, octal, such as 0660" % mode)
        self.usage("create", [], "exactly one NAME, please")
        self.usage("stat", ["a", "b"], "exactly one NAME, please")
        self.usage("rm", [], "no NAME given")
        self.usage("ls", ["a"], "too many arguments; 'lockkeeper seg stat NAME' shows one")
        self.refused(["--json", "seg", "create", "a"], 64, "lockkeeper: seg create: --json: this command "
                     "prints nothing to read; try 'lockkeeper seg create --help'")
        self.refused(["seg", "--json", "rm", "a"], 64, "lockkeeper: seg rm: --json: this command prints "
                     "nothing to read; try 'lockkeeper seg rm --help'")
        self.refused(["--json", "seg", "dump", "a"], 64, "lockkeeper: seg dump: --json: bytes are no JSON; "
                     "there is --hex; try 'lockkeeper seg dump --help'")

    def test_names(self):
        for name in ("", "a/b", "a#b", "x" * 256, "new\nline", b"\xff\xfe"):
            with self.subTest(name):
                code, out, err = self.lk("seg", "create", name)
                self.assertEqual((code, out), (64, ""), err)
                self.assertRegex(err, r"^lockkeeper: [^\n]*\(EINVAL\)[^\n]*\n$")
        code, _, err = self.lk("seg", "create", "~no-such-user/x")
        self.assertEqual(code, 1, err)

    def test_the_longest_name(self):
        self.assertEqual(self.lk("seg", "create", "x" * 255)[0], 0)
        self.assertEqual(self.lk("seg", "rm", "x" * 255)[0], 0)

    def test_it_exists(self):
        self.assertEqual(self.lk("seg", "create", "twice")[0], 0)
        code, out, err = self.lk("seg", "create", "twice")
        self.assertEqual((code, out), (1, ""))
        self.assertRegex(err, r"^lockkeeper: .*twice.*\(EEXIST\).*\n$")

    def test_files(self):
        missing = os.path.join(self.directory, "none", "file")
        self.refused(["seg", "create", "bad", "--file", missing], 71,
                     "lockkeeper: seg create: cannot open '%s' for reading and writing: No such file or "
                     "directory; give --size to make it" % missing)
        self.refused(["seg", "create", "bad", "--file", missing, "--size", "1M"], 71,
                     "lockkeeper: seg create: cannot open '%s' for reading and writing: No such file or "
                     "directory; see: ls -ld %s" % (missing, missing))
        self.refused(["seg", "create", "bad", "--file", "/tmp"], 65,
                     "lockkeeper: seg create: cannot open '/tmp' for reading and writing: Is a directory; "
                     "see: ls -ld /tmp")
        fifo = os.path.join(self.directory, "fifo")
        os.mkfifo(fifo)
        self.addCleanup(os.unlink, fifo)
        code, _, err = self.lk("seg", "create", "bad", "--file", fifo)
        self.assertEqual(code, 65, err)
        self.assertEqual(self.lk("seg", "stat", "bad")[0], 1)

    @unittest.skipIf(os.getuid() != 0, "needs to become another user")
    def test_a_file_that_may_not_be_written(self):
        path = os.path.join(self.directory, "secret")
        with open(path, "w") as file:
            file.write("x")
        self.addCleanup(os.unlink, path)
        os.chmod(path, 0o600)
        os.chmod(self.directory, 0o755)
        code, out, err = self.program("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                      *self.command("seg", "create", "bad", "--file", path))
        self.assertEqual((code, out), (77, ""), err)
        self.assertIn("Permission denied", err)

    @unittest.skipIf(os.getuid() != 0, "needs to become another user")
    def test_somebody_elses_segment(self):
        self.assertEqual(self.lk("seg", "create", "mine", "--size", "4K")[0], 0)
        os.chmod(self.directory, 0o755)
        os.chmod(self.socket, 0o666)
        for arguments in (["run", "~root/mine", "true"], ["seg", "dump", "~root/mine"],
                          ["seg", "rm", "~root/mine"]):
            with self.subTest(arguments):
                code, out, err = self.program("setpriv", "--reuid=65534", "--regid=65534",
                                              "--clear-groups", *self.command(*arguments))
                self.assertEqual((code, out), (77, ""), err)
                self.assertRegex(err, r"^lockkeeper: .*mine.*\(EACCES\).*\n$")

    def command(self, *arguments):
        from harness import LOCKKEEPER
        return [LOCKKEEPER, *arguments]

    def test_dump(self):
        self.assertEqual(self.lk("seg", "create", "data", "--size", "4K")[0], 0)
        self.assertEqual(self.lk("seg", "create", "locks")[0], 0)
        self.usage("dump", ["data", "--offset", "4097"], "--offset 4097: beyond the end; the data has 4096 bytes")
        self.usage("dump", ["data", "--offset", "4095", "--length", "2"],
                   "--length 2: beyond the end; behind that offset are 1 bytes")
        self.usage("dump", ["data", "--offset", "x"], "--offset x: give bytes, or a number with K, M, G or T")
        self.refused(["seg", "dump", "locks"], 65,
                     "lockkeeper: seg dump: 'locks' has no data, only locks; see: lockkeeper ls locks")
        code, out, err = self.lk("seg", "dump", "none")
        self.assertEqual((code, out), (1, ""))
        self.assertRegex(err, r"\(ENOENT\)")
        self.refused(["seg", "dump", "data", "--out", self.directory + "/no/x"], 71,
                     "lockkeeper: seg dump: cannot make '%s/no/x': No such file or directory; choose another "
                     "--out" % self.directory)
        self.refused(["seg", "dump", "data", "--out", self.log.name], 1,
                     "lockkeeper: seg dump: cannot make '%s': File exists; choose another --out" % self.log.name)


if __name__ == "__main__":
    unittest.main()
