"""Auxiliary labels: unknown for drawn negatives, a last layer each, figures of their own."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from qarm.config import Negatives, RankerConfig
from qarm.core.parallel.torchrun import Processes
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.data.splits import split_log
from qarm.errors import InputError
from qarm.recommender.batches import batches
from qarm.recommender.examples import Examples, TrainingRows, evaluation_rows, read_examples
from qarm.recommender.item_features import item_table
from qarm.recommender.ranking import variants as stage
from qarm.recommender.ranking.fitting import build_ranker
from qarm.recommender.ranking.model import Ranker, score_examples
from qarm.recommender.ranking.trainer import RankerTrainer
from qarm.schemas.results import Cell, RankerShape, Results

Toy = tuple[Log, Codes, Embeddings]
CONFIG = RankerConfig(
    variants=["id", "id+rq"],
    negatives=Negatives(train=2, eval=10),
    dim=8,
    hidden=[8],
    epochs=15,
    patience=15,
    history=10,
    batch=64,
    lr=0.02,
)


def liked(log: Log) -> Log:
    """Items of even place are liked and the others are not; every seventh row does not say."""
    place = pl.col("item_id").str.slice(-1).cast(pl.Int8)
    told = pl.when(pl.col("row") % 7 > 0).then((place % 2 == 0).cast(pl.Int8))
    return replace(log, frame=log.frame.with_columns(label_like=told, label_share=1 - told))


@pytest.fixture(scope="module")
def trained(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, (log, codes, vectors) = tmp_path_factory.mktemp("labels"), toy
    stage.run_variants(
        split_log(liked(log), valid=0.0),  # all epochs run and the last is kept
        codes.item_ids,
        codes=codes,
        aligned=vectors,
        raw=vectors,
        config=CONFIG,
        folder=folder,
    )
    return folder


# ---- rows -------------------------------------------------------------------------------------


def test_a_drawn_negative_has_no_auxiliary_label(toy: Toy) -> None:
    log, codes, _ = toy
    rows = TrainingRows(liked(log), item_ids=codes.item_ids, explicit=False, negatives=2).epoch(0)
    assert rows.tasks == ("like", "share")
    assert rows.auxiliary.dtype == np.int8
    drawn = rows.labels == 0
    assert (rows.auxiliary[drawn] == -1).all()
    place = np.array([int(item[-1]) for item in codes.item_ids])[rows.items[~drawn]]
    known = rows.events[~drawn] % 7 > 0
    assert (rows.auxiliary[~drawn][~known] == -1).all()
    assert (rows.auxiliary[~drawn][known] == np.stack([place % 2 == 0, place % 2], axis=1)[known]).all()
    batch = next(batches(rows, 10))
    assert batch.auxiliary.shape == (*batch.items.shape, 2)
    assert (batch.auxiliary.numpy() == rows.auxiliary[batch.rows]).all()


def test_evaluation_rows_keep_auxiliary_labels(toy: Toy, tmp_path: Path) -> None:
    split = split_log(liked(toy[0]))
    ids = toy[1].item_ids
    frame = evaluation_rows(
        {"test": split.test}, split.train, item_ids=ids, trained_items=split.train.items, negatives=3
    )
    frame.write_parquet(tmp_path / "eval.parquet")
    frame = pl.read_parquet(tmp_path / "eval.parquet")
    assert frame.schema["label_like"] == pl.Int8
    assert frame.filter(label=0)["label_like"].null_count() == frame.filter(label=0).height
    rows = read_examples(frame, [split.train, split.test], item_ids=ids)
    assert (rows.auxiliary[:, 0] == frame["label_like"].fill_null(-1).to_numpy()).all()
    known = rows.of_label("share")
    assert len(known) == frame["label_share"].count()
    assert known.labels.tolist() == frame["label_share"].drop_nulls().to_list()
    with pytest.raises(InputError, match="no auxiliary label 'buy'; there are like, share"):
        rows.of_label("buy")


def test_an_explicit_log_brings_its_own_labels(make_log: Callable[..., Log]) -> None:
    log = make_log([("u", "a", 1, 1), ("u", "b", 2, 0), ("v", "a", 1, 0), ("v", "b", 3, 1)])
    log = replace(log, frame=log.frame.with_columns(label_like=pl.Series([1, 0, None, 0], dtype=pl.Int8)))
    rows = TrainingRows(log, item_ids=["a", "b"], explicit=True).epoch(0)
    assert rows.auxiliary.tolist() == [[1], [0], [-1], [0]]


@pytest.mark.parametrize(
    ("values", "held"), [([1, 1, None, 1], "only 1"), ([0, 0, 0, 0], "only 0"), ([None] * 4, "nothing known")]
)
def test_a_label_of_one_class_is_refused(make_log: Callable[..., Log], values: Any, held: str) -> None:
    """In one message with what else is wrong."""
    log = make_log([("u", "a", 1), ("u", "b", 2), ("v", "a", 1), ("v", "b", 3)])
    log = replace(log, frame=log.frame.with_columns(label_like=pl.Series(values, dtype=pl.Int8)))
    with pytest.raises(InputError, match=f"label like: {held} among the 4 training events") as caught:
        TrainingRows(log, item_ids=["a", "b"], explicit=True)
    assert len(caught.value.problems) == 2


# ---- learning ---------------------------------------------------------------------------------


def test_each_label_is_learned_and_judged(trained: Path) -> None:
    content = (trained / "results.json").read_text()
    Results.model_validate_json(content)
    Cell.model_validate_json((trained / "cells" / "id-0.json").read_text())
    RankerShape.model_validate_json((trained / "id" / "config.json").read_text())
    found = {
        (row["variant"], row["label"]): row for row in json.loads(content)["labels"] if row["slice"] == "warm"
    }
    assert set(found) == {(v, label) for v in ("id", "id+rq") for label in ("like", "share")}
    assert all(row["auc"] > 0.9 for row in found.values())  # of the item alone, so it can be learned
    test = pl.read_parquet(trained / "eval.parquet").filter(part="test")
    assert found["id", "like"]["rows"] == test.filter(~pl.col("cold"))["label_like"].count()
    plain = [row for row in json.loads(content)["rows"] if row["slice"] == "warm"]
    assert plain[0]["auc"] > 0.8
    assert "label" not in plain[0]


def test_scores_by_label(trained: Path, toy: Toy) -> None:
    ranker = Ranker.from_pretrained(trained / "id")
    assert ranker.shape.labels == ("like", "share")
    ids = [item for item in toy[1].item_ids if int(item[-1]) < 6]  # those with training events
    history = [["g1-0", "g1-2"]]
    like, share, plain = (ranker.score([ids], history, label=label)[0] for label in ("like", "share", None))
    even = np.array([int(item[-1]) % 2 == 0 for item in ids])
    assert like[even].min() > like[~even].max()
    assert share[~even].min() > share[even].max()
    own = np.array([item.startswith("g1") for item in ids])
    assert plain[own].mean() > plain[~own].mean() + 1
    with pytest.raises(InputError, match="no auxiliary label 'buy'; it knows like, share"):
        ranker.score([ids], history, label="buy")
    with pytest.raises(InputError, match="no auxiliary label 'like'; it has learned none"):
        Ranker(ranker.shape.model_copy(update={"labels": ()}), ranker.item_ids).score(
            [["g1-0"]], [[]], label="like"
        )


def test_the_first_column_is_what_the_ranker_says(trained: Path, toy: Toy) -> None:
    ranker = Ranker.from_pretrained(trained / "id+rq")
    log, ids = liked(toy[0]), toy[1].item_ids
    rows = TrainingRows(log, item_ids=ids, explicit=False, negatives=2, history=10).epoch(0)
    *_, batch = batches(rows, 64)
    with torch.no_grad():
        np.testing.assert_allclose(ranker.all_labels(batch)[..., 0], ranker(batch), atol=1e-6)
        found = ranker.all_labels(batch)[..., 1].numpy()
    np.testing.assert_allclose(score_examples(ranker, rows, label="like")[batch.rows], found, atol=1e-4)


def loop_of(toy: Toy) -> tuple[RankerTrainer, Examples]:
    log, codes, _ = toy
    rows = TrainingRows(liked(log), item_ids=codes.item_ids, explicit=False, negatives=2, history=10)
    torch.manual_seed(0)
    ranker = build_ranker(rows, item_table(codes.item_ids, "id"), CONFIG)
    with torch.no_grad():
        ranker.further.weight.normal_()
    return RankerTrainer(ranker, rows, rows.events, CONFIG, seed=0, processes=Processes()), rows.epoch(0)


def test_the_loss_by_hand(toy: Toy) -> None:
    """The mean of log(1 + exp(-z)) of a known 1 and log(1 + exp(z)) of a known 0; shares of it add up."""
    loop, rows = loop_of(toy)
    loop.ranker.eval()
    batch = next(batches(rows, 40))
    losses, auxiliary = loop._losses(batch)
    logits = loop.ranker.all_labels(batch).detach().numpy().astype(np.float64)
    expected, known = np.zeros(2), np.zeros(2)
    for event, place, task in np.ndindex(*batch.auxiliary.shape):
        value = int(batch.auxiliary[event, place, task])
        if batch.real[event, place] and value >= 0:
            expected[task] += np.log1p(np.exp(-logits[event, place, 1 + task] * (2 * value - 1)))
            known[task] += 1
    assert float(auxiliary.detach()) == pytest.approx((expected / known).sum(), rel=1e-5)
    parts = [loop._losses(batch.part(rank, 3), whole=batch)[1] for rank in range(3)]
    assert sum(float(part.detach()) for part in parts) == pytest.approx(float(auxiliary.detach()), rel=1e-5)
    assert len(losses) == int(batch.real.sum())


def test_unknown_labels_teach_nothing(toy: Toy) -> None:
    loop, rows = loop_of(toy)
    *_, batch = batches(
        replace(rows, auxiliary=np.full_like(rows.auxiliary, -1)), 40
    )  # the longest histories
    losses, auxiliary = loop._losses(batch)
    (losses.mean() + auxiliary).backward()
    assert not loop.ranker.further.weight.grad.any()
    assert loop.ranker.gain_attended.grad.any()
