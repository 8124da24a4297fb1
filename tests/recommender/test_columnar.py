"""Training goes through columns: as many calls of Python whatever the number of rows in a batch."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from qarm.config import RankerConfig
from qarm.core.parallel.torchrun import Processes
from qarm.core.training_state import RankerState
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.recommender.examples import Examples, TrainingRows
from qarm.recommender.item_features import item_table
from qarm.recommender.ranking.fitting import build_ranker
from qarm.recommender.ranking.trainer import RankerTrainer


def calls(work: Callable[[], Any]) -> int:
    """Of functions, Python's own and others, on this thread."""
    count = 0

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_calls_do_not_grow_with_rows(
    toy: tuple[Log, Codes, Embeddings], make_log: Callable[..., Log]
) -> None:
    codes = toy[1]

    def epoch_of(users: int) -> int:
        random = np.random.default_rng(0)
        events = [
            (f"u{user:03d}", codes.item_ids[item], time)
            for user in range(users)
            for time, item in enumerate(random.integers(0, len(codes), 8))
        ]
        rows = TrainingRows(make_log(events), item_ids=codes.item_ids, explicit=False, negatives=2)
        settings = RankerConfig(dim=4, hidden=[4], batch=3 * users * 2)  # four batches
        table = item_table(codes.item_ids, "id+rq+vq+cross", codes=codes, pool=codes.item_ids[:10])
        nothing: Examples = rows.events.only(np.zeros(len(rows.events), dtype=bool))
        loop = RankerTrainer(
            build_ranker(rows, table, settings), rows, nothing, settings, seed=0, processes=Processes()
        )
        start = loop._copied()
        return calls(lambda: loop._pass(RankerState(start, start)))

    epoch_of(10)  # what is made once, such as compiled loops
    few, many = epoch_of(20), epoch_of(200)
    assert few > 500
    assert many < 1.1 * few
