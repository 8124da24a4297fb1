"""The cross against a slow twin, and a world that only it can foretell."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from qarm.config import RankerConfig
from qarm.data.codes import Codes
from qarm.data.interactions import Log
from qarm.errors import InputError
from qarm.recommender.batches import batches
from qarm.recommender.examples import Examples, TrainingRows, read_examples
from qarm.recommender.history_search import Cross
from qarm.recommender.item_features import item_table
from qarm.recommender.ranking.fitting import fit_ranker
from qarm.recommender.ranking.model import Ranker, score_examples
from qarm.schemas.results import RankerShape

CODES, LIKED, OLD, NOISE = 30, 3, 30, 12
SHAPE = RankerShape(
    items=3, known=3, widths=(2,), cross=4, dim=16, hidden=(32,), dropout=0.3, id_dropout=0.1, history=50
)


@torch.no_grad()
def test_attention_over_matches_match_by_match() -> None:
    torch.manual_seed(0)
    cross = Cross(2)
    for weight in cross.parameters():
        weight.normal_()
    own, matched = torch.randn(2, 3, 2, 4), torch.randn(2, 3, 5, 2, 4)
    kinds = torch.randint(0, 4, (2, 3, 5))
    kinds[1, 2] = 0
    counts = torch.randint(0, 9, (2, 3, 3)).float()
    found = cross(own, matched, kinds, counts)
    for g in range(2):
        for c in range(3):
            there = [k for k in range(5) if kinds[g, c, k] > 0]
            scores = [
                cross.closeness * (own[g, c].sum(0) @ matched[g, c, k].sum(0)) + cross.kind[kinds[g, c, k]]
                for k in there
            ]
            total = sum(torch.exp(score) for score in scores)
            attended = sum(
                (torch.exp(score) / total * matched[g, c, k] for score, k in zip(scores, there, strict=True)),
                torch.zeros(2, 4),
            )
            products = (own[g, c] * attended).sum(-1)
            logged = torch.log(1 + counts[g, c])
            assert torch.allclose(found.history[g, c], attended.sum(0), atol=1e-5)
            assert torch.allclose(found.products[g, c], products, atol=1e-5)
            assert torch.allclose(found.counts[g, c], logged)
            assert torch.allclose(found.logit[g, c], products @ cross.gain + logged @ cross.count, atol=1e-5)
    assert not found.history[1, 2].any()
    assert found.history.shape[-1] + found.products.shape[-1] + found.counts.shape[-1] == Cross.width(2, 4)


@torch.no_grad()
def test_what_fills_up_the_matches_does_not_matter() -> None:
    torch.manual_seed(0)
    cross = Cross(1)
    cross.closeness.fill_(1.0)
    own, matched = torch.randn(1, 2, 1, 3), torch.randn(1, 2, 4, 1, 3)
    kinds = torch.tensor([[[1, 0, 2, 0], [0, 0, 0, 0]]])
    counts = torch.ones(1, 2, 3)
    found = cross(own, matched, kinds, counts)
    matched[kinds == 0] = 1e3
    for part, again in zip(found, cross(own, matched, kinds, counts), strict=True):
        assert torch.equal(part, again)


def test_a_ranker_that_searches_says_so() -> None:
    ranker = Ranker(SHAPE, ["a", "b", "c"])
    assert ranker.search(np.array([0, 1])) is not None
    assert Ranker(SHAPE.model_copy(update={"cross": 0}), ["a", "b", "c"]).search(np.array([0])) is None


def test_a_batch_without_a_search_is_refused(make_examples: Callable[..., Examples]) -> None:
    ranker = Ranker(SHAPE.model_copy(update={"items": 10, "known": 10}), [f"i{n:02d}" for n in range(10)])
    with pytest.raises(InputError, match="give `batches` its `search`"):
        ranker(next(batches(make_examples([([1], [1], [2])]), 4)))


@pytest.fixture(scope="module")
def old_tastes(make_log: Callable[..., Log]) -> tuple[Log, Log, Codes]:
    """Each user likes three of 30 codes: shown long ago, then buried under clicks on code 30 to 39.

    A candidate is liked or not by its code alone; the latest four clicks, all that attention sees, tell
    nothing. Every candidate is an item of its own, so that ids tell nothing either.
    """
    random = np.random.default_rng(0)
    shown, asked, codes = [], [], {}

    def item(code: int) -> str:
        name = f"i{len(codes):05d}"
        codes[name] = code
        return name

    def noise() -> str:
        return item(CODES + random.integers(10))

    for user in range(150):
        liked = random.choice(CODES, LIKED, replace=False)
        name = f"u{user:03d}"
        shown += [(name, item(random.choice(liked)), time, 1) for time in range(OLD)]
        shown += [(name, noise(), time, 1) for time in range(OLD, OLD + NOISE)]
        for time in (100, 200):
            for likes in (True, False, True, False):
                code = random.choice(liked) if likes else random.choice(np.setdiff1d(np.arange(CODES), liked))
                asked.append((name, item(code), time, int(likes)))
    # a moment's candidates do not see each other, and what came at 100 is buried again before 200
    buried = [
        (f"u{u:03d}", item(CODES + random.integers(10)), 150 + t, 1) for u in range(150) for t in range(NOISE)
    ]
    events = [*shown, *(e for e in asked if e[2] == 100), *buried]
    past = make_log(events)
    future = make_log([e for e in asked if e[2] == 200], first=len(events))
    rq = np.array(list(codes.values()), dtype=np.int32)[:, None]
    return past, future, Codes(list(codes), rq)


def test_only_the_cross_sees_old_tastes(old_tastes: tuple[Log, Log, Codes]) -> None:
    past, future, codes = old_tastes
    settings = RankerConfig(dim=8, hidden=[16], history=4, epochs=6, patience=6, lr=0.01, batch=256)
    rows = TrainingRows(past, item_ids=codes.item_ids, explicit=True, history=4)
    frame = future.frame.rename({"row": "event"}).with_columns(cold=False)
    test = read_examples(frame, [past, future], item_ids=codes.item_ids, history=4)
    reached = {}
    for variant in ("id+rq", "id+rq+cross"):
        table = item_table(codes.item_ids, variant, codes=codes)
        fitted = fit_ranker(rows, test, table, settings=settings)
        reached[variant] = roc_auc_score(test.labels, score_examples(fitted.ranker, test))
    assert reached["id+rq"] < 0.65
    assert reached["id+rq+cross"] > 0.95
