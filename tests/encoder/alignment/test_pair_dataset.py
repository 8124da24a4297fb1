"""Pairs as numbers: the same from memory and Parquet, held out in both directions, refused when wrong."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qarm.encoder.alignment import pair_dataset as datasets
from qarm.encoder.alignment.loss import Positives
from qarm.encoder.alignment.pair_dataset import Shuffle, TrainingPairs, read_pairs
from qarm.errors import InputError

ITEMS = [f"i{n}" for n in range(40)]


def drawn(count: int, *, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    a = random.integers(0, 40, count)
    b = (a + random.integers(1, 40, count)) % 40
    return pl.DataFrame(
        {
            "trigger_id": [ITEMS[k] for k in np.concatenate([a, b])],
            "target_id": [ITEMS[k] for k in np.concatenate([b, a])],
            "source": ["item2item", "user2item"] * count,
            "weight": random.uniform(0.5, 2.0, 2 * count).astype(np.float32),
        }
    )


def ends(pairs: TrainingPairs) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in zip(pairs.triggers.tolist(), pairs.targets.tolist(), strict=True)}


def test_held_out_pairs_are_held_out_in_both_directions(tmp_path: Path) -> None:
    train, valid = read_pairs(drawn(600), ITEMS, folder=tmp_path, seed=0)
    assert len(train) + len(valid) == 1200
    assert not ends(train) & ends(valid)
    assert 0.02 < len(ends(valid)) / len(ends(train) | ends(valid)) < 0.09
    other = read_pairs(drawn(600), ITEMS, folder=tmp_path, seed=1)[1]
    assert ends(other) != ends(valid)
    assert len(read_pairs(drawn(49), ITEMS, folder=tmp_path, seed=0)[1]) == 0


def test_a_file_gives_what_the_frame_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = drawn(300)
    frame.write_parquet(tmp_path / "pairs.parquet")
    whole = read_pairs(frame, ITEMS, folder=tmp_path, seed=0)
    monkeypatch.setattr(datasets, "ROWS", 64)  # ten stretches
    mapped = read_pairs(tmp_path / "pairs.parquet", ITEMS, folder=tmp_path / "scratch", seed=0)
    assert isinstance(mapped[0].triggers, np.memmap)
    for one, other in zip(whole, mapped, strict=True):
        for name in ("triggers", "targets", "weights"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_sources_are_weighted(tmp_path: Path) -> None:
    frame = drawn(30)
    plain = read_pairs(frame, ITEMS, folder=tmp_path, seed=0)[0]
    half = read_pairs(frame, ITEMS, folder=tmp_path, seed=0, source_weights={"item2item": 0.5})[0]
    assert np.allclose(half.weights[::2], plain.weights[::2] / 2)
    assert np.array_equal(half.weights[1::2], plain.weights[1::2])
    none = read_pairs(frame, ITEMS, folder=tmp_path, seed=0, source_weights={"item2item": 0.0})[0]
    assert np.array_equal(none.triggers, plain.triggers[1::2])
    with pytest.raises(InputError, match="the pairs have no column source"):
        read_pairs(frame.drop("source"), ITEMS, folder=tmp_path, seed=0, source_weights={"item2item": 0.5})


def test_rows_of_a_file_are_named_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = drawn(50).with_columns(weight=pl.when(pl.int_range(pl.len()) == 70).then(-1.0).otherwise(1.0))
    frame.write_parquet(tmp_path / "pairs.parquet")
    monkeypatch.setattr(datasets, "ROWS", 32)
    with pytest.raises(InputError, match="not a positive number in rows 70"):
        read_pairs(tmp_path / "pairs.parquet", ITEMS, folder=tmp_path, seed=0)
    with pytest.raises(InputError, match="no such file; mine pairs first"):
        read_pairs(tmp_path / "none.parquet", ITEMS, folder=tmp_path, seed=0)
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(InputError, match="not a table of pairs"):
        read_pairs(tmp_path / "junk.parquet", ITEMS, folder=tmp_path, seed=0)


def test_positives_in_a_file_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    triggers, targets = random.integers(0, 50, size=(2, 400))
    memory = Positives(triggers, targets, items=50)
    monkeypatch.setattr("qarm.encoder.alignment.loss.AT_ONCE", 64)  # many stretches of items
    mapped = Positives(triggers, targets, items=50, folder=tmp_path)
    for item in range(50):
        assert mapped.neighbors(item).tolist() == memory.neighbors(item).tolist()
    chosen = random.permutation(50)[:20]
    assert np.array_equal(mapped.among(chosen), memory.among(chosen))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 64, 1000])
def test_a_shuffle_is_a_permutation_of_any_length(n: int) -> None:
    order = Shuffle(n, seed=3)
    whole = order.take(0, n)
    assert sorted(whole.tolist()) == list(range(n))
    assert np.array_equal(order.take(n // 3, n + 5), whole[n // 3 :])
    assert np.array_equal(Shuffle(n, seed=3).take(0, n), whole)


def test_shuffles_look_random() -> None:
    first, other = (
        Shuffle(10_000, seed=[0, 1, 0]).take(0, 10_000),
        Shuffle(10_000, seed=[0, 1, 1]).take(0, 10_000),
    )
    places = np.arange(10_000)
    for one, two in ((first, places), (first, other), (first[1:], first[:-1])):
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.05
