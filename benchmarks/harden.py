"""Hardening: kills, bad disks and clocks, edited files, random input; with counts (`make harden`)."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hardening import faults, fuzz, kills
from hardening.forks import load_everything
from hardening.tiny import make_world

KILLS = 200  # at every write, fsync and rename, then at random moments up to so many, and at least so many:
AT_RANDOM, WHOLE = 20, 4
REFUSED, EXAMPLES = 24, 2_000
SIZES = (64, 200, 400, 700)  # KiB of a disk that is too small
TARGETS = ("write", "fsync", "rename")


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run: its events, its seconds, and the hash of each file that it leaves."""

    events: list[str]
    seconds: float
    files: dict[str, str]


def spread(numbers: list[int], count: int) -> list[int]:
    """`count` of the numbers, evenly spread."""
    return [numbers[i * len(numbers) // count] for i in range(min(count, len(numbers)))]


def of_kinds(events: list[str], kinds: tuple[str, ...]) -> list[int]:
    return [number for number, event in enumerate(events) if event.partition(" ")[0] in kinds]


def run_kills(bench: kills.Bench, reference: Reference, tally: kills.Tally, *, points: int | None) -> None:
    events, files = reference.events, reference.files
    chosen = of_kinds(events, TARGETS)
    if points is not None:
        chosen = spread(chosen, points)
    kills.kill_at_events(bench, files, events, chosen, tally)
    if points is not None:
        kills.kill_at_random(bench, files, 2, reference.seconds, tally)
        return
    rest = max(KILLS - len(chosen), AT_RANDOM)
    kills.kill_at_random(bench, files, rest - WHOLE, reference.seconds, tally)
    kills.kill_processes(bench, files, WHOLE, 2 * reference.seconds, tally)


def run_faults(bench: kills.Bench, reference: Reference, tally: kills.Tally, *, points: int | None) -> None:
    events, files = reference.events, reference.files
    chosen = spread(of_kinds(events, (*TARGETS, "mkdir")), points or REFUSED)
    faults.refused_writes(bench, files, events, chosen, tally)
    if points is None:
        faults.full_disk(bench, files, SIZES, tally)
        faults.clock_jumps(bench, files, tally)
    faults.two_processes(bench, files, tally)
    faults.changed_by_hand(bench, tally, every=1 if points is None else 12)


def run_fuzz(bench: kills.Bench, reference: Reference, tally: kills.Tally, *, points: int | None) -> None:
    fuzz.fuzz(bench.root.parent, EXAMPLES if points is None else points, tally)


PARTS: dict[str, Callable[..., None]] = {"kills": run_kills, "faults": run_faults, "fuzz": run_fuzz}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, help="the short form: kill and fail at so many events only")
    parser.add_argument("--only", default=",".join(PARTS), help="these parts: %(default)s")
    chosen = parser.parse_args()
    began, faults = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="harden-") as folder:
        config = make_world(Path(folder) / "tiny")
        load_everything(config.parent / "bert")
        bench = kills.Bench(Path(folder), config)
        events, seconds = bench.events()
        reference = Reference(events, seconds, kills.snapshot(bench.root))
        kinds = kills.Counter(event.partition(" ")[0] for event in events)
        print(f"an uninterrupted run: {seconds:.1f} s, {dict(kinds)}", flush=True)
        for name in chosen.only.split(","):
            tally = kills.Tally()
            PARTS[name](bench, reference, tally, points=chosen.points)
            print(
                f"{name}: {tally.kills.total()} {dict(tally.kills)}, {len(tally.faults)} faults", flush=True
            )
            faults += tally.faults
    for fault in faults:
        print(f"FAULT {fault}")
    print(f"{len(faults)} faults, {time.perf_counter() - began:.0f} s")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
