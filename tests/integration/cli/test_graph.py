#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""lockkeeper graph: what it draws, that Graphviz can read it, and its exit code for a ring."""
import os
import subprocess
import unittest

from harness import LOCKKEEPER, LONG_S, BrokerTest, exact

WAIT_UNASKED = os.path.join(os.environ["LK_HELPERS"], "wait_unasked")


def draw(text):
    """Through Graphviz, which complains about what it cannot read; the picture as text."""
    done = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, text=True, timeout=LONG_S)
    if done.returncode != 0 or done.stderr:
        raise AssertionError(done.stderr + text)
    return done.stdout


class Graph(BrokerTest):
    def graph(self, *arguments):
        code, out, err = self.lk("graph", *arguments)
        self.assertEqual((code, err), (0, ""))
        return out

    def edges(self):
        """(kind, name) of each edge."""
        return sorted((edge["kind"], edge["name"]) for edge in self.json("graph", "--json")["edges"])

    def end(self, process):
        process.stdin.close()
        process.wait(LONG_S)

    def test_nobody_waits(self):
        self.hold("alone")
        self.assertEqual([edge for edge in self.edges() if edge[1] == "alone"], [])
        draw(self.graph())

    def test_waiter_is_tied_to_the_owner_and_behind_it_to_its_neighbour(self):
        holder = self.hold("queue")
        waiters = [self.wait_for("queue", "--", "true") for _ in range(2)]
        self.until(lambda: self.edges() == [("queued", "queue"), ("waits", "queue"), ("waits", "queue")])
        document = self.json("graph", "--json")
        self.assertEqual(document["schema"], "lockkeeper.graph/1")
        self.assertFalse(document["ring"])
        pids = {node["session"]: node["pid"] for node in document["sessions"]}
        self.assertEqual(sorted(pids.values()), sorted(p.pid for p in [holder] + waiters))
        for edge in document["edges"]:
            if edge["kind"] == "waits":
                self.assertEqual(pids[edge["to"]], holder.pid)
                self.assertEqual(edge["mode"], "exclusive")
            self.assertFalse(edge["in_ring"])
        text = self.graph()
        self.assertEqual(text.count("style=dashed"), 1)
        self.assertEqual(text.count(" -> "), 3)
        self.assertNotIn("red", text)
        self.assertEqual(draw(text).count('class="edge"'), 3)
        self.end(holder)
        for waiter in waiters:
            waiter.wait(LONG_S)

    def test_owner_that_drains_is_tied_to_its_readers(self):
        readers = [self.hold("--shared", "pool") for _ in range(2)]
        writer = self.wait_for("pool", "--", "true")
        self.until(lambda: self.edges() == [("drains", "pool"), ("drains", "pool")])
        self.assertEqual(draw(self.graph()).count('class="edge"'), 2)
        for reader in readers:
            self.end(reader)
        writer.wait(LONG_S)

    def test_names_that_mean_something_to_a_format_are_quoted(self):
        name = 'a"b\\n<i>&c'
        holder = self.hold(name)
        waiter = self.wait_for(name, "--", "true")
        self.until(lambda: self.edges() == [("waits", name)])
        picture = draw(self.graph())
        self.assertIn("a&quot;b\\n&lt;i&gt;&amp;c", picture)
        mermaid = self.graph("--format", "mermaid")
        self.assertTrue(mermaid.startswith("flowchart LR\n"), mermaid)
        self.assertIn('-->|"a#34;b#92;n#60;i#62;#38;c, exclusive"|', mermaid)
        self.end(holder)
        waiter.wait(LONG_S)

    def test_ring_is_red_and_the_exit_code_is_3(self):
        members = [self.start(WAIT_UNASKED, *names) for names in (("left", "right"), ("right", "left"))]
        for member in members:
            self.assertEqual(member.line(), "held")
        for member in members:
            member.stdin.write("\n")
            member.stdin.flush()
        self.until(lambda: self.lk("graph")[0] == 3)
        code, text, err = self.lk("graph")
        self.assertEqual((code, err), (3, ""))
        self.assertEqual(text.count("color=red"), 4)
        self.assertIn('stroke="red"', draw(text))
        code, text, _ = self.lk("graph", "--format=mermaid")
        self.assertEqual((code, text.count("stroke:red")), (3, 2))
        code, text, _ = self.lk("graph", "--json")
        self.assertEqual(code, 3)
        self.assertIn('"ring": true', text)
        members[0].end()
        self.until(lambda: self.lk("graph")[0] == 0)

    def test_wrong_usage(self):
        self.assert_refused(["graph", "x"], 64, exact("lockkeeper: graph: too many arguments; try "
                                                      "'lockkeeper graph --help'"))
        self.assert_refused(["graph", "--format", "png"], 64, exact(
            "lockkeeper: graph: --format is dot, mermaid or json, not 'png'; try 'lockkeeper graph --help'"))

    def test_run_that_would_close_a_ring_is_refused_with_75(self):
        # run takes its locks in sorted order; a ring needs somebody who does not.
        member = self.start(WAIT_UNASKED, "zoo", "ant")
        self.assertEqual(member.line(), "held")
        runner = self.start(LOCKKEEPER, "run", "-l", "ant", "-l", "zoo", "--", "true")
        self.until(lambda: ("waits", "zoo") in self.edges())
        member.stdin.write("\n")
        member.stdin.flush()
        code, _, err = runner.finish()
        self.assertEqual(code, 75)
        self.assertRegex(err, "2 sessions in a ring: this session waits for 'zoo', held by pid %d" % member.pid)


if __name__ == "__main__":
    unittest.main()
