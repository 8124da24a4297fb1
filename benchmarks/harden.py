"""Hardening: kills, bad disks and clocks, edited and planted files, random input; with counts."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hardening import faults, flips, fuzz, hostile_http, kills, planted
from hardening.commands import COMMANDS, Bench
from hardening.forks import load_everything
from hardening.kills import Tally
from hardening.syscalls import missing
from hardening.tiny import make_world
from hostile import attacked

KILLS = {"run": 80, "compare": 50}  # at system calls
KILLS_OF_OTHERS = 60  # or as many as there are
REQUESTS = 200
AT_RANDOM, WHOLE = 20, 4
REFUSED, EXAMPLES, FLIPS, PLANTED = 24, 2_000, 105, 20
SIZES = (64, 200, 400, 700)  # KiB of a disk that is too small
RUN = COMMANDS[0]


def run_kills(bench: Bench, tally: Tally, *, points: int | None, only: Collection[str] | None = None) -> None:
    for command in COMMANDS:
        if only is not None and command.name not in only:
            continue
        most = KILLS.get(command.name, KILLS_OF_OTHERS)
        kills.kill_at_calls(bench, command, most if points is None else points, tally)
    if points is None and only is None:
        kills.kill_at_random(bench, RUN, AT_RANDOM, tally)
        kills.kill_processes(bench, RUN, WHOLE, tally)


def run_faults(bench: Bench, tally: Tally, *, points: int | None) -> None:
    faults.refused_writes(bench, RUN, points or REFUSED, tally)
    if points is None:
        faults.full_disk(bench, RUN, SIZES, tally)
        faults.clock_jumps(bench, RUN, tally)
    faults.two_processes(bench, RUN, tally)
    faults.changed_by_hand(bench, RUN, tally, every=1 if points is None else 12)


def run_flips(bench: Bench, tally: Tally, *, points: int | None) -> None:
    flips.flip_bits(bench, FLIPS if points is None else points, tally)


def run_planted(bench: Bench, tally: Tally, *, points: int | None) -> None:
    for command in COMMANDS:
        planted.plant_at_names(bench, command, PLANTED if points is None else points, tally)


def run_fuzz(bench: Bench, tally: Tally, *, points: int | None) -> None:
    fuzz.fuzz(bench.root.parent, EXAMPLES if points is None else points, tally)


def run_http(bench: Bench, tally: Tally, *, points: int | None) -> None:
    """Hostile requests to `qarm serve` with the bundle that `export` left."""
    bench.reference(next(command for command in COMMANDS if command.name == "export"))
    bundle = bench.left / "export" / "out" / "bundle"
    report, ended = attacked(bundle, REQUESTS if points is None else points)
    print(report)
    tally.tried["requests"] += report.statuses.total()
    tally.faults += report.faults
    if max(report.health) > hostile_http.LONGEST:
        tally.faults.append(f"/healthz took {max(report.health):.3f} s")
    if max(report.memory) > hostile_http.MEMORY_MB or ended:
        tally.faults.append(f"{max(report.memory):.0f} MB of memory, exit code {ended}")


PARTS: dict[str, Callable[..., None]] = {
    "kills": run_kills,
    "faults": run_faults,
    "flips": run_flips,
    "planted": run_planted,
    "fuzz": run_fuzz,
    "http": run_http,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, help="the short form: kill and fail at so many events only")
    parser.add_argument("--only", default=",".join(PARTS), help="these parts: %(default)s")
    parser.add_argument("--commands", help="kill these commands only, by name: run,append")
    chosen = parser.parse_args()
    if reason := missing():
        sys.exit(f"no system calls can be traced here: {reason}")
    began, tallies = time.perf_counter(), {}
    with tempfile.TemporaryDirectory(prefix="harden-") as folder:
        config = make_world(Path(folder) / "tiny")
        load_everything(config.parent / "bert")
        bench = Bench(Path(folder), config)
        for name in chosen.only.split(","):
            tally = Tally()
            given = {"only": chosen.commands.split(",")} if name == "kills" and chosen.commands else {}
            PARTS[name](bench, tally, points=chosen.points, **given)
            tallies[name] = tally
            print(f"{name}: {tally.tried.total()} tried, {len(tally.faults)} faults", flush=True)
    print_table(tallies)
    faulty = any(tally.faults for tally in tallies.values())
    print(f"{time.perf_counter() - began:.0f} s")
    sys.exit(faulty)


def print_table(tallies: Mapping[str, Tally]) -> None:
    """A row for each part, as in docs/hardening.md, and the faults."""
    print("| part | tried | faults |\n|---|---|---|")
    for name, tally in tallies.items():
        counts = ", ".join(f"{count} {kind}" for kind, count in tally.tried.items())
        print(f"| {name} | {tally.tried.total()}: {counts} | {len(tally.faults)} |")
    for tally in tallies.values():
        for fault in tally.faults:
            print(f"FAULT {fault}")


if __name__ == "__main__":
    main()
