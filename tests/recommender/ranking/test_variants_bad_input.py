"""Data as it comes: each fault gives a clear result, or one error that lists everything."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from qarm.config import Negatives, RankerConfig
from qarm.core.atomic_io import read_json
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log, read_log
from qarm.data.splits import Split, split_log
from qarm.errors import InputError
from qarm.recommender.examples import TrainingRows
from qarm.recommender.metrics import measure
from qarm.recommender.ranking import variants as stage
from qarm.recommender.ranking.model import Ranker

Toy = tuple[Log, Codes, Embeddings]
CONFIG = RankerConfig(
    variants=["id", "id+rq", "id+frozen"], negatives=Negatives(train=2, eval=5), dim=4, hidden=[4], epochs=1
)


def run(
    toy: Toy,
    folder: Path,
    *,
    split: Split | None = None,
    codes: Codes | None = None,
    vectors: Embeddings | None = None,
    **changes: Any,
) -> dict[str, Any]:
    log, own, embeddings = toy
    return stage.run_variants(
        split or split_log(log),
        own.item_ids,
        codes=codes or own,
        aligned=vectors or embeddings,
        raw=vectors or embeddings,
        config=CONFIG.model_copy(update=changes),
        folder=folder,
    )


def test_everything_wrong_is_told_at_once(toy: Toy, tmp_path: Path) -> None:
    """One class, items without codes, and vectors that are no numbers; nothing is trained or written."""
    log, codes, embeddings = toy
    few = Codes(codes.item_ids[2:], codes.rq[2:])
    broken = embeddings.vectors.copy()
    broken[5, 0] = np.nan
    split = split_log(log)
    negative = Log(split.train.frame.with_columns(label=pl.lit(0, pl.Int8)))
    with pytest.raises(InputError) as caught:
        run(
            toy,
            tmp_path / "out",
            split=replace(split, train=negative),
            codes=few,
            vectors=Embeddings(embeddings.item_ids, broken),
        )
    codeless, vectors, labels = caught.value.problems
    assert codeless.startswith("2 items have no codes: g0-0, g0-1;")
    assert vectors == "vectors of items g0-5 hold NaN or infinity; embed them again"
    assert labels.startswith("none of the ")
    assert not (tmp_path / "out").exists()


def test_vectors_that_only_a_baseline_reads_are_checked_too(toy: Toy, tmp_path: Path) -> None:
    broken = Embeddings(toy[2].item_ids, np.full_like(toy[2].vectors, np.inf))
    with pytest.raises(InputError, match="hold NaN or infinity"):
        run(toy, tmp_path / "out", vectors=broken, variants=["id"])
    assert not (tmp_path / "out").exists()


def test_a_test_part_of_one_class_has_no_auc_and_says_so(toy: Toy, tmp_path: Path) -> None:
    log = toy[0]
    explicit = Log(log.frame.with_columns(label=(pl.col("row") % 3 > 0).cast(pl.Int8)))
    split = split_log(explicit)
    run(toy, tmp_path, split=replace(split, test=split.test.positives()), variants=["id"])
    for row in read_json(tmp_path / "results.json")["rows"]:
        assert (row["auc"], row["uauc"], row["gauc"], row["users"]) == (None, None, None, 0)
        assert row["rows"] > 0
        assert (row["logloss"] is None) == (row["variant"] != "id")


def test_users_with_one_impression_count_as_rows_and_not_as_users() -> None:
    users, labels = np.array([1, 2, 3, 3, 4]), np.array([1, 0, 1, 0, 1])
    found = measure(users, labels, np.array([0.1, 0.9, 0.8, 0.2, 0.7]))
    assert (found.rows, found.users, found.uauc, found.gauc) == (5, 1, 1.0, 1.0)
    assert found.auc == pytest.approx(2 / 6)  # .8 and .7 beat .2, and nothing beats .9
    nobody = measure(np.arange(3), np.array([1, 0, 1]), np.array([0.3, 0.2, 0.1]))
    assert (nobody.uauc, nobody.gauc, nobody.users, nobody.auc) == (None, None, 0, 0.5)


def test_rows_of_a_user_may_go_back_in_time(tmp_path: Path) -> None:
    """Whatever the order of the file, a history is what came before; ties follow the file."""
    events = [("u", "a", 5), ("v", "c", 9), ("u", "b", 7), ("u", "c", 6), ("v", "a", 1), ("u", "a", 8)]
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row")
    found = []
    for name, ordered in (("back", frame.reverse()), ("forth", frame.sort("user_id", "timestamp"))):
        ordered.write_parquet(tmp_path / f"{name}.parquet")
        log = read_log(tmp_path / f"{name}.parquet")
        rows = TrainingRows(log, item_ids=list("abc"), explicit=False, negatives=1).events
        histories = [
            [rows.item_ids[n] for n in rows.history[a:b]] for a, b in zip(rows.start, rows.end, strict=True)
        ]
        found.append(list(zip(rows.times.tolist(), rows.items.tolist(), histories, strict=True)))
    assert found[0] == found[1]
    assert found[0] == [
        (5, 0, []), (6, 2, ["a"]), (7, 1, ["a", "c"]), (8, 0, ["a", "c", "b"]), (1, 0, []), (9, 2, ["a"]),
    ]  # fmt: skip


def test_histories_longer_than_the_limit_keep_the_latest(make_log: Callable[..., Log]) -> None:
    log = make_log([("u", "abc"[n % 3], n) for n in range(9)])
    rows = TrainingRows(log, item_ids=list("abc"), explicit=False, history=4, long_history=6).events
    last = len(rows) - 1
    assert (rows.end - rows.start).tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 4]
    assert rows.history[rows.start[last] : rows.end[last]].tolist() == [1, 2, 0, 1]  # of times 4 to 7
    assert rows.end[last] - rows.begin[last] == 6


def test_items_without_codes_may_pass_and_are_counted(toy: Toy, tmp_path: Path) -> None:
    few = Codes(toy[1].item_ids[2:], toy[1].rq[2:])
    told = run(toy, tmp_path, codes=few, variants=["id", "rq"], missing_codes=0.07)
    assert told["items_without_codes"] == 2
    ranker = Ranker.from_pretrained(tmp_path / "rq")
    assert ranker.shape.spare
    one, two, other = ranker.score([["g0-0", "g0-1", "g3-0"]], [["g1-1"]])[0]
    assert one == pytest.approx(two, abs=1e-5)
    assert abs(one - other) > 1e-6
