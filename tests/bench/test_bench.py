# SPDX-License-Identifier: MIT
"""`lockkeeper bench` as people meet it: every case for a moment, figures that are figures, plots that are
XML, errors that say what there is, and nothing left behind."""
import glob
import json
import math
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

LOCKKEEPER = os.path.join(os.environ["LK_BUILD"], "bin", "lockkeeper")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MOMENT = ("--quick", "--rounds", "1", "--seconds", "0.005")
# None is fine, of these: how much memory, how often awake.
MAY_BE_ZERO = "memory|wake-ups"
PATIENCE_S = 30


def bench(*arguments, program=LOCKKEEPER, **more):
    done = subprocess.run([program, "bench", *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=150, **more)
    return done.returncode, done.stdout, done.stderr


def listed():
    """The names of the cases, and peer -> whether it is here."""
    code, out, _ = bench("--list")
    assert code == 0
    cases, peers = out.split("\nPEERS\n")
    return (re.findall(r"^  (\S+)", cases, re.M),
            {line.split()[0]: "[not here" not in line for line in peers.splitlines()})


class Figures(unittest.TestCase):
    def check(self, report):
        self.assertEqual(report["schema"], "lockkeeper.bench/1")
        self.assertGreaterEqual(report["machine"]["processors"], 1)
        self.assertGreaterEqual(report["load_average"], 0)
        self.assertGreater(report["took_s"], 0)
        for group in report["groups"]:
            self.assertTrue(group["series"], group["name"])
            for series in group["series"]:
                with self.subTest(group=group["name"], series=series["name"]):
                    low, median, high = (series[key] for key in ("lowest", "median", "highest"))
                    self.assertTrue(math.isfinite(low) and math.isfinite(high))
                    self.assertTrue(low <= median <= high)
                    least = -1 if re.search(MAY_BE_ZERO, group["name"]) else 0
                    if "share of a fair one" not in group["name"]:
                        self.assertGreater(median, least)
                    self.assertEqual(len(series["samples"]), group["rounds"])
                    for compared in series["compared"]:
                        self.assertIn(compared["base"], [other["name"] for other in group["series"]])
                        self.assertTrue(math.isfinite(compared["ratio"]))

    def test_every_case_gives_figures_and_plots(self):
        with tempfile.TemporaryDirectory() as directory:
            plots = os.path.join(directory, "plots")
            code, out, err = bench(*MOMENT, "--json", "--svg", plots)
            self.assertEqual(code, 0, err)
            self.assertRegex(err, r"^\d+ processors? .*, load [\d.]+ before\n$")
            report = json.loads(out)
            self.check(report)
            self.assertEqual({group["case"] for group in report["groups"]}, set(listed()[0]))
            self.check_tables(report, out, directory)
            files = os.listdir(plots)
            self.assertGreater(len(files), 10)
            for name in files:
                with open(os.path.join(plots, name), encoding="utf-8") as file:
                    text = file.read()
                root = xml.etree.ElementTree.fromstring(text)
                self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg", name)
                self.assertGreater(len(root.findall("{*}path")), 1, name)
                self.assertIsNone(re.search(r"[\"ML ]-?(nan|inf)", text), name)

    def check_tables(self, report, text, directory):
        """What docs/benchmarks.md is made with: each group and each series is in it, twice the same."""
        figures, document = os.path.join(directory, "figures.json"), os.path.join(directory, "doc.md")
        with open(figures, "w", encoding="utf-8") as file:
            file.write(text)
        shutil.copy(os.path.join(ROOT, "docs", "benchmarks.md"), document)
        made = []
        for _ in range(2):
            subprocess.run([sys.executable, "-B", os.path.join(ROOT, "bench", "tables.py"), figures,
                            "--into", document], check=True, timeout=60)
            with open(document, encoding="utf-8") as file:
                made.append(file.read())
        self.assertEqual(made[0], made[1])
        for group in report["groups"]:
            self.assertIn("\n### %s (" % group.get("family", group["name"]), made[0])
            for series in group["series"]:
                self.assertIn("\n| %s | **" % series["name"], made[0])

    def test_the_plots_of_the_document_are_there(self):
        with open(os.path.join(ROOT, "docs", "benchmarks.md"), encoding="utf-8") as file:
            plots = re.findall(r"\]\((benchmarks/[^)]*)\)", file.read())
        self.assertGreater(len(plots), 5)
        for plot in plots:
            xml.etree.ElementTree.parse(os.path.join(ROOT, "docs", plot))

    def test_all_peers_that_are_here_take_part(self):
        code, out, err = bench(*MOMENT, "--json", "--vs", "all", "--case",
                               "pairs,contended,readers,brokered")
        self.assertEqual(code, 0, err)
        report = json.loads(out)
        self.check(report)
        here = {name for name, is_here in listed()[1].items() if is_here}
        self.assertEqual({peer["name"] for peer in report["peers"]}, here)
        measured = {series["name"].split(",")[0] for group in report["groups"]
                    for series in group["series"]}
        self.assertEqual(here - measured, set())
        for name in set(listed()[1]) - here:
            self.assertIn("without %s: " % name, err)

    def test_a_list_adds_only_those(self):
        code, out, _ = bench(*MOMENT, "--json", "--vs", "flock,pipe", "--case", "pairs")
        self.assertEqual(code, 0)
        names = [peer["name"] for peer in json.loads(out)["peers"]]
        self.assertTrue({"lockkeeper", "robust", "flock", "pipe"} <= set(names))
        self.assertFalse({"ofd", "redis", "postgresql", "mq"} & set(names))

    def test_the_table_begins_with_the_machine(self):
        code, out, err = bench(*MOMENT, "--case", "pairs,floors")
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out.splitlines()[0], r"^\d+ processors? \(.*\), Linux \S+, load [\d.]+ before$")
        self.assertRegex(out, r"\n  lockkeeper  .* of 'robust', goal at most 0.75: (met|MISSED)")

    def test_json_may_be_said_before_the_command(self):
        done = subprocess.run([LOCKKEEPER, "--json", "bench", *MOMENT, "--case", "floors"],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(json.loads(done.stdout)["schema"], "lockkeeper.bench/1")


class Refusals(unittest.TestCase):
    def refused(self, expected, *arguments, **more):
        code, out, err = bench(*arguments, **more)
        self.assertEqual((code, out), (expected, ""))
        self.assertRegex(err, r"^lockkeeper: bench: ")
        return err

    def test_what_is_unknown_is_answered_with_what_there_is(self):
        cases, peers = listed()
        error = self.refused(64, "--case", "pairs,nonsense")
        self.assertIn("'nonsense'", error)
        for name in cases:
            self.assertIn("\n  %s " % name, error)
        error = self.refused(64, "--vs", "flock,nonsense")
        self.assertIn("'nonsense'", error)
        for name in peers:
            self.assertIn("\n  %s " % name, error)

    def test_what_is_not_here_is_said(self):
        # A broken PATH: no server is found.
        error = self.refused(69, "--vs", "redis", env=dict(os.environ, PATH="/nonexistent"))
        self.assertIn("redis-server is not on PATH", error)

    def test_numbers(self):
        for arguments in (("--rounds", "0"), ("--rounds", "1.5"), ("--rounds", "x"), ("--rounds", ""),
                          ("--seconds", "0"), ("--seconds", "nan"), ("--seconds", "1x"), ("more",)):
            with self.subTest(arguments=arguments):
                self.assertIn("'%s'" % arguments[-1], self.refused(64, *arguments))

    def test_a_socket_makes_no_sense(self):
        done = subprocess.run([LOCKKEEPER, "--socket", "/x", "bench"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 64)
        self.assertIn("a broker of its own", done.stderr)

    def test_plots_that_cannot_be_written(self):
        """Refused before anything is measured, which takes minutes."""
        for directory, why in (("/nonexistent/plots", "No such file"), (__file__, "Not a directory")):
            with self.subTest(directory=directory):
                code, out, err = bench(*MOMENT, "--case", "contended", "--svg", directory)
                self.assertEqual(code, 71)
                self.assertIn("cannot write plots to '%s': %s" % (directory, why), err)
                self.assertEqual(out, "")

    def test_a_program_that_is_not_installed(self):
        with tempfile.TemporaryDirectory() as directory:
            alone = shutil.copy(LOCKKEEPER, directory)
            error = self.refused(69, program=alone)
            self.assertIn("cannot find lockkeeper-bench", error)
            self.assertIn(directory, error)
            code, out, _ = bench("--help", program=alone)
            self.assertEqual(code, 0)
            self.assertIn("not installed", out)

    def test_help(self):
        code, out, err = bench("--help")
        self.assertEqual((code, err), (0, ""))
        for option in ("--vs", "--case", "--rounds", "--seconds", "--quick", "--json", "--svg", "--check",
                       "--list"):
            self.assertIn(option, out)


class Manners(unittest.TestCase):
    def test_a_bar_on_a_terminal_only(self):
        _, _, err = bench(*MOMENT, "--case", "pairs,floors")
        self.assertEqual(err, "")
        ours, theirs = pty.openpty()
        child = subprocess.Popen([LOCKKEEPER, "bench", *MOMENT, "--case", "pairs,floors"],
                                 stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:
            pass  # its other end is closed
        os.close(ours)
        self.assertEqual(child.wait(timeout=60), 0)
        self.assertRegex(seen, rb"\r\x1b\[K\[#*\.*\] +\d+ %  pairs: uncontended pair")
        self.assertTrue(seen.endswith(b"\r\x1b[K"), "the bar goes when it is over")

    def test_who_is_killed_leaves_nothing(self):
        before = set(glob.glob("/tmp/lk-bench-*"))
        child = subprocess.Popen([LOCKKEEPER, "bench", "--case", "contended", "--seconds", "60",
                                  "--vs", "sysv-sem"], stdout=subprocess.PIPE)
        socket = None
        deadline = time.monotonic() + PATIENCE_S
        while not socket and time.monotonic() < deadline:
            for path in set(glob.glob("/tmp/lk-bench-*/broker.sock")):
                if os.path.dirname(path) not in before and self.belongs_to(path, child.pid):
                    socket = path
            time.sleep(0.01)  # nobody tells us of a file that another program makes, or removes below
        self.assertTrue(socket, "a broker was started")
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while os.path.exists(os.path.dirname(socket)) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(os.path.exists(os.path.dirname(socket)))

    @staticmethod
    def belongs_to(path, pid):
        """Other checkouts may be tested at the same time."""
        try:
            with open("/proc/%d/task/%d/children" % (pid, pid), encoding="ascii") as file:
                children = file.read().split()
            for child in children:
                with open("/proc/%s/cmdline" % child, "rb") as file:
                    if path.encode() in file.read():
                        return True
        except OSError:
            pass
        return False


if __name__ == "__main__":
    unittest.main(verbosity=2)
