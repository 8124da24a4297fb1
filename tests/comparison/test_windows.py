"""Windows of the log, and the sample of users."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.comparison.conftest import config_of, seed_of

from qarm.comparison.windows import cut_windows, sample_users
from qarm.config import CompareConfig, SplitConfig
from qarm.data.interactions import Log, read_log


@pytest.mark.parametrize("kind", ["time", "user_tail", "last_out"])
def test_windows_follow_one_another(world: Path, kind: str) -> None:
    log = read_log(world / "interactions.parquet")
    split = SplitConfig.model_validate({"kind": kind, "test": 0.2, "valid": 0.1})
    compare = CompareConfig(edition=1, windows="three", cold_items=0.1)
    found = cut_windows(log, split, compare, seed=0)
    assert len(found.pairs) + len(found.rows) == len(found.split.train)
    assert abs(len(found.pairs) - len(found.rows)) < 0.2 * len(found.split.train)
    last = found.pairs.frame.group_by("user_id").agg(last=pl.col("time").max())
    both = found.rows.frame.join(last, on="user_id")
    assert (both["time"] >= both["last"]).all()
    cold = set(log.items) - set(found.split.train.items)
    assert cold
    assert not cold & ({*found.pairs.items} | {*found.rows.items})


def test_the_ranker_learns_from_everything_before_validation(world: Path) -> None:
    """Pairs have a window of their own; rows are the whole training part, as for the anchors."""
    log = read_log(world / "interactions.parquet")
    found = cut_windows(log, SplitConfig(), CompareConfig(cold_items=0.1), seed=0)
    assert found.rows is found.split.train
    assert len(found.pairs) == pytest.approx(len(found.rows) / 2, rel=0.1)
    assert not set(found.split.valid.items) - set(log.items)
    assert set(found.split.valid.items) - set(found.split.train.items)  # cold positives


def test_one_window_serves_both(world: Path) -> None:
    log = read_log(world / "interactions.parquet")
    found = cut_windows(log, SplitConfig(), CompareConfig(windows="one", cold_items=0.1), seed=0)
    assert found.pairs is found.rows is found.split.train


def test_judged_users_are_drawn_by_their_ids_alone() -> None:
    log = Log(pl.DataFrame({"user_id": [f"u{n % 50}" for n in range(200)], "row": range(200)}))
    some, rest = sample_users(log, users=20)
    assert len(some.users) == 20
    assert sorted(some.users + rest.users) == log.users
    assert len(some) + len(rest) == len(log)
    smaller = Log(log.frame.filter(pl.col("user_id") != some.users[0]))
    assert set(some.users[1:]) < set(sample_users(smaller, users=20)[0].users)
    assert sample_users(log, users=99)[0].frame.equals(log.frame)


def test_judged_users_keep_the_rows_that_they_have_when_all_are_judged(world: Path, tmp_path: Path) -> None:
    def rows(**more: str) -> dict[str, pl.DataFrame]:
        seed = seed_of(config_of(world, **{"compare.cold_items": "0.1", **more}), tmp_path)
        return {
            kind: pl.DataFrame(
                {"user": np.array(part.user_ids)[part.users], "item": part.items, "label": part.labels}
            )
            for kind, part in {**seed.evaluation.test, "valid": seed.evaluation.valid}.items()
        }

    everyone, some = rows(), rows(**{"compare.judged_users": "7"})
    for kind, part in some.items():
        assert part["user"].n_unique() == 7
        own = everyone[kind].filter(pl.col("user").is_in(part["user"].unique().to_list()))
        assert own.equals(part)


def test_validation_rows_know_no_event_of_the_test(world: Path, tmp_path: Path) -> None:
    """Validation's negatives hold items of the user's test events, as often as others."""
    seed = seed_of(config_of(world, **{"compare.cold_items": "0.1"}), tmp_path)
    split, valid = seed.windows.split, seed.evaluation.valid
    tested = set(zip(split.test.frame["user_id"], split.test.frame["item_id"], strict=True))
    known = pl.concat([split.train.frame, split.valid.frame])
    before = set(zip(known["user_id"], known["item_id"], strict=True))
    negatives = [
        (valid.user_ids[user], valid.item_ids[item])
        for user, item, label in zip(valid.users, valid.items, valid.labels, strict=True)
        if label == 0
    ]
    assert len(set(negatives) & (tested - before)) > 5
    assert not set(negatives) & before
    assert 0 < valid.cold[valid.labels == 1].mean() < 0.5
