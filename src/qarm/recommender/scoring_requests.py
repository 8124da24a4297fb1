"""Requests as examples: candidates, and their user's history and features."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from qarm.data.users import Users
from qarm.errors import InputError, shown
from qarm.recommender.examples import Examples, row_numbers

__all__ = ["requests"]


def requests(
    item_ids: Sequence[Sequence[str]],
    histories: Sequence[Sequence[str]],
    vocabulary: list[str],
    limits: tuple[int, int],
    *,
    users: Sequence[Mapping[str, str]] | None = None,
    features: Sequence[str] = (),
    gaps: Sequence[Sequence[int]] | None = None,
) -> Examples:
    """Examples whose event is the request's number; arguments as of `Ranker.score`.

    limits: of a history, and of one that is searched by code; features: those of users that may be named.

    Raises:
        InputError: lengths differ, or an item or a user's feature is unknown.
    """
    _check(item_ids, histories, users, features, gaps)
    counts = [len(items) for items in item_ids]
    limit, long = limits
    recent = [list(history)[-max(limits) :] for history in histories]
    names = [
        pl.Series("item_id", [i for part in parts for i in part], dtype=pl.String)
        for parts in (item_ids, recent)
    ]
    items, past = (row_numbers(series, vocabulary) for series in names)
    ends = np.cumsum([len(history) for history in recent], dtype=np.int64)
    starts = ends - np.array([len(history) for history in recent], dtype=np.int64)
    request = np.repeat(np.arange(len(counts)), counts)
    zeros = np.zeros(len(items), dtype=np.int64)
    ids = [f"{number:09d}" for number in range(len(counts))]
    table = {name: [user.get(name) for user in users or [{}] * len(counts)] for name in features}
    text = dict.fromkeys(table, pl.String)
    ago = [g for part in gaps or [] for g in list(part)[-max(limits) :]]
    return Examples(
        user_ids=ids,
        item_ids=vocabulary,
        users=request.astype(np.int32),
        items=items,
        labels=zeros.astype(np.int8),
        times=zeros,
        events=request,
        cold=zeros.astype(bool),
        history=past,
        start=np.maximum(starts, ends - limit)[request],
        end=ends[request],
        begin=np.maximum(starts, ends - long)[request],
        clock=None if gaps is None else -np.array(ago, dtype=np.int64),
        about=Users(pl.DataFrame({"user_id": ids, **table}, schema={"user_id": pl.String, **text})),
    )


def _check(
    item_ids: Sequence[Sequence[str]],
    histories: Sequence[Sequence[str]],
    users: Sequence[Mapping[str, str]] | None,
    features: Sequence[str],
    gaps: Sequence[Sequence[int]] | None,
) -> None:
    if len(item_ids) != len(histories):
        raise InputError(f"got {len(item_ids)} requests and {len(histories)} histories, need as many")
    if users is not None:
        if len(users) != len(item_ids):
            raise InputError(f"got {len(item_ids)} requests and {len(users)} users, need as many")
        unknown = sorted({name for user in users for name in user} - {*features})
        if unknown:
            known = f"it knows {shown(features)}" if features else "it was trained without any"
            raise InputError(f"the ranker reads no user feature {shown(unknown)}; {known}")
    if gaps is not None and [len(part) for part in gaps] != [len(history) for history in histories]:
        raise InputError("gaps and histories differ in length; give the time since each event of a history")
