# SPDX-License-Identifier: MIT
"""tables.py FIGURES.json [--into docs/benchmarks.md]

Makes Markdown of what `lockkeeper bench --json` has printed: the machine, the goals that were missed and
where a peer was better, then all tables. With --into it replaces what lies between the two marks of that
file; else it prints."""
import json
import sys

BEGIN, END = "<!-- figures: made by bench/tables.py -->", "<!-- end of figures -->"
# Not locks that anybody could use instead: what the hardware or the kernel takes anyway.
FLOORS = ("cas+cas", "two empty calls", "no lock", "futex", "seqpacket round trip", "seqpacket, one processor each", "bare ",
          "pidfd readable", "socket ended")


def text(value, unit):
    names = ("ns", "us", "ms", "s") if unit == "ns" else ("", "k", "M", "G")
    power = 0
    while abs(value) >= 999.5 and power < 3:
        value /= 1000
        power += 1
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return "%.*f%s%s" % (digits, value, " " if unit == "ns" else "", names[power])


def cell(series, unit):
    return "**%s** (%s to %s)" % tuple(text(series[key], unit) for key in ("median", "lowest", "highest"))


def goal_text(group, ratio, goal, met, of=""):
    than = "at most" if group["better"] == "less" else "at least"
    return "%s%s, goal %s %s: %s" % (ratio, of, than, goal, "met" if met else "**missed**")


def comparisons(group, series, goals_only=False):
    found = []
    for compared in series["compared"]:
        of = " of %s" % compared["base"]
        if "goal" in compared:
            found.append(goal_text(group, "%.2f" % compared["ratio"], "%g" % compared["goal"],
                                   compared["met"], of))
        elif not goals_only:
            found.append("%.2f%s" % (compared["ratio"], of))
    if "goal" in series:
        found.append(goal_text(group, text(series["median"], group["unit"]),
                               text(series["goal"], group["unit"]), series["met"]))
    return found


def missed(group, series):
    return [line for line in comparisons(group, series, True) if "missed" in line]


def print_group(group, out):
    curves = any("times" in series for series in group["series"])
    heads = ["", "median (range)"] + (["p99", "p99.9"] if curves else []) + ["beside"]
    out.append("| %s |" % " | ".join(heads))
    out.append("|%s" % ("---|" * len(heads)))
    for series in group["series"]:
        row = [series["name"], cell(series, group["unit"])]
        if curves:
            times = series.get("times")
            row += [text(times[key], "ns") if times else "" for key in ("p99_ns", "p99.9_ns")]
        out.append("| %s |" % " | ".join(row + ["; ".join(comparisons(group, series))]))


def x_of(group):
    (name,) = set(group) - {"case", "name", "unit", "better", "rounds", "series", "family"}
    return "%g %s" % (group[name], name)


def print_family(members, out):
    out.append("| | %s |" % " | ".join(x_of(group) for group in members))
    out.append("|%s" % ("---|" * (len(members) + 1)))
    for index, series in enumerate(members[0]["series"]):
        row = [cell(group["series"][index], group["unit"]) for group in members]
        out.append("| %s | %s |" % (series["name"], " | ".join(row)))
    lines = ["%s, %s: %s" % (series["name"], x_of(group), line)
             for group in members for series in group["series"]
             for line in comparisons(group, series, True)]
    if lines:
        out.append("")
        out.extend("- " + line for line in lines)


def is_peer(name):
    return not name.startswith("lockkeeper") and not name.startswith(FLOORS)


def better_peers(group):
    """Peers of the same kind of figure that beat the best of ours, best first."""
    less = group["better"] == "less"
    found = []
    for kind in ("", ", shared"):
        def of_kind(series):
            return series["name"].endswith(", shared") == bool(kind)
        ours = [series for series in group["series"] if series["name"].startswith("lockkeeper") and of_kind(series)]
        if not ours:
            continue
        best = (min if less else max)(ours, key=lambda series: series["median"])
        for series in group["series"]:
            if is_peer(series["name"]) and of_kind(series) and series["median"] > 0 and (
                    series["median"] < best["median"] if less else series["median"] > best["median"]):
                found.append((best["median"] / series["median"], best, series))
    found.sort(key=lambda one: one[0], reverse=less)
    return found


def print_losses(groups, out):
    out.append("### Goals that this run missed\n")
    lines = ["- %s: %s: %s" % (group["name"], series["name"], line)
             for group in groups for series in group["series"] for line in missed(group, series)]
    out.extend(lines or ["None."])
    out.append("\n### Where a peer was better\n")
    lines = []
    for group in groups:
        peers = ["%s (%s)" % (series["name"], text(series["median"], group["unit"]))
                 for _, _, series in better_peers(group)]
        if peers:
            _, best, _ = better_peers(group)[0]
            lines.append("- %s: %s has %s; better: %s" % (
                group["name"], best["name"], text(best["median"], group["unit"]), ", ".join(peers)))
    out.extend(lines or ["Nowhere."])


def render(report):
    out = []
    machine = report["machine"]
    out.append("%d processors (%s), Linux %s, load %.2f before the run, which took %.0f s; %g s for each "
               "measurement under contention.\n"
               % (machine["processors"], machine["processor"], machine["linux"], report["load_average"],
                  report["took_s"], report["seconds"]))
    out.append("Peers: %s.\n" % "; ".join("*%(name)s*, %(what)s" % peer for peer in report["peers"]))
    print_losses(report["groups"], out)
    seen = set()
    for group in report["groups"]:
        family = group.get("family")
        if family in seen:
            continue
        rounds = "%d round%s" % (group["rounds"], "" if group["rounds"] == 1 else "s")
        unit = "" if group["unit"] in ("ns", "1") else group["unit"] + ", "
        out.append("\n### %s (%s%s)\n" % (family or group["name"], unit, rounds))
        if family:
            seen.add(family)
            print_family([other for other in report["groups"] if other.get("family") == family], out)
        else:
            print_group(group, out)
    return "\n".join(out) + "\n"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        rendered = render(json.load(file))
    if len(sys.argv) < 4 or sys.argv[2] != "--into":
        sys.stdout.write(rendered)
        return
    with open(sys.argv[3], encoding="utf-8") as file:
        before, rest = file.read().split(BEGIN)
    _, after = rest.split(END)
    with open(sys.argv[3], "w", encoding="utf-8") as file:
        file.write("%s%s\n\n%s\n%s%s" % (before, BEGIN, rendered, END, after))


if __name__ == "__main__":
    main()
