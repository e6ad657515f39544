#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Has systemd judge the installed units: systemd-analyze verify on each, and the exposure that
systemd-analyze security gives the system's service, as it is and with CAP_KILL.

The program is looked for where it was built: the units name the place of the real installation."""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile


def analyze(*arguments, runtime_directory="/run"):
    done = subprocess.run(["systemd-analyze", "--no-pager", *arguments], text=True,
                          env=dict(os.environ, XDG_RUNTIME_DIR=str(runtime_directory)),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    return done.returncode, done.stdout


def copy_units(stage, scope, bindir, daemon, folder):
    """The units of one scope, for a daemon that exists."""
    for name in ("lockkeeper.service", "lockkeeper.socket"):
        text = (stage / "lib/systemd" / scope / name).read_text(encoding="utf-8")
        assert "@" not in re.sub(r"#.*|=~?@\S+.*", "", text), f"{name}: a place was not filled in"
        if name.endswith(".service"):
            assert f"ExecStart={bindir}/lockkeeperd\n" in text, f"{name}: not {bindir}/lockkeeperd"
            text = text.replace(f"ExecStart={bindir}/lockkeeperd", f"ExecStart={daemon}")
        (folder / name).write_text(text, encoding="utf-8")


def verify(scope, folder):
    units = [folder / "lockkeeper.service", folder / "lockkeeper.socket"]
    code, output = analyze("verify", "--man=no", *(["--user"] if scope == "user" else []), *units,
                           runtime_directory=folder)
    # It succeeds with unknown directives, and says so in a line. What it says of other units is
    # this machine's.
    ours = [line for line in output.splitlines() if "lockkeeper" in line]
    for line in ours:
        yield f"verify, {scope}: {line}"
    if code != 0 and not ours:
        yield f"verify, {scope}: exit code {code}\n{output}"


def exposure(unit, threshold):
    code, output = analyze("security", "--offline=true", f"--threshold={threshold * 10:.0f}", unit)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", output)
    if not found:
        return [f"security: exit code {code}\n{output}"]
    print(f"{unit.parent.name}: exposure {found[1]}, at most {threshold}")
    if code != 0 or float(found[1]) > threshold:
        costs = [line for line in output.splitlines() if re.search(r" 0\.[1-9]\s*$", line)]
        return ["exposure too high:", *costs]
    return []


def faults(arguments):
    with tempfile.TemporaryDirectory(prefix="lk-units-") as directory:
        root = pathlib.Path(directory)
        for scope in ("system", "user"):
            folder = root / scope
            folder.mkdir()
            copy_units(arguments.stage, scope, arguments.bindir, arguments.daemon, folder)
            yield from verify(scope, folder)
        service = root / "system/lockkeeper.service"
        yield from exposure(service, 1.0)

        # --offline does not read drop-ins: what one says counts as if it stood at the end.
        kill = root / "system-with-kill"
        kill.mkdir()
        example = arguments.stage / "lib/systemd/system/lockkeeper.service.d/kill.conf.example"
        text = service.read_text(encoding="utf-8").replace("CapabilityBoundingSet=\n", "")
        text = text.replace("AmbientCapabilities=\n", "")
        (kill / "lockkeeper.service").write_text(text + example.read_text(encoding="utf-8"),
                                                 encoding="utf-8")
        yield from exposure(kill / "lockkeeper.service", 0.8)
        assert (arguments.stage / "lib/sysusers.d/lockkeeper.conf").exists()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", type=pathlib.Path)
    parser.add_argument("bindir")
    parser.add_argument("daemon")
    found = list(faults(parser.parse_args()))
    for fault in found:
        print(f"check_units: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
