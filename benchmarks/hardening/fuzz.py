"""Runs a fuzzing property for many examples in a child with bounded memory, and counts."""

import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hardening.forks import fork
from hardening.kills import Tally

__all__ = ["MEMORY", "SECONDS", "fuzz", "timely"]

MEMORY = 3 * 2**30  # bytes beyond what the child has mapped when it starts
SECONDS = 10.0  # of processor time for one example


def timely(check: Callable[..., Any], *arguments: Any) -> Any:
    """The check's result; fails where it took too long on a processor, however busy the machine is."""
    began = time.process_time()
    found = check(*arguments)
    took = time.process_time() - began
    assert took < SECONDS, f"took {took:.1f} s"
    return found


def fuzz(folder: Path, examples: int, tally: Tally) -> None:
    """So many examples of each kind of input."""
    for kind in ("tables", "configs", "pictures", "sounds"):
        counts = folder / f"{kind}.txt"

        def work(kind: str = kind, counts: Path = counts) -> None:
            _bound_memory()
            counts.write_text(repr(_run(kind, examples)))

        ended = fork(work, folder / "fuzz.txt")
        if ended.code:
            tally.faults.append(f"fuzz {kind}: ended with {ended.code}: {ended.output[-3000:]}")
            continue
        tally.tried[f"{kind} {counts.read_text()}"] += examples


def _bound_memory() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))


def _run(kind: str, examples: int) -> dict[Any, int]:
    """Examples by what came of them."""
    from hypothesis import HealthCheck, given, settings

    from hardening import fuzz_media, fuzz_tables

    outcomes: Counter[Any] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        strategy, check = {
            "tables": (fuzz_tables.tables(), lambda made: fuzz_tables.check_tables(folder, made)),
            "configs": (fuzz_tables.configs(), lambda made: fuzz_tables.check_config(folder, made)),
            "pictures": (fuzz_media.pictures, fuzz_media.check_picture),
            "sounds": (fuzz_media.sounds, fuzz_media.check_sound),
        }[kind]

        @settings(
            max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(strategy)
        def holds(made: Any) -> None:
            outcomes[timely(check, made)] += 1

        holds()
    return dict(outcomes)
