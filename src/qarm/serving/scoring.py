"""Scoring requests: checks of what the ranker reads, new items' codes from the store, the ranker's queue."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import shown
from qarm.recommender.ranking.item_scorer import ItemScorer
from qarm.serving.bundle_manager import LoadedBundle
from qarm.serving.code_store import NewCode
from qarm.serving.http.problems import Problem
from qarm.serving.http.schemas import RankerAnswer, ScoreAnswer, Scored, ScoreRequest, UserFeature
from qarm.serving.http.work_queue import WorkQueue
from qarm.serving.limits import Limits
from qarm.serving.store_queue import StoreQueue

__all__ = ["RankerQueue", "longest_request", "ranker_answer", "stored_codes", "stored_vectors"]

SHOWN_VALUES = 100  # of a user feature
NO_RANKER = "this bundle has no ranker; export one from a run that has trained it"


class RankerQueue:
    """Requests wait for the ranker's one thread; beyond a number of them they get status 503."""

    def __init__(self, store: StoreQueue, limits: Limits) -> None:
        self._store, self._limits = store, limits
        self._queue = WorkQueue("ranker")

    def close(self) -> None:
        """End of the thread, after what has begun."""
        self._queue.close()

    async def score(self, current: LoadedBundle, request: ScoreRequest) -> ScoreAnswer:
        """The ranker's logits.

        Raises:
            Problem: 404, the bundle has no ranker; 422, items without codes, or what the ranker does not read
                or misses; 503, too many wait.
        """
        scorer = _scorer(current)
        users = _checked(scorer, request, self._limits)
        new = await self._new_items(current, scorer, (*request.candidates, *request.history))
        call = partial(
            scorer.score,
            [request.candidates],
            [request.history],
            label=request.label,
            users=[users] if users else None,
            gaps=None if request.gaps is None else [request.gaps],
        )
        if new:
            call = partial(call, new=stored_codes(new), new_vectors=stored_vectors(new))
        (logits,) = await self._queue.run(call)
        pairs = zip(request.candidates, logits.tolist(), strict=True)
        return ScoreAnswer(
            bundle=current.bundle.version,
            items=[Scored(item_id=i, score=score, cold=scorer.is_cold(i)) for i, score in pairs],
            unknown_user_features=_unknown_features(scorer, users),
        )

    async def _new_items(
        self, current: LoadedBundle, scorer: ItemScorer, item_ids: Sequence[str]
    ) -> list[NewCode]:
        """Stored codes of the items that are not published."""
        asked = scorer.unknown(item_ids)
        if not asked:
            return []
        rows = await self._store.known(asked, current.bundle.version)
        new = [row for row in rows if row is not None]
        missing = [item[:100] for item, row in zip(asked, rows, strict=True) if row is None]
        if missing:
            raise Problem(
                422,
                "unknown-items",
                f"{shown(missing)} are neither published nor stored for this bundle; code them with "
                "POST /v1/codes, or leave them out",
            )
        if scorer.why_not_new is not None:
            late = shown(row.item_id[:100] for row in new)
            raise Problem(
                422, "unknown-items", f"{late} came after training: {scorer.why_not_new}; leave them out"
            )
        return new


def longest_request(current: LoadedBundle, limits: Limits) -> int:
    """Most items of a request to score, with all that the ranker reads of a history."""
    scorer = current.bundle.scorer
    read = 0 if scorer is None else _longest_history(scorer)
    return max(limits.history, read) + limits.candidates


def _longest_history(scorer: ItemScorer) -> int:
    ranker = scorer.ranker
    return max(ranker.shape.history, ranker.long_history if ranker.shape.cross else 0)


def ranker_answer(current: LoadedBundle) -> RankerAnswer:
    """What the bundle's ranker reads of a request.

    Raises:
        Problem: 404, there is none.
    """
    scorer = _scorer(current)
    shape, values = scorer.ranker.shape, scorer.ranker.values
    return RankerAnswer(
        bundle=current.bundle.version,
        variant=scorer.variant,
        items=shape.items,
        new_items=scorer.why_not_new is None,
        history=shape.history,
        long_history=scorer.ranker.long_history if shape.cross else None,
        gaps=shape.time,
        labels=list(shape.labels),
        user_features=[
            UserFeature(name=name, values=known[:SHOWN_VALUES], total=len(known))
            for name, known in values.items()
        ],
    )


def _scorer(current: LoadedBundle) -> ItemScorer:
    if current.bundle.scorer is None:
        raise Problem(404, "no-ranker", NO_RANKER)
    return current.bundle.scorer


def _checked(scorer: ItemScorer, request: ScoreRequest, limits: Limits) -> dict[str, str]:
    """Values of the user's features as the training read them.

    Raises:
        Problem: 422, lists too long, or what the ranker does not read or misses.
    """
    ranker = scorer.ranker
    lengths = {"history": max(limits.history, _longest_history(scorer)), "candidates": limits.candidates}
    for name, most in lengths.items():
        if (length := len(getattr(request, name))) > most:
            raise Problem(422, "too-many-items", f"got {length:,} {name}, need at most {most:,}")
    errors = [*_label_errors(ranker.shape.labels, request.label), *_gap_errors(ranker.shape.time, request)]
    for name in request.user:
        if name not in ranker.values:
            known = f"it reads {shown(ranker.values, first=12)}" if ranker.values else "it reads none"
            errors.append({"pointer": f"/user/{name}"[:200], "detail": f"no feature of the ranker; {known}"})
    if errors:
        raise Problem(
            422,
            "invalid-request",
            "the ranker reads other things; `errors` says which, GET /v1/ranker what it reads",
            errors=errors[:20],
        )
    return {name: _text(value) for name, value in request.user.items() if value is not None}


def _label_errors(labels: Sequence[str], label: str | None) -> list[dict[str, str]]:
    if label is None or label in labels:
        return []
    known = f"it has learned {shown(labels)}" if labels else "it has learned none"
    return [{"pointer": "/label", "detail": f"no auxiliary label {label[:100]!r} of the ranker; {known}"}]


def _gap_errors(reads: bool, request: ScoreRequest) -> list[dict[str, str]]:
    gaps = request.gaps
    if gaps is None:
        wanted = "missing; the ranker reads the time since each event of the history, in its log's unit"
        return [{"pointer": "/gaps", "detail": wanted}] if reads and request.history else []
    if not reads:
        return [{"pointer": "/gaps", "detail": "the ranker reads no gaps of time; leave them out"}]
    if len(gaps) != len(request.history):
        return [{"pointer": "/gaps", "detail": f"got {len(gaps)}, need one for each event of the history"}]
    if any(later > earlier for earlier, later in pairwise(gaps)):
        detail = "gaps grow; the history is oldest first, so that each gap is at most the one before"
        return [{"pointer": "/gaps", "detail": detail}]
    return []


def _text(value: str | int | bool) -> str:
    """As the table of users is read: numbers and booleans as text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unknown_features(scorer: ItemScorer, users: Mapping[str, str]) -> list[str]:
    values = scorer.ranker.values
    return [name for name, known in values.items() if users.get(name) not in known]


def stored_codes(rows: Sequence[NewCode]) -> Codes:
    """Codes of rows of the store, at least one."""
    vq = [row.vq for row in rows if row.vq is not None]
    item_ids, rq = [row.item_id for row in rows], np.stack([row.rq for row in rows])
    return Codes(item_ids, rq, np.stack(vq) if len(vq) == len(rows) else None, rows[0].version)


def stored_vectors(rows: Sequence[NewCode]) -> Embeddings:
    """Vectors of rows of the store, at least one."""
    return Embeddings([row.item_id for row in rows], np.stack([row.vector for row in rows]))
