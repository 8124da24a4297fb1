"""Speed of the ranker's training, metrics and scoring: `python benchmarks/ranker.py` (`make bench-ranker`).

Training on the demo world as `qarm train` does it, against steps of the same module on batches in memory: the
cost of reading, of drawing negatives and of searching histories. Training steps of DIN over ragged
histories beside torch-rechub's, padded to 50, from the same weights and on the same rows. Grouped AUC of 10
million rows beside one `np.lexsort` of them, and its equality with scikit-learn. The time to score 500
candidates. The two sides of a ratio take turns.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from qarm.comparison.rivals.din import Din, ragged
from qarm.comparison.rivals.torch_rechub import rechub_din
from qarm.config import RankerConfig
from qarm.core.parallel.allocator import kept_memory
from qarm.data.codes import Codes
from qarm.data.interactions import Log, read_log
from qarm.demo import build_world
from qarm.recommender.batches import Batch, batches
from qarm.recommender.examples import TrainingRows
from qarm.recommender.item_features import item_table
from qarm.recommender.metrics import grouped_auc
from qarm.recommender.ranking.fitting import build_ranker
from qarm.recommender.ranking.model import Ranker

LEVELS, WIDTH, NEAREST = 3, 64, 25
BEAUTY = [0, 1, 2, 3, 3, 4, 6, 8, 13, 29]  # events before an event of Amazon Beauty 2014: tenths, at most 50


def seconds(call: Callable[[], object]) -> float:
    clock = time.perf_counter()
    call()
    return time.perf_counter() - clock


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median of the rounds' ratios: how many times as fast ours is."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


# ---- training -----------------------------------------------------------------------------------


def random_codes(item_ids: list[str]) -> Codes:
    random = np.random.default_rng(0)
    rq = random.integers(0, WIDTH, (len(item_ids), LEVELS)).astype(np.int32)
    vq = random.integers(0, len(item_ids), (len(item_ids), NEAREST)).astype(np.int32)
    return Codes(sorted(item_ids), rq, vq)


def step(ranker: Ranker, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
    losses = functional.binary_cross_entropy_with_logits(ranker(batch), batch.labels, reduction="none")
    optimizer.zero_grad(set_to_none=True)
    losses[batch.real].mean().backward()
    optimizer.step()


def training(log: Log, variant: str, settings: RankerConfig, rounds: int) -> None:
    item_ids = log.items
    codes = random_codes(item_ids)
    table = item_table(item_ids, variant, codes=codes, pool=codes.item_ids)
    rows = TrainingRows(log, item_ids=item_ids, explicit=False, history=settings.history, seed=0)
    ranker = build_ranker(rows, table, settings).train()
    optimizer = torch.optim.AdamW(ranker.parameters(), lr=settings.lr)
    search = ranker.search(rows.events.history)

    def whole() -> None:
        examples = rows.epoch(0)
        for batch in batches(examples, settings.batch, random=np.random.default_rng(0), search=search):
            step(ranker, batch, optimizer)

    epoch = rows.epoch(0)
    random = np.random.default_rng(0)
    ready = list(batches(epoch, settings.batch, random=random, search=search))

    def in_memory() -> None:
        for batch in ready:
            step(ranker, batch, optimizer)

    with kept_memory():  # as in training
        whole()
        times = [(seconds(whole), seconds(in_memory)) for _ in range(rounds)]
    ours, theirs = ([pair[side] for pair in times] for side in (0, 1))
    print(
        f"{variant}: {len(epoch):,} rows in {statistics.median(ours):.2f} s, "
        f"{len(epoch) / statistics.median(ours):,.0f} a second; "
        f"{ratio(ours, theirs):.2f} of the rate of batches in memory (need 0.8)"
    )


# ---- DIN ----------------------------------------------------------------------------------------


def din(log: Log, settings: RankerConfig, rounds: int, *, full: bool, steps: int = 20) -> None:
    rows = TrainingRows(log, item_ids=log.items, explicit=False, history=settings.history, seed=0)
    examples = rows.epoch(0)
    random = np.random.default_rng(0)
    edges = examples.groups()
    lengths = random.choice([settings.history] if full else BEAUTY, len(edges) - 1).repeat(np.diff(edges))
    begin = random.integers(0, len(examples.history) - settings.history, len(edges) - 1)
    begin = begin.repeat(np.diff(edges))  # anyone's past: only how long it is counts here
    examples = replace(examples, start=begin, end=begin + lengths)
    known = torch.arange(1, len(log.items) + 1)
    ready = list(batches(examples, settings.batch, random=random))[:steps]
    ours = [(ragged(batch, known), batch.labels[batch.real]) for batch in ready]
    theirs = [padded(batch, known, settings.history) for batch in ready]
    torch.manual_seed(0)
    model = rechub_din(len(known) + 1, dim=settings.dim, init=0.1).train()
    model(theirs[0][0])  # so that the running statistics say something
    own = Din.from_rechub(model)
    model.eval()
    own.eval()
    with torch.no_grad():
        apart = max(
            float((own(mine[0]) - model(other[0]).logit()).abs().max())
            for mine, other in zip(ours, theirs, strict=True)
        )
    sides = [(own, functional.binary_cross_entropy_with_logits, ours)]
    sides.append((model, functional.binary_cross_entropy, theirs))
    runs = [partial(din_steps, *side) for side in sides]
    times = [tuple(seconds(run) for run in runs) for _ in range(rounds + 1)][1:]
    own_times, their_times = ([pair[side] for pair in times] for side in (0, 1))
    size = sum(len(labels) for _, labels in ours)
    length = sum(int((batch.high - batch.low).sum()) for batch, _ in ours) / size
    what, need = ("full histories", 2) if full else ("histories as long as in Amazon Beauty", 5)
    print(
        f"DIN, {what}, {length:.1f} items in the mean: {size / statistics.median(own_times):,.0f} rows a "
        f"second, {ratio(own_times, their_times):.1f} times torch-rechub's (need {need}); "
        f"logits at most {apart:.1e} apart (need 1e-5)"
    )


def padded(batch: Batch, known: torch.Tensor, length: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A row per candidate, as torch-rechub's users make them."""
    past = torch.where(batch.seen, known[batch.history], 0)
    past = functional.pad(past, (0, length - past.shape[1]))[batch.real.nonzero()[:, 0]]
    return {"item": known[batch.items][batch.real], "past": past}, batch.labels[batch.real]


def din_steps(model: torch.nn.Module, loss: Callable[..., torch.Tensor], ready: list[Any]) -> None:
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
    for features, labels in ready:
        optimizer.zero_grad()
        loss(model(features), labels).backward()
        optimizer.step()


# ---- metrics ------------------------------------------------------------------------------------


def metric(rows: int, users: int, rounds: int) -> None:
    random = np.random.default_rng(0)
    owner = random.integers(0, users, rows)
    labels = (random.random(rows) < 0.2).astype(np.int8)
    scores = np.round(random.normal(size=rows) + labels, 2).astype(np.float32)
    grouped_auc(owner[:1000], labels[:1000], scores[:1000])
    times = [
        (seconds(lambda: grouped_auc(owner, labels, scores)), seconds(lambda: np.lexsort((scores, owner))))
        for _ in range(rounds)
    ]
    ours, theirs = ([pair[side] for pair in times] for side in (0, 1))
    grouped = grouped_auc(owner, labels, scores)
    some = random.choice(len(grouped), 300, replace=False)
    worst = 0.0
    for row in some:
        own = owner == grouped.users[row]
        worst = max(worst, abs(grouped.auc[row] - roc_auc_score(labels[own], scores[own])))
    print(
        f"grouped AUC of {rows:,} rows, {users:,} users: {statistics.median(ours):.2f} s, "
        f"{1 / ratio(ours, theirs):.2f} times np.lexsort's {statistics.median(theirs):.2f} s (need 1.5); "
        f"farthest from scikit-learn {worst:.1e} on 300 users (need 1e-12)"
    )


# ---- answers ------------------------------------------------------------------------------------


def latency(log: Log, variant: str, settings: RankerConfig, calls: int = 300) -> None:
    item_ids = log.items
    codes = random_codes(item_ids)
    table = item_table(item_ids, variant, codes=codes, pool=codes.item_ids)
    rows = TrainingRows(log, item_ids=item_ids, explicit=False, history=settings.history, seed=0)
    ranker = build_ranker(rows, table, settings).eval()
    random = np.random.default_rng(0)
    asked = [
        ([list(random.choice(item_ids, 500))], [list(random.choice(item_ids, settings.history))])
        for _ in range(calls + 20)
    ]
    for candidates, histories in asked[:20]:
        ranker.score(candidates, histories)
    times = sorted(seconds(lambda one=one: ranker.score(*one)) for one in asked[20:])
    print(
        f"{variant}: 500 candidates for one user, median {1000 * times[calls // 2]:.1f} ms, "
        f"p99 {1000 * times[int(0.99 * calls)]:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=500_000)
    options = parser.parse_args()
    settings = RankerConfig()
    with tempfile.TemporaryDirectory() as folder:
        world = build_world(Path(folder) / "world", size="small", seed=0)
        log = read_log(world.folder / "interactions.parquet")
    for variant in ("id", "id+rq+vq", "id+rq+vq+cross"):
        training(log, variant, settings, options.rounds)
    for full in (True, False):
        din(log, settings, options.rounds, full=full)
    metric(options.rows, options.users, options.rounds)
    for variant in ("id", "id+rq+vq", "id+rq+vq+cross"):
        latency(log, variant, settings)


if __name__ == "__main__":
    main()
