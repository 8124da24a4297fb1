"""Time and memory of recommending from a large generated catalogue, at three sizes, and of one request.

Items have a group and a vector near its centre; users stay in one group for most of their events. Printed for
a quarter, a half and all of the size, so that growth can be read: counting, training steps of the sequence
model (with what an epoch would take), the candidate index, and the 99th percentile of single requests.

    python benchmarks/recommend_scale.py [--items 1000000 --users 5000000 --clicks 50000000]
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from qarm.config.retriever import RetrieverConfig
from qarm.recommender.retrieval.blend import Blend
from qarm.recommender.retrieval.candidate_index import INDEXED, CandidateIndex
from qarm.recommender.retrieval.counting import ContentKnn, Popularity, item_knn, sequential_knn
from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.models.item_vectors import ItemContent
from qarm.recommender.retrieval.models.training import new_sequence_model, train_sequence_model
from qarm.recommender.retrieval.recommender import Recommender
from qarm.recommender.retrieval.storage import StoredRetriever
from qarm.schemas.retrieval import CountingSettings

DIM, GROUP, STAYS = 64, 200, 0.8  # of a vector; items of a group; share of a user's events in it
LEVELS, WIDTH = 3, 256
TRAINED = 100_000  # users of the timed training
REQUESTS, KEPT = 300, 50  # single requests; neighbours kept of an item
Result = TypeVar("Result")


def timed(name: str, call: Callable[[], Result]) -> Result:
    """Result of a call, whose times and the process's highest memory so far are printed."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"  {name:42}{time.perf_counter() - wall:9.1f} s{time.process_time() - cpu:9.1f} s cpu{peak:8.2f} GB",
        flush=True,
    )
    return result


def generated(items: int, users: int, clicks: int) -> tuple[Histories, np.ndarray, np.ndarray]:
    """Histories, item vectors float32 [items, d] and codes int64 [items, levels]."""
    random = np.random.default_rng(0)
    groups = -(-items // GROUP)
    lengths = 2 + random.poisson(max(clicks / users - 2, 0.0), users)
    owners = np.repeat(np.arange(users, dtype=np.int32), lengths)
    own = random.integers(0, groups, users, dtype=np.int32)[owners]
    own = np.where(
        random.random(len(owners), np.float32) < STAYS, own, random.integers(0, groups, len(owners))
    )
    place = (GROUP * random.random(len(owners), np.float32) ** 2).astype(np.int32)  # the first are popular
    rows = np.minimum(own * GROUP + place, items - 1).astype(np.int32)
    member = np.arange(items) // GROUP
    centres = random.standard_normal((groups, DIM), np.float32)
    vectors = centres[member] + 0.7 * random.standard_normal((items, DIM), np.float32)
    codes = np.stack([member % WIDTH, member // WIDTH % WIDTH, np.arange(items) % WIDTH], axis=1)
    return Histories(rows, np.concatenate([[0], np.cumsum(lengths)])), vectors, codes


def measure(items: int, users: int, clicks: int) -> None:
    """Every part at one size."""
    print(f"{items:,} items, {users:,} users, {clicks:,} clicks")
    histories, vectors, codes = timed("generated", lambda: generated(items, users, clicks))
    parts = {
        "sequential-knn": timed("sequential kNN", lambda: sequential_knn(histories, items, neighbours=KEPT)),
        "item-knn": timed("item-kNN", lambda: item_knn(histories, items, neighbours=KEPT)),
        "content-knn": ContentKnn.of(vectors),
        "popularity": Popularity.of(histories, items),
    }
    config = RetrieverConfig(fields=["id", "rq"], epochs=1, min_steps=1)
    counts = histories.counts(items)
    content = ItemContent(codes, (WIDTH,) * LEVELS)
    model = new_sequence_model(content, counts, config, seed=0)
    some = histories.only(np.arange(min(TRAINED, users)))
    begun = time.perf_counter()
    timed(f"one epoch of {len(some):,} users", lambda: train_sequence_model(model, some, config, seed=0))
    hours = (time.perf_counter() - begun) * users / len(some) / 3600
    print(f"  an epoch of all users: {hours:.2f} h (computed)")
    weights = {"model": 1.0, "sequential-knn": 0.1, "item-knn": 0.05, "content-knn": 0.3, "popularity": 0.1}
    blend = Blend({"model": model, **parts}, weights, counts == 0)
    ids = [f"item{row}" for row in range(items)]
    known = histories.only(np.arange(min(1000, users)))
    names = [f"user{row}" for row in range(len(known))]
    stored = StoredRetriever(blend, ids, counts, counts, names, known, CountingSettings())
    recommender = timed("recommender, with its index if large", lambda: Recommender(stored))
    if items < INDEXED:
        recommender.candidates = timed("candidate index", lambda: CandidateIndex.of(blend, known))
    index = recommender.candidates
    assert index is not None
    print(f"  index: {index.probes} of {index.index.nlist} lists visited, recall@50 {index.recall:.4f}")
    requests(recommender, names)


def requests(recommender: Recommender, names: list[str]) -> None:
    """Times of single requests for ten items, wall clock and process."""
    recommender.recommend(names[:1])
    wall, cpu = [], []
    for name in (names * REQUESTS)[:REQUESTS]:
        begun, used = time.perf_counter(), time.process_time()
        recommender.recommend(name)
        wall.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - used)
    for label, values in (("wall", wall), ("cpu", cpu)):
        middle, most = 1000 * np.quantile(values, [0.5, 0.99])
        print(f"  one request, {label}: median {middle:.1f} ms, p99 {most:.1f} ms", flush=True)


def main() -> None:
    """Measure a quarter, a half and all of the size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=5_000_000)
    parser.add_argument("--clicks", type=int, default=50_000_000)
    parser.add_argument("--parts", type=int, nargs="+", default=[4, 2, 1], help="divisors of the size")
    arguments = parser.parse_args()
    for part in arguments.parts:
        measure(arguments.items // part, arguments.users // part, arguments.clicks // part)


if __name__ == "__main__":
    main()
