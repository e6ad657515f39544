# SPDX-License-Identifier: MIT
"""Compiles and runs the examples of the README as they stand there, and follows its links."""

import argparse
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile


def block_after(text, marker, language):
    """The code block that follows <!-- example: marker -->."""
    pattern = rf"<!-- example: {re.escape(marker)} -->\n```{language}\n(.*?)```"
    found = re.search(pattern, text, re.DOTALL)
    if not found:
        sys.exit(f"README.md: no {language} block after 'example: {marker}'")
    return found.group(1)


def check_links(source, text):
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target and not (source / target).exists():
            sys.exit(f"README.md links to {target}, which does not exist")


def run(command, environment, folder, expect):
    done = subprocess.run(command, env=environment, cwd=folder, text=True, timeout=30,
                          stdin=subprocess.DEVNULL, capture_output=True)
    print(f"$ {command if isinstance(command, str) else ' '.join(map(str, command))}")
    print(done.stdout + done.stderr)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode}, expected 0")
    for pattern in expect:
        if not re.search(pattern, done.stdout):
            sys.exit(f"the output has no {pattern!r}")


def check_c(source, text, arguments, environment, folder):
    shown = block_after(text, "examples/hello_segment.c", "c")
    kept = (source / "examples/hello_segment.c").read_text().split("\n", 1)[1]
    if shown != kept:
        sys.exit("the README's C differs from examples/hello_segment.c")
    code = pathlib.Path(folder, "hello_segment.c")
    code.write_text(shown)
    program = pathlib.Path(folder, "hello_segment")
    library = pathlib.Path(arguments.library)
    run([arguments.compiler, "-std=c11", "-Wall", "-Werror", f"-I{source / 'include'}", str(code),
         "-o", str(program), f"-L{library.parent}", f"-Wl,-rpath,{library.parent}", "-llockkeeper"],
        environment, folder, [])
    run([str(program)], environment, folder, [r"^run 1$"])
    run([str(program)], environment, folder, [r"^run 2$"])


def check_shell(text, arguments, environment, folder):
    script = pathlib.Path(folder, "backup.sh")
    script.write_text("#!/bin/sh\necho backed up\n")
    script.chmod(0o755)
    pathlib.Path(folder, "lockkeeper").symlink_to(arguments.cli)
    lines = block_after(text, "shell", "sh").strip().split("\n")
    if len(lines) != 3:
        sys.exit(f"'Shell in 3' has {len(lines)} lines")
    run(["sh", "-c", lines[0]], environment, folder, [r"^backed up$"])
    run(["sh", "-c", lines[1]], environment, folder, [])
    # The third has something to show only while somebody holds the lock.
    with subprocess.Popen([arguments.cli, "run", "-l", "backup", "--", "cat"], env=environment,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdin.write(b"inside\n")
        holder.stdin.flush()
        holder.stdout.readline()  # it holds the lock from here on
        run(["sh", "-c", lines[2]], environment, folder,
            [r"backup\s+excl\s+held", rf"held EXCLUSIVE by .*{holder.pid}"])
        holder.stdin.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("source", "compiler", "library", "cli", "daemon"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    source = pathlib.Path(arguments.source)
    text = (source / "README.md").read_text()
    check_links(source, text)
    with tempfile.TemporaryDirectory(prefix="lk-readme-") as folder:
        socket = f"{folder}/broker.sock"
        environment = dict(os.environ, LOCKKEEPER_SOCKET=socket, LOCKKEEPERD=arguments.daemon,
                           PATH=f"{folder}:{os.environ['PATH']}")
        try:
            check_c(source, text, arguments, environment, folder)
            check_shell(text, arguments, environment, folder)
        finally:
            lock = pathlib.Path(socket + ".lock")
            if lock.exists():  # the broker that the first program started; it names itself there
                os.kill(int(lock.read_text().split()[0]), signal.SIGTERM)


main()
