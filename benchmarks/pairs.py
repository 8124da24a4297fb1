"""Speed of Swing against recfarm and implicit, interleaved in one run, then alone as the log grows.

`python benchmarks/pairs.py` needs the extras `als` and `dev`, and Linux. recfarm computes the same scores
(its alpha is ours plus one), but adds them up in float32, which costs those of popular items some digits.
implicit's CosineRecommender only counts common users, a lower bound on the time of such a method. Every
peer runs next to us in every round, and the median of the rounds' ratios counts, so that a busy machine slows
both. Ours is timed from the log to the table, the peers from a ready sparse matrix. Compilation is apart: a
first call on a tiny log compiles the kernel, or loads it from numba's cache. Defaults are the full sizes
(recfarm takes minutes, at 1/rank past its limit);
`--clicks 60000 --users 2000 --items 800 --scale 1 --user2item` is a short run.
"""

import argparse
import contextlib
import gzip
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.data.interactions import Log
from qarm.pairs.swing.swing import swing
from qarm.pairs.user2item import user2item

Longs = npt.NDArray[np.int64]
EXACT: dict[str, Any] = {"max_items_per_user": None, "max_users_per_item": None}
LAWS = (("rank^-0.7", 0.7), ("1/rank", 1.0))
PER_USER, PER_ITEM = 30, 75
HEADER, ENTRY = 8 + 4 + 3 * 8, np.dtype([("item", "<i4"), ("score", "<f4")])


# ---- logs -------------------------------------------------------------------------------------


def clicks(users: int, items: int, per_user: int, exponent: float, *, seed: int = 0) -> tuple[Longs, Longs]:
    """User and item of every click: `per_user` distinct items each, popularity falling as rank^-exponent."""
    rng = np.random.default_rng(seed)
    edges = np.cumsum(np.arange(1, items + 1, dtype=np.float64) ** -exponent)
    keys = np.repeat(np.arange(users), per_user) * items
    fresh = np.ones(len(keys), dtype=np.bool_)
    while fresh.any():
        drawn = np.searchsorted(edges, rng.random(int(fresh.sum())) * edges[-1])
        keys[fresh] = keys[fresh] // items * items + np.minimum(drawn, items - 1)
        keys.sort()
        fresh = np.concatenate(([False], keys[1:] == keys[:-1]))
    return keys // items, keys % items


def log_of(users: Longs, items: Longs) -> Log:
    names = {"user_id": (users, 8), "item_id": (items, 7)}
    columns = {
        name: pl.Series(values).cast(pl.String).str.zfill(width) for name, (values, width) in names.items()
    }
    frame = pl.DataFrame(columns).with_columns(
        time=pl.int_range(pl.len(), dtype=pl.Int64), label=pl.lit(1, pl.Int8), row=pl.int_range(pl.len())
    )
    return Log(frame)


def compile_kernel() -> float:
    start = time.perf_counter()
    swing(log_of(np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)), **EXACT)
    return time.perf_counter() - start


# ---- peers ------------------------------------------------------------------------------------


@contextlib.contextmanager
def timed(seconds: dict[str, list[float]], name: str) -> Any:
    start = time.perf_counter()
    yield
    seconds.setdefault(name, []).append(time.perf_counter() - start)


def recfarm_model(matrix: Any) -> Any:
    import recfarm

    sides = (
        SimpleNamespace(
            sparse_indices=side.indices.tolist(),
            sparse_indptr=side.indptr.tolist(),
            sparse_data=[1.0] * side.nnz,
        )
        for side in (matrix, matrix.T.tocsr())
    )
    return recfarm.Swing(20, 2.0, 100_000_000, *matrix.shape, *sides, {}, 0.0)


@contextlib.contextmanager
def quiet() -> Any:
    """Output of recfarm discarded: it prints from Rust, not through sys.stdout."""
    sys.stdout.flush()
    before = os.dup(1)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(before, 1)
            os.close(before)


def recfarm_run(matrix: Any, threads: int, limit: float) -> tuple[float, dict[int, Any] | None]:
    """Seconds of recfarm and its best scores; the limit and None where it was stopped."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()

    def work() -> None:
        model, seconds = recfarm_model(matrix), {}
        with timed(seconds, "recfarm"), quiet():
            model.compute_swing(threads)
        theirs.send((seconds["recfarm"][0], recfarm_best(model, 20)))

    child = fork.Process(target=work)
    child.start()
    outcome = ours.recv() if ours.poll(limit) else (limit, None)
    child.kill()
    child.join()
    return outcome


def recfarm_best(model: Any, top_k: int) -> dict[int, npt.NDArray[np.float32]]:
    """Best scores of each item, from the file that recfarm writes (bincode, gzip)."""
    import recfarm

    with tempfile.TemporaryDirectory() as folder, quiet():
        recfarm.save_swing(model, folder, "swing")
        content = gzip.decompress((Path(folder) / "swing.gz").read_bytes())
    place, best = HEADER + 8, {}
    for _ in range(int.from_bytes(content[HEADER:place], "little")):
        item = int.from_bytes(content[place : place + 4], "little")
        size = int.from_bytes(content[place + 4 : place + 12], "little")
        scores = np.frombuffer(content, ENTRY, size, place + 12)["score"]
        best[item] = np.sort(scores)[::-1][:top_k]
        place += 12 + size * ENTRY.itemsize
    return best


def differences(ours: pl.DataFrame, best: dict[int, npt.NDArray[np.float32]]) -> str:
    """Relative differences of the top-20 scores; the largest are those of popular items."""
    scores = {int(item): part["score"].to_numpy() for (item,), part in ours.group_by("item_id")}
    if {item: len(part) for item, part in scores.items()} != {item: len(part) for item, part in best.items()}:
        return "the tables differ in shape"
    off = np.concatenate([np.abs(scores[item] - best[item]) / best[item] for item in best])
    middle, tail, most = np.quantile(off, [0.5, 0.99, 1.0])
    return f"top-20 scores differ by {middle:.1e} (median), {tail:.1e} (99 %), {most:.1e} (most)"


# ---- the tables -------------------------------------------------------------------------------


def race(law: str, exponent: float, args: argparse.Namespace) -> None:
    from implicit.nearest_neighbours import CosineRecommender
    from scipy.sparse import csr_matrix

    users, items = clicks(args.users, args.items, args.clicks // args.users, exponent)
    log = log_of(users, items)
    matrix = csr_matrix((np.ones(len(users)), (users, items)), shape=(args.users, args.items))
    warnings.filterwarnings("ignore", "Method expects CSR input")  # implicit's own detour
    seconds: dict[str, list[float]] = {}
    difference = None
    for number in range(args.rounds):
        with timed(seconds, "swing"):
            ours = swing(log, threads=args.threads, **EXACT)
        with timed(seconds, "implicit"):
            CosineRecommender(K=20, num_threads=args.threads).fit(matrix, show_progress=False)
        with timed(seconds, "swing, default caps"):
            swing(log, threads=args.threads)
        if number < args.recfarm_rounds:
            spent, best = recfarm_run(matrix, args.threads, args.recfarm_limit)
            seconds.setdefault("recfarm", []).append(spent)
            if not number:
                stopped = f"stopped after {spent:.0f} s, its scores are not compared"
                difference = stopped if best is None else differences(ours, best)
    print(f"{law}: {len(users):,} clicks, {args.users:,} users, {args.items:,} items")
    for name, times in seconds.items():
        ratios = [peer / own for peer, own in zip(times, seconds["swing"], strict=False)]
        print(f"  {name:22} {statistics.median(times):9.3f} s   {statistics.median(ratios):8.3f} x ours")
    if "recfarm" in seconds:
        faster = seconds["recfarm"][0] / seconds["swing"][0]
        least = "at least " if "stopped" in str(difference) else ""
        print(f"  recfarm / ours = {least}{faster:.0f} (need >= 100); {difference}")
    slower = statistics.median(a / b for a, b in zip(seconds["swing"], seconds["implicit"], strict=True))
    print(f"  ours / implicit = {slower:.2f} (need <= 5)\n")


def grown(millions: float, law: float, threads: int, source: str) -> dict[str, float]:
    """Seconds of a source at one size, and the peak memory of this process with the log in it."""
    count = int(millions * 1e6)
    log = log_of(*clicks(count // PER_USER, count // PER_ITEM, PER_USER, law))
    compile_kernel()
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    start = time.perf_counter()
    rows = swing(log, threads=threads).height if source == "swing" else user2item(log).height
    return {
        "seconds": time.perf_counter() - start,
        "rows": rows,
        "log_gb": before / 1e6,
        "peak_gb": peak() / 1e6,
    }


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0])


def resident() -> int:
    return _status("VmRSS")


def peak() -> int:
    return _status("VmHWM")


def series(source: str, law: str, exponent: float, sizes: Sequence[float], args: argparse.Namespace) -> None:
    print(
        f"{source}, {law}: {PER_USER} clicks a user, an item per {PER_ITEM}, defaults, {args.threads} threads"
    )
    for millions in sizes:
        command = [sys.executable, __file__, "--one", str(millions), "--law", str(exponent), "--of", source]
        command += ["--threads", str(args.threads)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        one = json.loads(done.stdout.splitlines()[-1])
        print(
            f"  {millions:5g}M clicks {one['seconds']:8.1f} s {one['seconds'] / millions:7.2f} s per million"
            f" {one['rows']:12,} rows; resident: log {one['log_gb']:.2f} GB, at most {one['peak_gb']:.2f} GB"
        )
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clicks", type=int, default=600_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recfarm-rounds", type=int, default=1, help="of the rounds; 0 leaves it out")
    parser.add_argument("--recfarm-limit", type=float, default=400, help="seconds, after which it is stopped")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", type=float, nargs="*", default=[1, 10, 50], help="millions of clicks")
    parser.add_argument("--user2item", type=float, nargs="*", default=[10], help="millions of clicks")
    parser.add_argument("--of", default="swing", help=argparse.SUPPRESS)
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--law", type=float, default=0.7, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(grown(args.one, args.law, args.threads, args.of)))
        return
    cpu = Path("/proc/cpuinfo").read_text().split("model name\t: ")[1].split("\n")[0]
    print(f"{cpu}, {args.threads} threads, Python {platform.python_version()}")
    print(f"compiling or loading the kernel: {compile_kernel():.1f} s, apart from what follows\n")
    for law, exponent in LAWS:
        race(law, exponent, args)
    series("swing", *LAWS[0], args.scale, args)
    series("user2item", *LAWS[0], args.user2item, args)


if __name__ == "__main__":
    main()
