"""Recommender: lists of items for users or histories, and items similar to one, from a run's retriever."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.item_index import ItemIndex
from qarm.core.paths import as_path
from qarm.core.text_tables import html_table
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError
from qarm.quantizer.versions.archive import appended
from qarm.recommender.retrieval.blend import Blend, BlendScores, DenseRetriever
from qarm.recommender.retrieval.candidate_index import INDEXED, CandidateIndex
from qarm.recommender.retrieval.evaluation import first_items, first_reachable
from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.new_items import check_codes, with_new_items
from qarm.recommender.retrieval.storage import StoredRetriever, read_retriever

__all__ = ["Recommendation", "Recommendations", "Recommender"]

POPULAR = "popular of late"
SPARE = 10  # items beyond a list that are scored exactly too
SCHEMA = {
    "user_id": pl.String,
    "rank": pl.Int32,
    "item_id": pl.String,
    "score": pl.Float32,
    "why": pl.String,
    "because": pl.String,
}


@dataclass(frozen=True)
class Recommendation:
    """An item of a list: rank from 1, score, the retriever that gave most, and the history's item behind it.

    score: standard deviations above the catalogue's mean, of the blend. because: None where no item of the
    history speaks for it, as in the list of popular items.
    """

    rank: int
    item_id: str
    score: float
    why: str
    because: str | None


@dataclass(frozen=True, repr=False)
class Recommendations:
    """List of items for one user; user_id: None for a history; unknown: events on items that are unknown.

    popular: whether it is the list of popular items, for want of any history.
    """

    user_id: str | None
    items: list[Recommendation]
    unknown: int = 0
    popular: bool = False

    @property
    def notes(self) -> list[str]:
        """What a reader has to know of the list, in words; nothing where it is as asked for."""
        unknown = "no known item in the history" if self.user_id is None else "unknown user"
        notes = [f"{unknown}: popular items of late"] if self.popular else []
        return notes + ([f"{self.unknown} unknown items of the history left out"] if self.unknown else [])

    def __repr__(self) -> str:
        whom = "a history" if self.user_id is None else f"user {self.user_id!r}"
        named = ", ".join(item.item_id for item in self.items[:3])
        more = ", ..." if len(self.items) > 3 else ""
        return f"Recommendations({len(self.items):,} items for {whom}: {named}{more})"

    def _repr_html_(self) -> str:
        rows = [(item.rank, item.item_id, f"{item.score:.3f}", item.why, item.because) for item in self.items]
        return html_table(repr(self), ["rank", "item_id", "score", "why", "because"], rows)


class Recommender:
    """Recommendations from a blend of retrievers over the whole catalogue.

    Args:
        stored: the retrievers, the items and the users' histories of a run.
    """

    def __init__(self, stored: StoredRetriever) -> None:
        self.blend: Blend = stored.blend
        self.item_ids = list(stored.item_ids)
        self.index = ItemIndex(self.item_ids)
        self.users = ItemIndex(stored.user_ids)
        self.histories = stored.histories
        self.recent = stored.recent
        self.popular = np.argsort(-self.recent, kind="stable")
        large = len(self.item_ids) >= INDEXED
        self.candidates = CandidateIndex.of(self.blend, self.histories) if large else None

    @classmethod
    def from_run(cls, folder: Path | str) -> "Recommender":
        """Recommender of a run; items that were appended to its codes since are recommended by their codes.

        Raises:
            ArtifactError: the run has no finished retriever, or a damaged one.
        """
        folder = as_path(folder)
        recommender, codes = cls(read_retriever(folder / "retriever")), folder / "codes"
        if not (codes / "codes.parquet").is_file():
            return recommender
        return recommender.with_codes(Codes.read(codes / "codes.parquet"), appended(codes))

    def __repr__(self) -> str:
        weights = ", ".join(f"{name} {weight:g}" for name, weight in self.blend.active.items())
        return f"Recommender({len(self.item_ids):,} items, {len(self.users):,} users, {weights})"

    def with_codes(self, codes: Codes, vectors: Embeddings | None = None) -> "Recommender":
        """The same with the coded items that it does not know yet, at the end of the catalogue.

        Args:
            codes: of any items. vectors: aligned ones of the new items, for content-kNN.

        Raises:
            ArtifactError: the retriever was trained on other codes.
            InputError: codes or vectors of other sizes than the retriever reads.
        """
        check_codes(self.blend, self.item_ids, codes)
        new = [row for row, item in enumerate(codes.item_ids) if item not in self.index]
        if not new:
            return self
        wide = copy(self)
        wide.blend = with_new_items(self.blend, codes, new, vectors)
        wide.item_ids = self.item_ids + [codes.item_ids[row] for row in new]
        wide.index = ItemIndex(wide.item_ids)
        wide.recent = np.concatenate([self.recent, np.zeros(len(new), np.int64)])
        wide.popular = np.argsort(-wide.recent, kind="stable")
        return wide

    # ---- lists ----------------------------------------------------------------------------------

    def recommend(
        self,
        users: str | Sequence[str] | None = None,
        *,
        histories: Sequence[Sequence[str]] | None = None,
        k: int = 10,
        only: Iterable[str] | None = None,
        without: Iterable[str] | None = None,
        repeat: bool = False,
    ) -> list[Recommendations]:
        """The best k items for each user or history, fewer where fewer are left; in any batch the same.

        A user or history without a known item gets the list of popular items, and `popular` says so.

        Args:
            users: ids, one or many; an unknown one has no history. histories: item ids, oldest first, in
                place of users; unknown items are left out and counted.
            k: length of a list. only, without: items that may or may not be recommended.
            repeat: whether items of the history may be recommended.

        Raises:
            InputError: users and histories, or neither; k below 1; unknown items in `only` or `without`.
        """
        names, asked, unknown = self._asked(users, histories)
        if k < 1:
            raise InputError(f"got k={k}, need at least 1")
        allowed = self._allowed(only, without)
        result: list[Recommendations] = []
        for rows, block in asked.blocks():
            lists = self._block(block, len(rows), k, allowed, repeat=repeat)
            result += [
                Recommendations(names[row], items, unknown[row], popular=not len(asked[row]))
                for row, items in zip(rows.tolist(), lists, strict=True)
            ]
        return result

    def _asked(
        self, users: str | Sequence[str] | None, histories: Sequence[Sequence[str]] | None
    ) -> tuple[list[str | None], Histories, list[int]]:
        """Names, known histories and numbers of unknown events of who asks."""
        if (users is None) == (histories is None):
            raise InputError("give users or histories, one of the two")
        if histories is not None:
            rows = [self.index.find(list(history)) for history in histories]
            known = Histories.of([row[row >= 0].astype(np.int32) for row in rows])
            return [None] * len(rows), known, [int((row < 0).sum()) for row in rows]
        names = [users] if isinstance(users, str) else list(users or ())
        places = self.users.find(names)
        empty = np.empty(0, np.int32)
        lists = [self.histories[place] if place >= 0 else empty for place in places.tolist()]
        return [*names], Histories.of(lists), [0] * len(names)

    def _allowed(self, only: Iterable[str] | None, without: Iterable[str] | None) -> npt.NDArray[np.bool_]:
        missing = "no item {items} in the catalogue of {count:,}; correct `only` or `without`"
        allowed = np.ones(len(self.item_ids), bool)
        if only is not None:
            allowed[:] = False
            allowed[self.index.rows(list(only), missing=missing)] = True
        allowed[self.index.rows(list(without or ()), missing=missing)] = False
        return allowed

    def _block(
        self, block: Histories, users: int, k: int, allowed: npt.NDArray[np.bool_], *, repeat: bool
    ) -> list[list[Recommendation]]:
        """Lists of a block of histories."""
        read, empty = self.blend.read(block), block.lengths == 0
        found = self._best(read, block, users, min(k + SPARE, len(allowed)), allowed, repeat=repeat)
        best = np.maximum(found, 0)
        parts = read.contributions(best)
        values = np.where(empty[:, None], np.log1p(self.recent[best]), read.total(best, parts))
        values[found < 0] = -np.inf
        order = np.lexsort((best, -values))[:, :k]
        best, values = (np.take_along_axis(part, order, axis=1) for part in (best, values))
        parts = {name: np.take_along_axis(part, order, axis=1) for name, part in parts.items()}
        lists = []
        for user in range(users):
            count = int((values[user] > -np.inf).sum())
            reasons = [
                (POPULAR, None)
                if empty[user]
                else self._reason(parts, block[user], user, place, int(best[user, place]))
                for place in range(count)
            ]
            lists.append(
                [
                    Recommendation(
                        place + 1, self.item_ids[best[user, place]], float(values[user, place]), *reason
                    )
                    for place, reason in enumerate(reasons)
                ]
            )
        return lists

    def _best(
        self,
        read: BlendScores,
        block: Histories,
        users: int,
        count: int,
        allowed: npt.NDArray[np.bool_],
        *,
        repeat: bool,
    ) -> npt.NDArray[np.int64]:
        """Rows of the best items of each history, or of the popular ones, -1 beyond them, [users, count]."""
        best = np.full((len(block), count), -1, np.int64)
        masked = Histories.of([[]] * len(block)) if repeat else block
        if self.candidates is not None:
            best[:users] = self.candidates.best(read, users, count, allowed, masked)
        else:
            scores = read.catalogue()[:users]
            scores[:, ~allowed] = -np.inf
            scores[masked.owners(), masked.items] = -np.inf
            best[:users] = first_reachable(scores, count)
        for user in np.flatnonzero(block.lengths[:users] == 0):
            popular = self.popular[allowed[self.popular]][:count]
            best[user] = -1
            best[user, : len(popular)] = popular
        return best

    def _reason(
        self,
        parts: Mapping[str, npt.NDArray[np.float64]],
        history: npt.NDArray[np.int32],
        user: int,
        place: int,
        item: int,
    ) -> tuple[str, str | None]:
        """The part that gave the item most, and the history's item that spoke most for it there."""
        name = max(parts, key=lambda part: float(parts[part][user, place]))
        support = self.blend.parts[name].support(history, item)
        if not support.any():
            return name, None
        return name, self.item_ids[history[int(np.argmax(support))]]

    # ---- similarity -----------------------------------------------------------------------------

    def similar_items(self, item_id: str, k: int = 10) -> list[tuple[str, float]]:
        """The k items whose model vectors have the highest cosine with an item's, best first.

        Raises:
            InputError: the item is unknown, or k below 1.
        """
        row = int(self.index.rows([item_id])[0])
        return self._nearest(self._vectors(), row, k, self.item_ids)

    def similar_users(self, user_id: str, k: int = 10) -> list[tuple[str, float]]:
        """The k users whose query vectors have the highest cosine with a user's, best first.

        Raises:
            InputError: the user is unknown, or k below 1.
        """
        row = int(
            self.users.rows([user_id], missing="no user {items}; give ids of the {count:,} known users")[0]
        )
        part = self._dense()
        queries = np.concatenate([part.queries(block) for _, block in self.histories.blocks()])
        return self._nearest(_unit(queries[: len(self.users)]), row, k, list(self.users))

    def _vectors(self) -> npt.NDArray[np.float32]:
        return _unit(self._dense().candidates)

    def _dense(self) -> DenseRetriever:
        """The part whose vectors say what is similar: the model, or content-kNN where there is none."""
        for name in ("model", "content-knn"):
            if isinstance(part := self.blend.parts.get(name), DenseRetriever):
                return part
        raise InputError("the blend has neither the model nor content-knn; add one to retriever.blend")

    @staticmethod
    def _nearest(
        unit: npt.NDArray[np.float32], row: int, k: int, ids: Sequence[str]
    ) -> list[tuple[str, float]]:
        if k < 1:
            raise InputError(f"got k={k}, need at least 1")
        cosines = unit @ unit[row]
        cosines[row] = -np.inf
        best = first_items(cosines[None], min(k, len(ids) - 1))[0] if len(ids) > 1 else []
        return [(ids[other], float(cosines[other])) for other in best]


def recommendations_frame(lists: Sequence[Recommendations]) -> pl.DataFrame:
    """Rows user_id, rank, item_id, score, why and because of all lists."""
    rows = [
        (each.user_id, item.rank, item.item_id, item.score, item.why, item.because)
        for each in lists
        for item in each.items
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12
    )
    return unit
