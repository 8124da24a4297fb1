"""Anchors: counting methods that every table of the comparison holds, tuned on validation."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import betaln

from qarm.config import User2ItemConfig
from qarm.core.item_index import ItemIndex
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.pairs.matrix_factorization import factorized
from qarm.recommender.baselines import best_likeness, item_knn, likeness, popularity
from qarm.recommender.examples import Examples
from qarm.recommender.metrics import gauc
from qarm.recommender.retrieval.counting import ContentKnn, Ease, sequential_knn
from qarm.recommender.retrieval.histories import Histories, histories_of

__all__ = ["Anchors", "LikeRate", "fold_in", "history_scores", "like_rate_prior"]

AT_ONCE = 512  # events whose items are scored at once
DECAYS = (0.5, 0.8, 1.0)  # of a history's events by age
REGULARIZATIONS = (50.0, 500.0)  # of EASE, on the scale of an item's users
EASE_ITEMS = 15_000  # a larger matrix takes minutes and gigabytes
ALS_DIMS, ALS_EPOCHS, ALS_REGULARIZATION = (8, 64), 15, 0.01  # the last is that of `implicit`

Ints = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Scorer = Callable[[Examples], npt.NDArray[Any]]


class HistoryScorer(Protocol):
    """What scores the whole catalogue for histories."""

    def scores(self, histories: Histories) -> Scores:
        """Scores [users, items]."""


class Anchors:
    """Anchors of one seed, made when they are asked for.

    Args:
        log: the training part; train: its events as rows, labels 0 too; valid: rows to choose settings by.
        raw: vectors of all items before alignment, when they are needed.
        explicit: whether the log has labels 0 of its own.
        seed: of the factorisation.
    """

    def __init__(
        self,
        log: Log,
        train: Examples,
        valid: Examples,
        raw: Callable[[], Embeddings],
        *,
        explicit: bool,
        seed: int,
    ) -> None:
        self.log, self.train, self.valid, self.raw = log, train, valid, raw
        self.explicit, self.seed = explicit, seed

    FIRST_EDITION = ("popularity", "item-kNN", "content-kNN")
    NAMES = ("like-rate", *FIRST_EDITION, "sequential kNN", "EASE", "ALS")

    def scorers(self, edition: int) -> dict[str, Callable[[], Scorer]]:
        """The anchors of an edition of the protocol, by name."""
        every: dict[str, Callable[[], Scorer]] = {
            "like-rate": lambda: LikeRate.of(self.train),
            "popularity": lambda: partial(popularity, self.train),
            "item-kNN": lambda: partial(item_knn, self.train),
            "content-kNN": self._content_knn if edition > 1 else self._likeness,
            "sequential kNN": self._sequential_knn,
            "EASE": self._ease,
            "ALS": self._als,
        }
        names = self.NAMES if edition > 1 else self.FIRST_EDITION
        return {name: every[name] for name in names if name not in self.left_out}

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Reasons why anchors are not run, by name."""
        items, reasons = len(self.train.item_ids), {}
        if not self.explicit:
            reasons["like-rate"] = "the log has no labels 0"
        if items > EASE_ITEMS:
            reasons["EASE"] = f"{items:,} items, at most {EASE_ITEMS:,}"
        if find_spec("implicit") is None:
            reasons["ALS"] = "implicit is not installed (extra als)"
        return reasons

    @cached_property
    def _histories(self) -> Histories:
        """Positive events of the training part by user and time."""
        return histories_of([self.log], self.train.user_ids, ItemIndex(self.train.item_ids))

    @property
    def _items(self) -> int:
        return len(self.train.item_ids)

    def _best(self, candidates: Iterable[HistoryScorer]) -> Scorer:
        """The candidate with the best GAUC on validation."""
        best, top = None, -1.0
        for candidate in candidates:
            scorer = partial(history_scores, candidate)
            valid = self.valid
            reached = gauc(valid.users, valid.labels, scorer(valid)) if len(valid) else None
            if best is None or (reached or 0.0) > top:
                best, top = scorer, reached or 0.0
        assert best is not None  # noqa: S101 - there is a candidate
        return best

    def _sequential_knn(self) -> Scorer:
        table = sequential_knn(self._histories, self._items)
        return self._best(type(table)(table.table, decay) for decay in DECAYS)

    def _ease(self) -> Scorer:
        return self._best(
            Ease.of(self._histories, self._items, regularization=amount) for amount in REGULARIZATIONS
        )

    def _als(self) -> Scorer:
        return self._best(self._factors(dim) for dim in ALS_DIMS)

    def _factors(self, dim: int) -> "FoldedFactors":
        settings = User2ItemConfig(model="als", dim=dim, epochs=ALS_EPOCHS)
        histories = self._histories
        factors = factorized(settings, histories.owners(), histories.items, seed=self.seed)
        vectors = np.zeros((self._items, factors.shape[1]), np.float32)
        vectors[: len(factors)] = factors
        vectors[histories.counts(self._items) == 0] = 0.0
        return fold_in(vectors)

    def _likeness(self) -> Scorer:
        raw = self.raw()
        return partial(likeness, raw, kind=best_likeness(raw, self.valid))

    def _content_knn(self) -> Scorer:
        vectors = self.raw().rows(self.train.item_ids)
        return self._best(ContentKnn.of(vectors, decay=decay) for decay in DECAYS)


@dataclass(frozen=True)
class LikeRate:
    """Share of an item's training events with label 1, smoothed by a prior: (likes + a) / (events + a + b).

    likes, events: int64 [items]; prior: a and b of the Beta distribution.
    """

    likes: Ints
    events: Ints
    prior: tuple[float, float]

    @classmethod
    def of(cls, train: Examples) -> "LikeRate":
        """Counts of a labelled training part, with the prior of empirical Bayes."""
        items = len(train.item_ids)
        events = np.bincount(train.items, minlength=items)
        likes = np.bincount(train.items[train.labels == 1], minlength=items)
        return cls(likes, events, like_rate_prior(likes, events))

    def __call__(self, rows: Examples) -> Scores:
        """Rates of the rows' items, float32 [n]."""
        a, b = self.prior
        rates = (self.likes + a) / (self.events + a + b)
        return rates[rows.items].astype(np.float32)


def like_rate_prior(likes: Ints, events: Ints) -> tuple[float, float]:
    """Beta prior of empirical Bayes: a and b with the largest beta-binomial likelihood of the counts."""
    counted = events > 0
    k, n = likes[counted].astype(np.float64), events[counted].astype(np.float64)

    def loss(logs: npt.NDArray[np.float64]) -> float:
        a, b = np.exp(logs)
        return -float(np.sum(betaln(k + a, n - k + b) - betaln(a, b))) / len(k)

    share = float(np.clip(k.sum() / n.sum(), 1e-3, 1 - 1e-3))
    start = np.log([10 * share, 10 * (1 - share)])
    found = minimize(loss, start, method="L-BFGS-B", bounds=[(-7.0, 12.0)] * 2).x
    return float(np.exp(found[0])), float(np.exp(found[1]))


@dataclass(frozen=True)
class FoldedFactors:
    """Item factors, and the map from the sum of a history's factors to those of its user."""

    vectors: Scores
    fold: Scores

    def scores(self, histories: Histories) -> Scores:
        """Products of user and item factors, float32 [users, items]."""
        sums = histories.distinct().matrix(len(self.vectors)) @ self.vectors
        products: Scores = sums @ self.fold @ self.vectors.T
        return products


def fold_in(vectors: Scores, *, regularization: float = ALS_REGULARIZATION) -> FoldedFactors:
    """Users of ALS from their histories: the half step of Hu, Koren and Volinsky (ICDM 2008).

    A user's factors are (Y'Y + regularization I)^-1 Y'p, p the clicks. With `implicit`'s weight of 1 for a
    click the matrix is the same for all users.
    """
    gram = vectors.T.astype(np.float64) @ vectors
    inverse = np.linalg.inv(gram + regularization * np.eye(vectors.shape[1]))
    return FoldedFactors(vectors, inverse.astype(np.float32))


def history_scores(retriever: HistoryScorer, examples: Examples) -> Scores:
    """Scores of rows by their histories, float32 [n]; an empty history scores what the retriever gives it."""
    edges = examples.groups()
    first, scores = edges[:-1], np.zeros(len(examples), np.float32)
    for begin in range(0, len(first), AT_ONCE):
        some = first[begin : begin + AT_ONCE]
        lists: Sequence[npt.NDArray[np.int32]] = [
            examples.history[examples.start[row] : examples.end[row]] for row in some
        ]
        found = retriever.scores(Histories.of(lists))
        rows = np.arange(some[0], edges[begin + len(some)])
        owner = np.repeat(np.arange(len(some)), np.diff(edges[begin : begin + len(some) + 1]))
        scores[rows] = found[owner, examples.items[rows]]
    return scores
