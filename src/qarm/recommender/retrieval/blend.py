"""Blend of retrievers: weighted sum of scores that are standardised over the catalogue for each user."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from qarm.recommender.retrieval.histories import Histories

__all__ = ["Blend", "DenseRetriever", "Retriever", "SparseRetriever"]

Scores = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


class Retriever(Protocol):
    """Scores of the whole catalogue for users' histories."""

    def scores(self, histories: Histories) -> Scores:
        """Scores float32 [users, items], higher is likelier."""

    def support(self, history: npt.NDArray[np.int32], item: int) -> Scores:
        """How much each event of a history speaks for an item, float32 [events]."""


@runtime_checkable
class DenseRetriever(Protocol):
    """Retriever whose score is the scalar product of a query and an item's vector."""

    @property
    def candidates(self) -> Scores:
        """Vectors of all items, float32 [items, d]."""

    def queries(self, histories: Histories) -> Scores:
        """Query vectors, float32 [users, d]."""

    def support(self, history: npt.NDArray[np.int32], item: int) -> Scores:
        """How much each event of a history speaks for an item, float32 [events]."""


@runtime_checkable
class SparseRetriever(Protocol):
    """Retriever that scores few items of the catalogue; the others have 0."""

    def sparse_scores(self, histories: Histories) -> csr_matrix:
        """Scores, sparse float32 [users, items]."""

    def support(self, history: npt.NDArray[np.int32], item: int) -> Scores:
        """How much each event of a history speaks for an item, float32 [events]."""


@dataclass(frozen=True)
class _Moments:
    """Mean [d] and covariance [d, d] of a dense retriever's item vectors."""

    mean: Floats
    covariance: Floats

    @classmethod
    def of(cls, vectors: Scores) -> "_Moments":
        mean = vectors.mean(axis=0, dtype=np.float64)
        second = (vectors.T @ vectors).astype(np.float64) / len(vectors)
        return cls(mean, second - np.outer(mean, mean))

    def of_scores(self, queries: Scores) -> tuple[Floats, Floats]:
        """Mean and deviation over the catalogue of each query's scores, without computing them."""
        exact = queries.astype(np.float64)
        variance = np.einsum("ud,de,ue->u", exact, self.covariance, exact, optimize=True)
        return exact @ self.mean, np.sqrt(np.maximum(variance, 0.0))


@dataclass(frozen=True)
class Blend:
    """Weighted sum of retrievers' scores, each with mean 0 and deviation 1 over the catalogue for each user.

    For dense parts mean and deviation follow from the covariance of the items' vectors, so that all of them
    together cost one matrix product.

    parts: retrievers by name; weights: of the same names; cold: bool [items], items without training events;
    intercept: added to the scores of cold items.
    """

    parts: Mapping[str, DenseRetriever | SparseRetriever]
    weights: Mapping[str, float]
    cold: npt.NDArray[np.bool_]
    intercept: float = 0.0
    _moments: dict[str, _Moments] = field(default_factory=dict)
    _stacked: list[Scores] = field(default_factory=list)

    @property
    def items(self) -> int:
        """Size of the catalogue."""
        return len(self.cold)

    @property
    def active(self) -> dict[str, float]:
        """Weights other than 0."""
        return {name: weight for name, weight in self.weights.items() if weight}

    @property
    def candidates(self) -> Scores:
        """Vectors of the dense parts side by side, and whether the item is cold, float32 [items, d + 1]."""
        if not self._stacked:
            active = [self.parts[name] for name in self.active]
            dense = [part.candidates for part in active if isinstance(part, DenseRetriever)]
            self._stacked.append(np.hstack([*dense, self.cold[:, None].astype(np.float32)]))
        return self._stacked[0]

    def queries(self, histories: Histories) -> Scores:
        """Weighted queries of the dense parts side by side, and the intercept, float32 [users, d + 1]."""
        columns = []
        for name, weight in self.active.items():
            part = self.parts[name]
            if isinstance(part, DenseRetriever):
                queries = part.queries(histories)
                _, deviation = self._moments_of(name, part).of_scores(queries)
                columns.append(queries * _scale(weight, deviation)[:, None])
        return np.hstack([*columns, np.full((len(histories), 1), self.intercept, np.float32)])

    def sparse_scores(self, histories: Histories) -> csr_matrix:
        """Weighted scores of the sparse parts, sparse float32 [users, items]."""
        total = csr_matrix((len(histories), self.items), dtype=np.float32)
        for name, weight in self.active.items():
            part = self.parts[name]
            if not isinstance(part, DenseRetriever):
                scores = part.sparse_scores(histories)
                _, deviation = _row_moments(scores)
                total = total + scores.multiply(_scale(weight, deviation)[:, None]).tocsr()
        return total

    def scores(self, histories: Histories) -> Scores:
        """Sums over the parts up to a constant for each user, float32 [users, items]."""
        scores: Scores = self.queries(histories) @ self.candidates.T
        sparse = self.sparse_scores(histories).tocoo()
        scores[sparse.row, sparse.col] += sparse.data
        return scores

    def exact_scores(self, histories: Histories, items: npt.NDArray[np.int64]) -> Floats:
        """Scores of some items, float64 [users, k], the same to the bit in any batch; items: [users, k].

        A matrix product's last bits depend on the row: `scores` of a batch and of one user may differ.
        """
        queries = self.queries(histories).astype(np.float64)
        dense = (queries[:, None] * self.candidates[items]).sum(axis=2)
        rows = np.repeat(np.arange(len(items)), items.shape[1])
        sparse = np.asarray(self.sparse_scores(histories)[rows, items.ravel()], dtype=np.float64)
        exact: Floats = dense + sparse.reshape(items.shape) - self.centre(histories)[:, None]
        return exact

    def standardised(self, name: str, histories: Histories, items: npt.NDArray[np.int64]) -> Floats:
        """One part's scores of some items for each user, with mean 0 and deviation 1; items: [users, k]."""
        part = self.parts[name]
        if isinstance(part, DenseRetriever):
            queries = part.queries(histories)
            mean, deviation = self._moments_of(name, part).of_scores(queries)
            picked = np.einsum("ud,ukd->uk", queries, part.candidates[items]).astype(np.float64)
        else:
            scores = part.sparse_scores(histories)
            mean, deviation = _row_moments(scores)
            rows = np.repeat(np.arange(len(items)), items.shape[1])
            picked = np.asarray(scores[rows, items.ravel()]).reshape(items.shape).astype(np.float64)
        centred: Floats = (picked - mean[:, None]) * _scale(1.0, deviation)[:, None]
        return centred

    def contributions(self, histories: Histories, items: npt.NDArray[np.int64]) -> dict[str, Floats]:
        """What each part adds to the scores of some items, float64 [users, k]; items: [users, k]."""
        return {
            name: weight * self.standardised(name, histories, items) for name, weight in self.active.items()
        }

    def centre(self, histories: Histories) -> Floats:
        """What `scores` leaves out: the mean over the catalogue of each user's scores, float64 [users]."""
        total = np.zeros(len(histories))
        for name, weight in self.active.items():
            part = self.parts[name]
            if isinstance(part, DenseRetriever):
                mean, deviation = self._moments_of(name, part).of_scores(part.queries(histories))
            else:
                scores = part.sparse_scores(histories)
                mean, deviation = _row_moments(scores)
            total += mean * _scale(weight, deviation)
        return total

    def _moments_of(self, name: str, part: DenseRetriever) -> _Moments:
        if name not in self._moments:
            self._moments[name] = _Moments.of(part.candidates)
        return self._moments[name]


def _row_moments(scores: csr_matrix) -> tuple[Floats, Floats]:
    """Mean and deviation over the catalogue of each row's scores, zeros included."""
    items = scores.shape[1]
    mean: Floats = np.asarray(scores.sum(axis=1), dtype=np.float64).ravel() / items
    square = np.asarray(scores.multiply(scores).sum(axis=1), dtype=np.float64).ravel() / items
    deviation: Floats = np.sqrt(np.maximum(square - mean**2, 0.0))
    return mean, deviation


def _scale(weight: float, deviation: Floats) -> Scores:
    """Weight / deviation; 0 where all scores are equal."""
    scale: Scores = np.where(deviation > 1e-9, weight / np.maximum(deviation, 1e-9), 0.0).astype(np.float32)
    return scale
