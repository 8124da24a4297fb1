"""Memory and time of codes at scale: bounded fits, quality and collision policies of millions of items.

`python benchmarks/codes_scale.py` fits a memory map of 4 GB in a separate process and watches its
anonymous memory (`RssAnon`; mapped pages do not count), then times quality report, codes to items,
suffixes, reassigning, FSQ and OPQ on 5,000,000 x 64 vectors. Linux; needs 4 GB of disk in the temporary
folder and 8 GB of memory. `--map-gb 0.2 --items 200000` is a short run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.quantizer.collisions import items_by_code, reassign, suffixes
from qarm.quantizer.evaluation.quality import code_quality
from qarm.quantizer.fsq import ResidualKMeansFSQ
from qarm.quantizer.opq import ResidualKMeansOPQ
from qarm.quantizer.residual_kmeans import ResidualKMeans

DIM, CHUNK = 256, 1 << 16
REPORT_S, POLICY_S, ANON_GB = 60, 300, 1.0


def chunks(rows: int, dim: int, *, groups: int = 4000) -> Iterator[np.ndarray]:
    """Unit vectors in groups, float32 [up to 65536, dim] at a time."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((groups, dim), dtype=np.float32)
    for start in range(0, rows, CHUNK):
        part = rng.standard_normal((min(CHUNK, rows - start), dim), dtype=np.float32)
        part = part * np.float32(0.7) + centres[rng.integers(groups, size=len(part))]
        yield part / np.linalg.norm(part, axis=1, keepdims=True)


def anonymous() -> float:
    """Anonymous memory of this process in GB."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) / 1e6


@contextmanager
def watched() -> Iterator[list[float]]:
    """Peak of anonymous memory while the block runs, sampled every 20 ms, as the list's last entry."""
    peak, stop = [anonymous()], threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            peak.append(max(peak[-1], anonymous()))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def fit_map(path: str) -> None:
    """Fit in a separate process, which prints its time and memory as JSON."""
    before, start = anonymous(), time.perf_counter()
    with watched() as peak:
        model = ResidualKMeans(3, 1024, iterations=2, device="cpu").fit(path)
        codes = model.transform(path)
    seen = {"before": before, "peak": peak[-1], "seconds": time.perf_counter() - start, "rows": len(codes)}
    print(json.dumps(seen))


def memory_map(gigabytes: float) -> None:
    rows = int(gigabytes * 1e9 / (4 * DIM))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        written = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, DIM))
        for number, part in enumerate(chunks(rows, DIM)):
            written[number * CHUNK : number * CHUNK + len(part)] = part
        written.flush()
        del written
        command = [sys.executable, __file__, "--fit", str(path)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    print(f"fit and code 3 x 1024, 2 iterations, on a memory map of {rows:,} x {DIM} ({gigabytes:g} GB)")
    print(f"  all {seen['rows']:,} rows in every iteration, {seen['seconds']:.0f} s")
    print(
        f"  anonymous memory: {seen['before']:.2f} GB after the imports, at most {seen['peak']:.2f} GB"
        f" (need < {ANON_GB:g})\n"
    )


def timed(name: str, target: float | None, call: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = call()
    need = "" if target is None else f"   (need < {target:g})"
    print(f"  {name:52}{time.perf_counter() - start:8.1f} s{need}", flush=True)
    return result


def policies(items: int) -> None:
    vectors = np.empty((items, 64), dtype=np.float32)
    for number, part in enumerate(chunks(items, 64)):
        vectors[number * CHUNK : number * CHUNK + len(part)] = part
    embeddings = Embeddings([f"item{row:08}" for row in range(items)], vectors)
    width = 4096 if items >= 1_000_000 else 256
    print(f"{items:,} items of 64 dimensions, 3 x {width}")
    books = timed(
        "fit residual k-means, 5 iterations",
        None,
        lambda: ResidualKMeans(3, width, iterations=5).fit(vectors),
    )
    codes = timed("code", None, lambda: Codes(embeddings.item_ids, books.transform(vectors)))
    start = time.perf_counter()
    quality = timed("quality report", None, lambda: code_quality(embeddings, codes, books).content())
    timed("codes to items", None, lambda: items_by_code(codes))
    timed("suffixes", None, lambda: suffixes(codes))
    print(
        f"  report, codes to items and suffixes {time.perf_counter() - start:24.1f} s   (need < {REPORT_S})"
    )
    moved = timed("reassign, capacity 1", POLICY_S, lambda: reassign(embeddings, codes, books))
    fsq = ResidualKMeansFSQ(2, width, digits=12, values=2, iterations=5)
    timed(
        "FSQ: fit 2 levels and a last one of 2^12, and code",
        POLICY_S,
        lambda: fsq.fit(vectors).transform(vectors),
    )
    opq = ResidualKMeansOPQ(2, width, parts=2, values=64, iterations=5)
    timed(
        "OPQ: fit 2 levels and a last one of 64^2, and code",
        POLICY_S,
        lambda: opq.fit(vectors).transform(vectors),
    )
    shared, apart = quality["full_codes"]["collision_rate"], len(items_by_code(moved))
    print(f"  share of items that share a code: {shared:.4f}; codes in use after reassigning: {apart:,}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--map-gb", type=float, default=4.0)
    parser.add_argument("--items", type=int, default=5_000_000)
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        fit_map(args.fit)
        return
    cpu = Path("/proc/cpuinfo").read_text().split("model name\t: ")[1].split("\n")[0]
    print(f"{cpu}, {torch.get_num_threads()} threads\n")
    memory_map(args.map_gb)
    policies(args.items)


if __name__ == "__main__":
    main()
