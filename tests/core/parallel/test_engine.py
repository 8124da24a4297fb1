"""One suite for every engine; and mining gives the same bytes on each."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from qarm.core.parallel.engine import BucketRunner, engine
from qarm.core.tables.parquet import write_parquet
from qarm.data.interactions import Log
from qarm.errors import InputError, MissingExtraError
from qarm.pairs.mining import mine_pairs

RAY = importlib.util.find_spec("ray") is not None
ENGINES = ["local", pytest.param("ray", marks=pytest.mark.skipif(not RAY, reason="needs the extra ray"))]


@pytest.fixture(scope="module", params=ENGINES)
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    if request.param == "ray":
        importlib.import_module("ray").shutdown()


@pytest.fixture(scope="module")
def run(name: Any) -> BucketRunner:
    return engine(name)


@pytest.fixture
def scaled() -> Callable[[np.ndarray, int], int]:
    """Made here, so that it travels to other processes, which cannot import this file, by value."""
    return lambda shared, bucket: int(shared[bucket]) * 10


def test_results_come_in_the_order_of_the_buckets(
    run: BucketRunner, scaled: Callable[[np.ndarray, int], int]
) -> None:
    shared, buckets = np.arange(100), [*range(99, 0, -3)]
    for workers in (1, 3):
        found = list(run(scaled, buckets, shared=shared, workers=workers))
        assert found == [10 * bucket for bucket in buckets]
    assert list(run(scaled, [], shared=shared, workers=2)) == []


def test_a_buckets_error_is_raised(run: BucketRunner) -> None:
    with pytest.raises(ZeroDivisionError):
        list(run(lambda shared, bucket: shared / bucket, [1, 0, 2], shared=6, workers=2))


def test_mining_gives_the_same_bytes(name: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"user2item": {"epochs": 1, "dim": 8}, "swing": {"max_users_per_item": 20}}
    expected, found = tmp_path / "expected.parquet", tmp_path / "found.parquet"
    log = clicks()
    write_parquet(expected, mine_pairs(log, **options, rejected=tmp_path / "left_out.parquet"))
    write_parquet(found, mine_pairs(log, **options, rejected=tmp_path / "rejected.parquet", engine=name))
    assert found.read_bytes() == expected.read_bytes()
    assert (tmp_path / "rejected.parquet").read_bytes() == (tmp_path / "left_out.parquet").read_bytes()
    assert set(pl.read_parquet(found)["source"]) == {"item2item", "user2item"}


def clicks() -> Log:
    """100 users with 12 of 60 items each; the lower numbers are the more popular ones."""
    rng = np.random.default_rng(0)
    items = (60 * rng.random((100, 12)) ** 2).astype(np.int64)
    frame = pl.DataFrame({"user_id": np.repeat(np.arange(100), 12), "item_id": items.ravel()})
    order = pl.int_range(pl.len(), dtype=pl.Int64)
    text = pl.all().cast(pl.String).str.zfill(3)
    return Log(frame.select(text).with_columns(time=order, label=pl.lit(1, pl.Int8), row=order))


def test_no_other_engine() -> None:
    with pytest.raises(InputError, match="got engine='spark', need one of local, ray"):
        engine("spark")  # type: ignore[arg-type]


def test_a_missing_ray_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, scaled: Any) -> None:
    monkeypatch.setattr("qarm.core.parallel.ray.find_spec", lambda name: None)
    call: Callable[..., Any] = engine("ray")
    with pytest.raises(MissingExtraError, match=r'ray is not installed; run: pip install "qarm\[ray\]"'):
        list(call(scaled, [1], shared=np.arange(2), workers=1))
