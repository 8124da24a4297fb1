"""The id model finds planted tastes; its rows, its bytes and its faults."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from threadpoolctl import threadpool_limits

from qarm.data.interactions import Log
from qarm.errors import InputError, MissingExtraError
from qarm.pairs.user2item import user2item

MakeLog = Callable[..., Log]


@pytest.fixture(scope="module")
def tastes(make_log: MakeLog) -> Log:
    """60 users, each with two of four tastes; an item's first letter says which taste it serves."""
    rng = np.random.default_rng(0)
    events = []
    for user in range(60):
        own = rng.choice(list("pqrs"), 2, replace=False)
        events += [(user, f"{rng.choice(own)}{rng.integers(8)}", time) for time in range(24)]
    return make_log(events)


def test_triggers_share_the_taste_of_their_targets(tastes: Log) -> None:
    frame = user2item(tastes, dim=16, epochs=30, batch=256, lr=0.05)
    taste = pl.col("trigger_id").str.head(1) == pl.col("target_id").str.head(1)
    late = frame.with_columns(same=taste).group_by("user_id", maintain_order=True).tail(14)
    assert late["same"].mean() > 0.95  # with a past of ten clicks, both tastes are there to choose from
    assert frame.select(taste.mean()).item() > 0.85
    assert frame.filter(taste)["score"].mean() > frame.filter(~taste)["score"].mean() + 0.5


@pytest.mark.parametrize(("model", "lr"), [("als", 1.0), ("bpr", 0.05)])
def test_implicits_models_find_the_tastes_too(tastes: Log, model: Any, lr: float) -> None:
    pytest.importorskip("implicit")
    frame = user2item(tastes, model=model, dim=8, epochs=100, lr=lr)
    taste = pl.col("trigger_id").str.head(1) == pl.col("target_id").str.head(1)
    late = frame.with_columns(same=taste).group_by("user_id", maintain_order=True).tail(14)
    assert late["same"].mean() > 0.95
    assert user2item(tastes, model=model, dim=8, epochs=100, lr=lr).equals(frame)
    assert not user2item(tastes, model=model, dim=8, epochs=100, lr=lr, seed=1).equals(frame)


def test_a_missing_implicit_is_named_with_its_extra(tastes: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qarm.pairs.matrix_factorization.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'implicit is not installed; run: pip install "qarm\[als\]"'):
        user2item(tastes, model="als")


def test_mining_does_not_import_torch() -> None:
    program = "import sys; from qarm.pairs.mining import mine_pairs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_one_row_for_every_click_with_a_past(make_log: MakeLog) -> None:
    simultaneous = [("a", "x", 1), ("a", "y", 1), ("a", "z", 2), ("a", "z", 3)]
    repeated, negative = [("b", "x", 1), ("b", "x", 2)], [("c", "y", 1, 0), ("c", "x", 2), ("c", "y", 3)]
    log = make_log([*simultaneous, *repeated, *negative])
    frame = user2item(log, epochs=1)
    assert frame.schema == {
        "user_id": pl.String,
        "trigger_id": pl.String,
        "target_id": pl.String,
        "score": pl.Float32,
    }
    assert frame.select("user_id", "target_id").rows() == [("a", "z"), ("a", "z"), ("c", "y")]
    assert frame["trigger_id"][2] == "x"
    assert frame["score"].is_between(-1.0001, 1.0001).all()


def test_the_window_bounds_the_past(tastes: Log) -> None:
    frame = user2item(tastes, window=1, epochs=1)
    previous = tastes.frame.group_by("user_id", maintain_order=True).agg(pl.col("item_id"))
    expected = []
    for user, items in previous.rows():
        for place in range(1, len(items)):
            others = [item for item in items[:place] if item != items[place]]
            expected += [(user, others[-1], items[place])] if others else []
    assert frame.drop("score").rows() == expected


def test_training_ends_after_the_most_steps(tastes: Log) -> None:
    # 60 * 24 clicks are 6 batches of 256.
    expected = user2item(tastes, epochs=1, batch=256)
    assert user2item(tastes, epochs=5, batch=256, max_steps=6).equals(expected)
    assert not user2item(tastes, epochs=5, batch=256, max_steps=7).equals(expected)


def test_the_seed_decides_every_byte_whatever_the_threads(tastes: Log) -> None:
    first = user2item(tastes, epochs=2, seed=1)
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            assert user2item(tastes, epochs=2, seed=1).equals(first)
    assert not user2item(tastes, epochs=2, seed=2).equals(first)


def test_negatives_teach_nothing(tastes: Log, make_log: MakeLog) -> None:
    clicks = [(user, item, time) for user, item, time, *_ in tastes.frame.rows()]
    noisy = make_log([*clicks, *((user, "p0", time, 0) for user, _, time in clicks[::3])])
    assert user2item(noisy, epochs=2).equals(user2item(make_log(clicks), epochs=2))


@pytest.mark.parametrize(
    "events", [[("a", "x", 1)], [("a", "x", 1), ("b", "x", 2)], [("a", "x", 1), ("a", "y", 1)]]
)
def test_no_click_with_a_past_gives_an_empty_table(
    make_log: MakeLog, events: list[tuple[str, str, int]]
) -> None:
    assert user2item(make_log(events)).rows() == []


def test_all_wrong_arguments_at_once(make_log: MakeLog) -> None:
    with pytest.raises(InputError) as caught:
        user2item(make_log([(0, 0, 0, 0)]), window=0, dim=0, epochs=0, batch=0, lr=0.0, temperature=-1.0)
    assert caught.value.problems == [
        "the log has no positive event; check the label column",
        "got window=0, need at least 1",
        "got dim=0, need at least 1",
        "got epochs=0, need at least 1",
        "got batch=0, need at least 1",
        "got lr=0, need more than 0",
        "got temperature=-1, need more than 0",
    ]
