"""Recommendation requests: checks, the store's new items, the recommender's queue."""

from collections.abc import Sequence
from functools import partial

from qarm.errors import InputError
from qarm.recommender.retrieval.recommender import Recommendations, Recommender
from qarm.serving.bundle_manager import LoadedBundle
from qarm.serving.code_store import NewCode
from qarm.serving.http.problems import Problem
from qarm.serving.http.schemas import (
    RecommendAnswer,
    Recommended,
    RecommendRequest,
    SimilarAnswer,
    SimilarItem,
)
from qarm.serving.http.work_queue import WorkQueue
from qarm.serving.limits import Limits
from qarm.serving.scoring import stored_codes, stored_vectors
from qarm.serving.store_queue import StoreQueue

__all__ = ["RecommenderQueue"]


class RecommenderQueue:
    """Requests wait for the recommender's one thread; it knows the bundle's items and those of the store."""

    def __init__(self, store: StoreQueue, limits: Limits) -> None:
        self._store, self._limits = store, limits
        self._queue = WorkQueue("recommender")
        self._state: tuple[str, int] | None = None
        self._extended: Recommender | None = None

    def close(self) -> None:
        """End of the thread, after what has begun."""
        self._queue.close()

    async def recommend(self, current: LoadedBundle, request: RecommendRequest) -> RecommendAnswer:
        """A list for a user or a history.

        Raises:
            Problem: 404, the bundle has no retriever; 409, it has no histories; 422, lists too long, or
                unknown items in `only` or `without`; 503, too many wait.
        """
        recommender = await self._recommender(current)
        self._check(current, request)
        call = partial(
            recommender.recommend,
            request.user,
            histories=None if request.history is None else [request.history],
            k=request.k,
            only=request.only,
            without=request.without,
            repeat=not request.exclude_seen,
        )
        try:
            (found,) = await self._queue.run(call)
        except InputError as error:
            raise Problem(422, "unknown-items", str(error)) from None
        return _answer(current.bundle.version, found)

    async def similar(self, current: LoadedBundle, item_id: str, count: int) -> SimilarAnswer:
        """The items whose vectors are nearest to an item's.

        Raises:
            Problem: 404, no retriever or no such item; 409, a retriever without vectors; 503, too many wait.
        """
        recommender = await self._recommender(current)
        if item_id not in recommender.index:
            raise Problem(
                404,
                "no-such-item",
                f"got item {item_id[:100]!r}, which is neither published nor stored for this bundle",
            )
        try:
            found = await self._queue.run(partial(recommender.similar_items, item_id, count))
        except InputError as error:
            raise Problem(409, "no-item-vectors", str(error)) from None
        items = [SimilarItem(item_id=other, cosine=cosine) for other, cosine in found]
        return SimilarAnswer(bundle=current.bundle.version, item_id=item_id, items=items)

    def _check(self, current: LoadedBundle, request: RecommendRequest) -> None:
        if request.user is not None and current.bundle.users is None:
            raise Problem(
                409,
                "no-histories",
                "this bundle holds no users' histories; send `history` in place of `user`, or export one "
                "without --no-histories",
            )
        lengths = {
            "k": (request.k, self._limits.page),
            "history": (len(request.history or ()), self._limits.history),
        }
        for name, (length, most) in lengths.items():
            if length > most:
                raise Problem(422, "too-many-items", f"got {name} {length:,}, need at most {most:,}")

    async def _recommender(self, current: LoadedBundle) -> Recommender:
        """The bundle's recommender with the items that the store holds for the bundle now."""
        published = current.bundle.recommender
        if published is None:
            raise Problem(
                404,
                "no-retriever",
                "this bundle cannot recommend; run qarm retrieve, then qarm export of this version",
            )
        state = (current.bundle.version, await self._store.state())
        if self._extended is None or self._state != state:
            rows = await self._store.of_bundle(current.bundle.version)
            self._extended = await self._queue.run(partial(_with_stored, published, rows))
            self._state = state
        return self._extended


def _with_stored(published: Recommender, rows: Sequence[NewCode]) -> Recommender:
    return published.with_codes(stored_codes(rows), stored_vectors(rows)) if rows else published


def _answer(bundle: str, found: Recommendations) -> RecommendAnswer:
    return RecommendAnswer(
        bundle=bundle,
        user=found.user_id,
        items=[
            Recommended(
                rank=item.rank, item_id=item.item_id, score=item.score, why=item.why, because=item.because
            )
            for item in found.items
        ],
        unknown_items=found.unknown,
        popular=found.popular,
        notes=found.notes,
    )
