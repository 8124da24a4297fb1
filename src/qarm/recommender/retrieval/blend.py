"""Blend of retrievers: weighted sum of scores that are standardised over the catalogue for each user."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from qarm.recommender.retrieval.histories import Histories

__all__ = ["Blend", "BlendScores", "DenseRetriever", "Moments", "Retriever", "SparseRetriever"]

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
class Moments:
    """Mean [d] and covariance [d, d] of a dense retriever's item vectors."""

    mean: Floats
    covariance: Floats

    @classmethod
    def of(cls, vectors: Scores) -> "Moments":
        """Moments of vectors float32 [items, d]."""
        mean = vectors.mean(axis=0, dtype=np.float64)
        second = (vectors.T @ vectors).astype(np.float64) / len(vectors)
        return cls(mean, second - np.outer(mean, mean))

    def of_scores(self, queries: Scores) -> tuple[Floats, Floats]:
        """Mean and deviation over the catalogue of each query's scores, without computing them."""
        exact = queries.astype(np.float64)
        variance = np.einsum("ud,de,ue->u", exact, self.covariance, exact, optimize=True)
        return (exact * self.mean).sum(axis=1), np.sqrt(np.maximum(variance, 0.0))


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
    _moments: dict[str, Moments] = field(default_factory=dict)
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

    def read(self, histories: Histories) -> "BlendScores":
        """Scores of a block of histories, each part's queries computed once."""
        parts = {name: self._read(name, histories) for name in self.active}
        return BlendScores(self, len(histories), parts)

    def scores(self, histories: Histories) -> Scores:
        """Sums over the parts up to a constant for each user, float32 [users, items]."""
        return self.read(histories).catalogue()

    def _read(self, name: str, histories: Histories) -> "PartScores":
        part, weight = self.parts[name], self.weights[name]
        if isinstance(part, DenseRetriever):
            queries = part.queries(histories)
            moments = self.moments_of(name, part).of_scores(queries)
            return DenseScores(weight, *moments, queries, part.candidates)
        table = part.sparse_scores(histories)
        return SparseScores(weight, *_row_moments(table), table)

    def moments_of(self, name: str, part: DenseRetriever) -> Moments:
        """Moments of a dense part's item vectors, computed once."""
        if name not in self._moments:
            self._moments[name] = Moments.of(part.candidates)
        return self._moments[name]


@dataclass(frozen=True)
class PartScores:
    """One part's scores of users, as a blend adds them: weight * (score - mean) / deviation.

    mean, deviation: of each user's scores over the catalogue, float64 [users].
    """

    weight: float
    mean: Floats
    deviation: Floats

    @property
    def scale(self) -> Scores:
        """Weight / deviation of each user, float32 [users]; 0 where all scores are equal."""
        scale = np.where(self.deviation > 1e-9, self.weight / np.maximum(self.deviation, 1e-9), 0.0)
        return scale.astype(np.float32)

    def picked(self, items: npt.NDArray[np.int64]) -> Floats:
        """The part's own scores of some items, float64 [users, k]; items: [users, k]."""
        raise NotImplementedError

    def contribution(self, items: npt.NDArray[np.int64]) -> Floats:
        """What the part adds to the blend's scores of some items, float64 [users, k]; items: [users, k]."""
        added: Floats = (self.picked(items) - self.mean[:, None]) * self.scale[:, None]
        return added


@dataclass(frozen=True)
class DenseScores(PartScores):
    """Scores of a dense part; queries: float32 [users, d], candidates: float32 [items, d]."""

    queries: Scores
    candidates: Scores

    def picked(self, items: npt.NDArray[np.int64]) -> Floats:
        """Scalar products without a matrix product, whose last bits depend on the row."""
        sums: Floats = (self.queries[:, None].astype(np.float64) * self.candidates[items]).sum(axis=2)
        return sums


@dataclass(frozen=True)
class SparseScores(PartScores):
    """Scores of a sparse part; table: float32 [users, items]."""

    table: csr_matrix

    def picked(self, items: npt.NDArray[np.int64]) -> Floats:
        """Entries of the table."""
        rows = np.repeat(np.arange(len(items)), items.shape[1])
        return np.asarray(self.table[rows, items.ravel()], dtype=np.float64).reshape(items.shape)


@dataclass(frozen=True)
class BlendScores:
    """Scores of users by a blend; parts: of each retriever that has a weight, by name."""

    blend: Blend
    users: int
    parts: Mapping[str, PartScores]

    def catalogue(self) -> Scores:
        """Sums over the parts up to a constant for each user, float32 [users, items].

        A matrix product's last bits depend on the row: those of a batch and of one user may differ.
        """
        scores: Scores = self.queries() @ self.blend.candidates.T
        table = self.sparse().tocoo()
        scores[table.row, table.col] += table.data
        return scores

    def queries(self) -> Scores:
        """Weighted queries of the dense parts side by side, and the intercept, float32 [users, d + 1]."""
        parts = [part for part in self.parts.values() if isinstance(part, DenseScores)]
        cold = np.full((self.users, 1), self.blend.intercept, np.float32)
        return np.hstack([*(part.queries * part.scale[:, None] for part in parts), cold])

    def sparse(self) -> csr_matrix:
        """Weighted scores of the sparse parts, sparse float32 [users, items]."""
        total = csr_matrix((self.users, self.blend.items), dtype=np.float32)
        for part in self.parts.values():
            if isinstance(part, SparseScores):
                total = total + part.table.multiply(part.scale[:, None]).tocsr()
        return total

    def contributions(self, items: npt.NDArray[np.int64]) -> dict[str, Floats]:
        """What each part adds to the scores of some items, float64 [users, k]; items: [users, k]."""
        return {name: part.contribution(items) for name, part in self.parts.items()}

    def total(self, items: npt.NDArray[np.int64], contributions: Mapping[str, Floats]) -> Floats:
        """Sum of the contributions of some items, float64 [users, k], the same to the bit in any batch."""
        total: Floats = np.asarray(self.blend.intercept * self.blend.cold[items], dtype=np.float64)
        for contribution in contributions.values():
            total = total + contribution
        return total


def _row_moments(scores: csr_matrix) -> tuple[Floats, Floats]:
    """Mean and deviation over the catalogue of each row's scores, zeros included."""
    items = scores.shape[1]
    mean: Floats = np.asarray(scores.sum(axis=1), dtype=np.float64).ravel() / items
    square = np.asarray(scores.multiply(scores).sum(axis=1), dtype=np.float64).ravel() / items
    deviation: Floats = np.sqrt(np.maximum(square - mean**2, 0.0))
    return mean, deviation
