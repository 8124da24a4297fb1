"""Scores of a request's items: those of the whole ranker; new items count as cold ones of the training."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from qarm.config import RankerConfig
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.errors import InputError
from qarm.recommender.examples import TrainingRows
from qarm.recommender.item_features import item_table
from qarm.recommender.ranking.fitting import build_ranker
from qarm.recommender.ranking.item_scorer import ItemScorer
from qarm.recommender.ranking.model import Ranker

Toy = tuple[Log, Codes, Embeddings]
VARIANTS = ["id", "id+rq", "rq+vq", "id+rq+vq", "id+frozen", "id+rq+vq+cross", "id+rq+vq+frozen+cross"]


def early(log: Log) -> Log:
    """Events before the last items of each group have any."""
    return Log(log.frame.filter(log.frame["time"] < 130))


def made(toy: Toy, variant: str, items: list[str], *, missing: float = 0.0, **settings: Any) -> Ranker:
    """A ranker of some items with weights that all tell something."""
    log, codes, vectors = toy
    log = early(log)
    table = item_table(
        items,
        variant,
        codes=codes,
        embeddings=vectors,
        pool=codes.item_ids[:20],
        scale_by=log.items,
        missing_codes=missing,
    )
    rows = TrainingRows(log, item_ids=items, explicit=False, history=10)
    torch.manual_seed(0)
    ranker = build_ranker(rows, table, RankerConfig(dim=4, hidden=[4], history=10, **settings))
    with torch.no_grad():
        for weight in ranker.parameters():
            weight.normal_(std=0.5)
    return ranker.eval()


def without(ranker: Ranker, gone: list[str]) -> Ranker:
    """The same ranker as if it had never heard of some items."""
    kept = torch.tensor([row for row, item in enumerate(ranker.item_ids) if item not in gone])
    place = torch.full((len(ranker.item_ids) + 1,), -1).index_put((kept,), torch.arange(len(kept)))
    ranker.item_ids = [ranker.item_ids[row] for row in kept]
    ranker.shape = ranker.shape.model_copy(update={"items": len(kept)})
    for name in ("known", "codes", "vectors"):
        setattr(ranker.item, name, getattr(ranker.item, name)[kept])
    ranker.item.pool = place[ranker.item.pool]
    return ranker


def asked(items: list[str], cold: list[str]) -> tuple[list[list[str]], list[list[str]]]:
    return (
        [[cold[0], items[1], cold[1], items[1]], [items[3]], [*items[:7], cold[0]]],
        [[items[0], cold[1], items[5], items[0]], [], items[:9]],
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_item_that_came_later_scores_as_a_cold_one_of_the_training(toy: Toy, variant: str) -> None:
    _, codes, vectors = toy
    log_items = set(early(toy[0]).items)
    cold = [item for item in codes.item_ids if item not in log_items][:2]
    warm = [item for item in codes.item_ids if item in log_items]
    request = asked(warm, cold)
    whole = made(toy, variant, codes.item_ids)
    expected = whole.score(*request)
    scorer = ItemScorer(whole, variant, codes=codes, vectors=vectors)
    for one, other in zip(scorer.score(*request), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert [scorer.is_cold(item) for item in (cold[0], warm[0], "nobody")] == [True, False, True]

    published = ItemScorer(
        without(made(toy, variant, codes.item_ids), cold), variant, codes=codes, vectors=vectors
    )
    kept = [row for row, item in enumerate(codes.item_ids) if item not in cold]
    ids = [codes.item_ids[row] for row in kept]
    fewer = replace(codes, item_ids=ids, rq=codes.rq[kept], vq=codes.vq[kept])
    stored = ItemScorer(
        published.ranker, variant, codes=fewer, vectors=Embeddings(ids, vectors.vectors[kept])
    )
    assert stored.unknown([*cold, warm[0], cold[0]]) == cold
    assert published.unknown(cold) == []
    rows = [codes.item_ids.index(item) for item in cold]
    new = Codes(cold, codes.rq[rows], codes.vq[rows], codes.version)
    given = {"new": new, "new_vectors": Embeddings(cold, vectors.vectors[rows])}
    if "cross" in variant:  # a pool item that the ranker lost is found by none of its lists any more
        expected = published.score(*request)
    for found in (published.score(*request), stored.score(*request, **given)):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)
    with pytest.raises(InputError, match="have no codes; code them first"):
        stored.score([["nobody"]], [[]])


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_a_code_that_no_item_of_the_training_had_counts_nothing(toy: Toy, missing: float) -> None:
    """Its own row of the tables is zero; the spare code of items without codes stays where it was."""
    log, codes, vectors = toy
    some = replace(codes, item_ids=codes.item_ids[2:], rq=codes.rq[2:], vq=codes.vq[2:]) if missing else codes
    ranker = made((log, some, vectors), "rq+vq", codes.item_ids, missing=missing)
    scorer = ItemScorer(ranker, "rq+vq", codes=some, vectors=vectors)
    row = codes.rq[5:6].copy()
    far = Codes(["far", "near"], np.concatenate([row + 50, row]), np.concatenate([codes.vq[5:6]] * 2))
    history = [codes.item_ids[6:9]]
    found = scorer.score([["near", codes.item_ids[5]]], history, new=far)[0]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    unseen = scorer.score([["far"]], history, new=far)[0]
    assert np.isfinite(unseen).all()
    with torch.no_grad():
        for table, bias in zip(ranker.item.code.levels, ranker.item.level_bias, strict=True):
            table.weight[int(row[0, 0]) if table is ranker.item.code.levels[0] else int(row[0, 1])] = 0
            bias.weight[int(row[0, 0]) if bias is ranker.item.level_bias[0] else int(row[0, 1])] = 0
    zeroed = scorer.score([["near"]], history, new=far)[0]
    expected = scorer.score([["far"]], history, new=far)[0]
    assert zeroed == pytest.approx(expected, abs=1e-6)


def test_what_the_store_does_not_hold_is_said(toy: Toy) -> None:
    _, codes, vectors = toy
    table = item_table(codes.item_ids, "id+raw", raw=vectors)
    rows = TrainingRows(toy[0], item_ids=codes.item_ids, explicit=False, history=10)
    ranker = build_ranker(rows, table, RankerConfig(dim=4, hidden=[4])).eval()
    scorer = ItemScorer(ranker, "id+raw", codes=codes, vectors=vectors)
    new = Codes(["n"], codes.rq[:1], codes.vq[:1])
    with pytest.raises(InputError, match="came after training: the ranker id.raw reads vectors before"):
        scorer.score([["n"]], [[]], new=new)
