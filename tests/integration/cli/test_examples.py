# SPDX-License-Identifier: MIT
"""The programs of examples/, without the demo around them: the total is that of wc(1), whoever is killed."""
import os
import random
import subprocess
import unittest

from harness import BUILD, BrokerTest

EXAMPLES = os.path.join(BUILD, "bin")


class Hello(BrokerTest):
    def test_hello_lock(self):
        code, out, err = self.program(os.path.join(EXAMPLES, "hello_lock"))
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"^locked, token \d+\n$")
        self.hold("hello")
        code, out, err = self.program(os.path.join(EXAMPLES, "hello_lock"))
        self.assertEqual((code, out), (1, ""))
        self.assertRegex(err, r"^cannot lock 'hello': held by sh\[\d+\] .*\(ETIMEDOUT\).*'lockkeeper why hello'\n$")

    def test_hello_segment(self):
        for run in (1, 2, 3):
            self.assertEqual(self.program(os.path.join(EXAMPLES, "hello_segment")), (0, "run %d\n" % run, ""))


class WordCount(BrokerTest):
    def setUp(self):
        self.seed = int(os.environ.get("LK_SEED", random.randrange(1 << 32)))
        print("seed", self.seed)
        self.random = random.Random(self.seed)

    def create(self, content, chunks):
        """Makes the segments for the text; returns what wc(1) says."""
        path = os.path.join(self.directory, "text")
        with open(path, "wb") as file:
            file.write(content)
        self.addCleanup(os.unlink, path)
        code, _, err = self.program(os.path.join(EXAMPLES, "wordcount_create"), path, str(chunks))
        self.assertEqual(code, 0, err)
        self.addCleanup(self.lk, "seg", "rm", "wordcount.text", "wordcount.table")
        self.assertEqual(self.json("seg", "stat", "--json", "wordcount.table")["flags"], ["kept"])
        wc = subprocess.run(["wc", "-w"], input=content, capture_output=True,
                            env=dict(os.environ, LC_ALL="C"))
        return int(wc.stdout)

    def worker(self, *options):
        environment = dict(self.environment, LC_ALL="C")
        return self.start(os.path.join(EXAMPLES, "wordcount_worker"), "--delay", "2", *options,
                          env=environment)

    def result(self):
        code, out, err = self.program(os.path.join(EXAMPLES, "wordcount_watch"))
        self.assertEqual(code, 0, err)
        return int(out.split()[0])

    def test_any_bytes_and_any_borders(self):
        for size, chunks in ((1, 1), (5, 20), (3000, 97), (70000, 333)):
            with self.subTest(size=size, seed=self.seed):
                # Few kinds of bytes: long words, unprintable ones, many borders.
                words = self.create(bytes(self.random.choices(b"ab \n\t\x0b\x00\x01\xc3\xa9", k=size)),
                                    chunks)
                for worker in [self.worker(), self.worker()]:
                    self.assertEqual(worker.finish()[0], 0)
                self.assertEqual(self.result(), words)
                self.doCleanups()

    def test_the_total_is_exact_though_workers_are_killed_anywhere(self):
        words = self.create(bytes(self.random.choices(b"abcdefgh  \n", k=200000)), 300)
        workers = [self.worker() for _ in range(3)]
        for i in range(24):
            try:
                workers[i % 3].wait(self.random.uniform(0, 0.08))
            except subprocess.TimeoutExpired:
                workers[i % 3].kill()
                workers[i % 3] = self.worker()
        for worker in workers:
            self.assertEqual(worker.finish()[0], 0)
        self.assertEqual(self.result(), words, "seed %d" % self.seed)

    def test_who_dies_with_the_totals_torn_is_repaired_by_the_next(self):
        words = self.create(bytes(self.random.choices(b"abcdefgh  \n", k=20000)), 60)
        for n in (1, 7, 2):
            victim = self.worker("--stop-in", str(n))
            os.waitpid(victim.pid, os.WUNTRACED)  # returns when it has stopped, not when it ends
            waiter = self.worker("--stop-in", "3")
            self.until(lambda: self.locks("wordcount.table")["wordcount.table"]["waiters"])
            victim.kill()
            os.waitpid(waiter.pid, os.WUNTRACED)
            self.assertRegex(waiter.line(), r"was told that wordcount_worke\[%d\] died inside, at work on "
                                            r"bytes 24 to 256 of the table" % victim.pid)
            waiter.kill()
        last = self.worker()
        code, out, _ = last.finish()
        self.assertEqual(code, 0)
        self.assertIn("died inside", out)
        self.assertIn("counted it again", out)
        self.assertEqual(self.result(), words, "seed %d" % self.seed)


if __name__ == "__main__":
    unittest.main()
