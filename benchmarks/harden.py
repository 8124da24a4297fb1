"""Hardening: kills, bad disks and clocks, edited and planted files, random input; with counts."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hardening import faults, flips, fuzz, kills, planted
from hardening.commands import COMMANDS, Bench
from hardening.forks import load_everything
from hardening.kills import Tally
from hardening.syscalls import missing
from hardening.tiny import make_world

KILLS = 50  # of each command at system calls
AT_RANDOM, WHOLE = 20, 4
REFUSED, EXAMPLES, FLIPS, PLANTED = 24, 2_000, 105, 20
SIZES = (64, 200, 400, 700)  # KiB of a disk that is too small
RUN = COMMANDS[0]


def run_kills(bench: Bench, tally: Tally, *, points: int | None) -> None:
    for command in COMMANDS:
        kills.kill_at_calls(bench, command, KILLS if points is None else points, tally)
    if points is None:
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


PARTS: dict[str, Callable[..., None]] = {
    "kills": run_kills,
    "faults": run_faults,
    "flips": run_flips,
    "planted": run_planted,
    "fuzz": run_fuzz,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, help="the short form: kill and fail at so many events only")
    parser.add_argument("--only", default=",".join(PARTS), help="these parts: %(default)s")
    chosen = parser.parse_args()
    if reason := missing():
        sys.exit(f"no system calls can be traced here: {reason}")
    began, found = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="harden-") as folder:
        config = make_world(Path(folder) / "tiny")
        load_everything(config.parent / "bert")
        bench = Bench(Path(folder), config)
        for name in chosen.only.split(","):
            tally = Tally()
            PARTS[name](bench, tally, points=chosen.points)
            counts = dict(tally.tried)
            print(f"{name}: {tally.tried.total()} {counts}, {len(tally.faults)} faults", flush=True)
            found += tally.faults
    for fault in found:
        print(f"FAULT {fault}")
    print(f"{len(found)} faults, {time.perf_counter() - began:.0f} s")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
