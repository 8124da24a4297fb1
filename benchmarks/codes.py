"""Speed of residual k-means against faiss, interleaved in one run: `python benchmarks/codes.py`.

Prints the rates of the matrix products that bound each path, the time of a k-means fit per level, and the
time of coding, each with its ratio to ours. Every peer runs next to us in every round, and the median of the
rounds' ratios counts, so that a busy machine slows both. Defaults are the full sizes (minutes);
`--rows 50000 --rounds 1` is a short run.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

for setting in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(setting, None)  # they hold back the peer's matrix product; read when it is loaded

import faiss
import numpy as np
import torch

from qarm.quantizer.kmeans.assignment import PRODUCTS, nearest_centroids, prepared
from qarm.quantizer.kmeans.init import starting_centroids
from qarm.quantizer.kmeans.lloyd import lloyd
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.vectors import ResidualRows

DIM = 256
NEEDED = {"faiss.Kmeans, same start": 3.0, "faiss.SuperKmeans, own start": 1.5}


def clustered(rows: int, *, seed: int = 0, groups: int = 2000, spread: float = 0.7) -> np.ndarray:
    """Unit vectors in groups, float32 [rows, 256]."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, DIM), dtype=np.float32)
    x = rng.standard_normal((rows, DIM), dtype=np.float32)
    x *= spread
    for start in range(0, rows, 65536):
        part = x[start : start + 65536]
        part += centres[rng.integers(groups, size=len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return x


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def machine() -> None:
    cpu = Path("/proc/cpuinfo").read_text().split("model name\t: ")[1].split("\n")[0]
    print(f"{cpu}, {torch.get_num_threads()} threads, Python {platform.python_version()}")
    print(f"torch {torch.__version__}, faiss {faiss.__version__}, products in {PRODUCTS}\n")


def products(rows: int, width: int) -> None:
    """Rates of one matrix product of the shape that coding needs, in 10^9 multiply-adds a second."""
    x, c = torch.randn(rows, DIM), torch.randn(width, DIM)
    x16, c16 = x.bfloat16(), c.T.bfloat16()
    x8, c8 = (
        x.mul(40).clamp(-127, 127).to(torch.int8),
        c.T.mul(40).clamp(-127, 127).to(torch.int8).contiguous(),
    )
    index = faiss.IndexFlatL2(DIM)
    index.add(c.numpy())
    packed = c.to_mkldnn()
    paths: dict[str, Callable[[], object]] = {
        "float32, torch's default (MKL)": lambda: x @ c.T,
        "float32, oneDNN": lambda: torch._C._nn.mkldnn_linear(x.to_mkldnn(), packed),
        "float32, OpenBLAS (NumPy's; faiss has one)": lambda: x.numpy() @ c.T.numpy(),
        "bfloat16, oneDNN": lambda: x16 @ c16,
        "int8, oneDNN": lambda: torch._int_mm(x8, c8),
        "faiss IndexFlatL2, arg-min included": lambda: index.search(x.numpy(), 1),
    }
    print(f"products of {rows} x {DIM} with {DIM} x {width}, 10^9 multiply-adds a second")
    rates = {}
    for name, call in paths.items():
        call()
        rates[name] = rows * width * DIM / min(seconds(call) for _ in range(5)) / 1e9
        print(f"  {name:44s}{rates[name]:8.0f}")
    own = rates["float32, torch's default (MKL)" if PRODUCTS == "float32" else f"{PRODUCTS}, oneDNN"]
    peer = rates["float32, OpenBLAS (NumPy's; faiss has one)"]
    print(
        f"  so the product that ours uses is {own / peer:.1f} times as fast as the peer's kind of product\n"
    )


def faiss_fit(x: np.ndarray, start: np.ndarray, iterations: int) -> np.ndarray:
    """Fit and the codes by its last centroids, which the next level needs and `lloyd` returns too."""
    peer = faiss.Kmeans(DIM, len(start), niter=iterations, max_points_per_centroid=len(x))
    peer.train(x, init_centroids=start)
    peer.index.search(x, 1)
    return np.asarray(peer.centroids)


def super_fit(x: np.ndarray, width: int, iterations: int) -> np.ndarray:
    """Fit from a random sample, at no cost: SuperKmeans takes no starting centroids."""
    peer = faiss.SuperKmeans(DIM, width, niter=iterations, max_points_per_centroid=len(x))
    peer.train(x)
    return np.asarray(peer.centroids)


def energy(x: np.ndarray, centroids: np.ndarray) -> float:
    codes = nearest_centroids(x, prepared(centroids))
    return float(np.square(x - centroids[codes], dtype=np.float64).sum())


def own_fit(x: np.ndarray, width: int, iterations: int) -> np.ndarray:
    rows = ResidualRows(x)
    start = starting_centroids(rows, width, rng=np.random.default_rng(0))
    return lloyd(rows, start, iterations=iterations).centroids


def fits(rows: int, width: int, iterations: int, rounds: int) -> None:
    """Fits per level: `same start` from the same random rows, `own start` with each library's seeding."""
    print(f"fit {width} codes on {rows} x {DIM}, {iterations} iterations")
    residual = clustered(rows)
    for level in range(3):
        start = residual[np.sort(np.random.default_rng(level).choice(rows, width, replace=False))].copy()
        runs: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "qarm, same start": lambda x, s=start: lloyd(ResidualRows(x), s, iterations=iterations).centroids,
            "faiss.Kmeans, same start": lambda x, s=start: faiss_fit(x, s, iterations),
            "qarm, own start": lambda x: own_fit(x, width, iterations),
            "faiss.SuperKmeans, own start": lambda x: super_fit(x, width, iterations),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        books: dict[str, np.ndarray] = {}
        for _ in range(rounds):
            for name, run in runs.items():
                clock = time.perf_counter()
                books[name] = run(residual)
                times[name].append(time.perf_counter() - clock)
        for name, spent in times.items():
            ours = times["qarm, same start" if "same" in name else "qarm, own start"]
            ratio = statistics.median(t / o for t, o in zip(spent, ours, strict=True))
            need = f" (need >= {NEEDED[name]:g})" if name in NEEDED else ""
            print(
                f"  level {level + 1} {name:30s}{statistics.median(spent):8.2f} s   ratio {ratio:5.2f}"
                f"{need:14}   energy {energy(residual, books[name]):.1f}"
            )
        codes = nearest_centroids(residual, prepared(books["qarm, same start"]))
        residual = residual - books["qarm, same start"][codes]
    print()


def codings(rows: int, width: int, rounds: int) -> None:
    x = clustered(rows, seed=1)
    model = ResidualKMeans(3, width, iterations=1).fit(x[: max(4 * width, 20000)])
    print(f"code {rows} x {DIM} with 3 x {width}")
    ratios, ours = [], []
    for _ in range(rounds):
        clock = time.perf_counter()
        codes = model.transform(x)
        ours.append(time.perf_counter() - clock)
        residual, theirs, differ = x.copy(), 0.0, []
        for level, book in enumerate(model.codebooks_):
            index = faiss.IndexFlatL2(DIM)
            index.add(book)
            clock = time.perf_counter()
            peer = index.search(residual, 1)[1][:, 0]
            theirs += time.perf_counter() - clock
            differ.append(int((peer != codes[:, level]).sum()))
            residual -= book[codes[:, level]]
        ratios.append(theirs / ours[-1])
    flags = Path("/proc/cpuinfo").read_text()
    need = 2.0 if "avx512_bf16" in flags else 1.3
    print(f"  qarm {statistics.median(ours):.2f} s, ratio {statistics.median(ratios):.2f} (need >= {need:g})")
    print(f"  rows where float32 rounding gave faiss another code, per level: {differ}\n")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, default=500_000, help="rows to fit on")
    options.add_argument("--code-rows", type=int, default=1_000_000, help="rows to code")
    options.add_argument("--iterations", type=int, default=20)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--parts", nargs="+", default=["products", "fit", "code"])
    chosen = options.parse_args()
    machine()
    warm = clustered(4096)
    lloyd(ResidualRows(warm), warm[:128], iterations=1)  # compiles
    if "products" in chosen.parts:
        products(2048, 1024)
        products(512, 8192)
    if "fit" in chosen.parts:
        fits(chosen.rows, 1024, chosen.iterations, chosen.rounds)
    if "code" in chosen.parts:
        codings(chosen.code_rows, 8192, chosen.rounds)


if __name__ == "__main__":
    main()
