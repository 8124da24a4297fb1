"""Speed of Lloyd's iterations and coding on a GPU, against flash-kmeans: `python benchmarks/codes_gpu.py`.

Needs a CUDA device and `pip install flash-kmeans==0.3.1`. Both start from the same rows and run the same
number of iterations in turn; the peer computes in the precision that `--peer` names and keeps its
centroids in it, while ours gives float32's exact nearest centroids.
Defaults: 8,000,000 x 128 clustered rows, 1,024 codes.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from qarm.quantizer.kmeans.gpu import chosen_device, gpu_codes
from qarm.quantizer.kmeans.lloyd import lloyd
from qarm.quantizer.vectors import ResidualRows


def clustered(rows: int, dim: int, *, groups: int = 4000) -> np.ndarray:
    """Rows in groups, float32 [rows, dim]."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((groups, dim), dtype=np.float32)
    x = np.empty((rows, dim), dtype=np.float32)
    for start in range(0, rows, 1 << 16):
        part = x[start : start + (1 << 16)]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32) * np.float32(0.7)
        part += centres[rng.integers(groups, size=len(part))]
    return x


def seconds(call: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peer", choices=["float16", "float32"], default="float16", help="the peer's precision"
    )
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: nothing was measured")
    from flash_kmeans import batch_kmeans_Euclid

    device, x = chosen_device("cuda"), clustered(args.rows, args.dim)
    start = x[:: len(x) // args.width][: args.width].copy()
    theirs = torch.from_numpy(x).to(device, getattr(torch, args.peer))[None]
    begin = torch.from_numpy(start).to(device, theirs.dtype)[None]
    peer = {"n_clusters": args.width, "max_iters": args.iterations, "tol": 0.0, "init_centroids": begin}
    runs: dict[str, Callable[[], object]] = {
        "qarm": lambda: lloyd(ResidualRows(x), start, iterations=args.iterations, device=device),
        f"flash-kmeans, {args.peer}": lambda: batch_kmeans_Euclid(theirs, **peer),
    }
    for call in runs.values():
        call()  # compiles
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, call in runs.items():
            times[name].append(seconds(call))
    print(f"{torch.cuda.get_device_name()}: {args.rows:,} x {args.dim}, {args.width} codes")
    print(f"{args.iterations} iterations, median of {args.rounds} rounds")
    for name, spent in times.items():
        ratio = statistics.median(t / own for t, own in zip(spent, times["qarm"], strict=True))
        print(f"  {name:28}{statistics.median(spent):8.2f} s   {ratio:6.2f} x ours")
    rows = torch.from_numpy(x[:1_000_000]).to(device)
    books = [start, start * np.float32(0.3), start * np.float32(0.1)]
    gpu_codes(rows, books)
    print(f"  coding 1,000,000 rows with 3 x {args.width}: {seconds(lambda: gpu_codes(rows, books)):.3f} s")


if __name__ == "__main__":
    main()
