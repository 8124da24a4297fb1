"""Retrievers that count: popularity, item-kNN, sequential kNN, EASE; and content-kNN on item vectors."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_matrix

from qarm.recommender.retrieval.cooccurrence import cooccurrence_neighbours
from qarm.recommender.retrieval.histories import Histories

__all__ = ["ContentKnn", "Ease", "NeighbourTable", "Popularity", "item_knn", "sequential_knn"]

Scores = npt.NDArray[np.float32]
NEIGHBOURS = 500  # kept of an item
WINDOW = 50  # steps between two events that count as co-occurrence
LONGEST = 1000  # the same, for item-kNN, which counts users


@dataclass(frozen=True)
class Popularity:
    """Logarithm of 1 + an item's events, the same for every user; counts: int64 [items]."""

    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, histories: Histories, items: int) -> "Popularity":
        """Popularity by the events of some histories."""
        return cls(histories.counts(items))

    @cached_property
    def candidates(self) -> Scores:
        """Logarithms, float32 [items, 1]."""
        return np.log1p(self.counts).astype(np.float32)[:, None]

    def queries(self, histories: Histories) -> Scores:
        """Ones, float32 [users, 1]."""
        return np.ones((len(histories), 1), np.float32)

    def scores(self, histories: Histories) -> Scores:
        """Logarithms repeated for every user, float32 [users, items]."""
        return np.tile(self.candidates.T, (len(histories), 1))

    def support(self, history: npt.NDArray[np.int32], item: int) -> Scores:
        """Zeros: no event of the history speaks for an item."""
        return np.zeros(len(history), np.float32)


@dataclass(frozen=True)
class NeighbourTable:
    """Item neighbours: a user's score of an item is the sum of table[j, item] * decay ** age of her events j.

    table: sparse float32 [items, items], row: item of the history, column: item to recommend.
    """

    table: csr_matrix
    decay: float = 1.0

    def sparse_scores(self, histories: Histories) -> csr_matrix:
        """Sums over each history, sparse float32 [users, items]."""
        return histories.matrix(self.table.shape[0], decay=self.decay) @ self.table

    def scores(self, histories: Histories) -> Scores:
        """Sums over each history, float32 [users, items]."""
        sums: Scores = self.sparse_scores(histories).toarray()
        return sums

    def support(self, history: npt.NDArray[np.int32], item: int) -> Scores:
        """Each event's term of the sum, float32 [events]."""
        weights = self.table[history, item].toarray().ravel()
        terms: Scores = weights * _decayed(len(history), self.decay)
        return terms


def item_knn(
    histories: Histories, items: int, *, decay: float = 1.0, neighbours: int = NEIGHBOURS
) -> NeighbourTable:
    """Item-kNN: cosine of the sets of users of two items (Sarwar et al., WWW 2001)."""
    distinct = histories.distinct()  # a user who comes again counts once
    scale = 1 / np.sqrt(np.maximum(distinct.counts(items), 1))
    table = cooccurrence_neighbours(
        distinct,
        items,
        source=scale,
        target=scale,
        window=LONGEST,
        neighbours=neighbours,
        backward=True,
        by_gap=False,
    )
    return NeighbourTable(table, decay)


def sequential_knn(
    histories: Histories,
    items: int,
    *,
    source_power: float = 0.5,
    target_power: float = 0.5,
    decay: float = 0.7,
    window: int = WINDOW,
    neighbours: int = NEIGHBOURS,
) -> NeighbourTable:
    """Sequential kNN: ordered co-occurrence, weighted by 1 / gap (after Ludewig and Jannach, UMUAI 2018).

    A pair (i, then j) of one user counts 1 / (number of steps between them); the sum is divided by
    count(i) ** source_power and by count(j) ** target_power.

    Args:
        histories: the training part. items: size of the catalogue. decay: of a history's events by age.
        window: most steps between the two. neighbours: kept per item.
    """
    counts = np.maximum(histories.counts(items), 1).astype(np.float64)
    table = cooccurrence_neighbours(
        histories,
        items,
        source=counts**-source_power,
        target=counts**-target_power,
        window=window,
        neighbours=neighbours,
    )
    return NeighbourTable(table, decay)


@dataclass(frozen=True)
class ContentKnn:
    """Content-kNN: cosine of an item's vector and the decayed mean of the history's.

    candidates: float32 [items, d], rows of length 1.
    """

    candidates: Scores
    decay: float = 0.8

    @classmethod
    def of(cls, vectors: npt.NDArray[np.floating[Any]], *, decay: float = 0.8) -> "ContentKnn":
        """Content-kNN of vectors [items, d] of any length; a vector of zeros is near to nothing."""
        return cls(_unit(vectors), decay)

    def with_items(self, vectors: npt.NDArray[np.floating[Any]]) -> "ContentKnn":
        """The same with the vectors [n, d] of new items behind the others."""
        return replace(self, candidates=np.concatenate([self.candidates, _unit(vectors)]))

    def queries(self, histories: Histories) -> Scores:
        """Means of the histories' vectors, of length 1, float32 [users, d]; zero for an empty history."""
        return _unit(histories.matrix(len(self.candidates), decay=self.decay) @ self.candidates)

    def scores(self, histories: Histories) -> Scores:
        """Cosines, float32 [users, items]."""
        cosines: Scores = self.queries(histories) @ self.candidates.T
        return cosines

    def support(self, history: npt.NDArray[np.int32], item: int) -> Scores:
        """Each event's cosine with the item, decayed by age, float32 [events]."""
        cosines = self.candidates[history] @ self.candidates[item]
        terms: Scores = cosines * _decayed(len(history), self.decay)
        return terms


@dataclass(frozen=True)
class Ease:
    """EASE: a linear autoencoder of the users' sets of items (Steck, WWW 2019); weights [items, items]."""

    weights: Scores

    @classmethod
    def of(cls, histories: Histories, items: int, *, regularization: float = 300.0) -> "Ease":
        """Closed form: B = -P / diag(P), P = inverse(X'X + regularization I); cubic in the items."""
        clicks = histories.distinct().matrix(items)
        gram = (clicks.T @ clicks).toarray().astype(np.float64)
        gram[np.diag_indices(items)] += regularization
        inverse = cho_solve(cho_factor(gram, overwrite_a=True), np.eye(items), overwrite_b=True)
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        return cls(weights.astype(np.float32))

    def scores(self, histories: Histories) -> Scores:
        """Sums of weights over each history, float32 [users, items]."""
        sums: Scores = histories.distinct().matrix(len(self.weights)) @ self.weights
        return sums

    def support(self, history: npt.NDArray[np.int32], item: int) -> Scores:
        """Each event's weight for the item, float32 [events]."""
        weights: Scores = self.weights[history, item]
        return weights


def _unit(vectors: npt.NDArray[np.floating[Any]]) -> Scores:
    unit: Scores = (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(
        np.float32
    )
    return unit


def _decayed(events: int, decay: float) -> Scores:
    """Weights decay ** age of a history's events, oldest first."""
    return (decay ** np.arange(events - 1, -1, -1)).astype(np.float32)
