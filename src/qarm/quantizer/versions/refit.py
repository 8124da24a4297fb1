"""Append and refit of codes, and the churn between two versions.

A published code never moves. Codebooks fitted again start from the old centroids and make a new version of
all codes; what changed is counted after the best matching of old and new centroids, because a code's number
alone says nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.optimize import linear_sum_assignment

from qarm.core.item_index import ItemIndex
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError, shown
from qarm.quantizer.base import Quantizer
from qarm.quantizer.collisions import suffixes
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.vectors import Vectors, checked_ids
from qarm.schemas.codes import Churn, ChurnLevel

__all__ = ["append", "churn", "match_centroids", "overlaps", "refit", "remap_table", "warm_embeddings"]

FloatRows = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def append(
    published: Codes, items: Embeddings, quantizer: Quantizer, *, nearest: NearestCodes | None = None
) -> Codes:
    """Published codes as they are, then codes of the items that have none yet, by the frozen codebooks.

    Args:
        published: n codes.
        items: with vectors from the frozen encoder; those that are published already change nothing.
        quantizer: that made the published codes.
        nearest: that made their lists; needed where published codes have some.

    Raises:
        InputError: the levels differ, or published codes have lists and `nearest` is missing.
    """
    if published.rq.shape[1] != len(quantizer.widths_):
        raise InputError(
            f"published codes have {published.rq.shape[1]} levels, the quantiser {len(quantizer.widths_)}; "
            "append with the quantiser of that version"
        )
    if published.vq is not None and nearest is None:
        raise InputError("published codes have nearest lists; append with the nearest codes of that version")
    checked_ids(items)
    known = set(published.item_ids)
    rows = [row for row, item in enumerate(items.item_ids) if item not in known]
    if not rows:
        return published
    new = Embeddings([items.item_ids[row] for row in rows], items.vectors[rows])
    rq = np.concatenate([published.rq, quantizer.transform(new)])
    vq = published.vq
    if vq is not None and nearest is not None:
        vq = np.concatenate([vq, nearest.codes(new)])
    codes = Codes([*published.item_ids, *new.item_ids], rq, vq, published.version)
    if published.suffix is None:
        return codes
    return replace(codes, suffix=suffixes(codes, published=(published, published.suffix)))


def refit(old: ResidualKMeans, x: Vectors, *, iterations: int | None = None) -> ResidualKMeans:
    """Residual k-means of vectors [n, d] that starts from the old centroids, so that codes keep a meaning.

    Args:
        old: the codebooks of the current version.
        x: embeddings, an array or a path.
        iterations: Lloyd iterations per level; None: as many as `old` was given.
    """
    steps = old.iterations if iterations is None else iterations
    fresh = ResidualKMeans(
        len(old.widths_),
        old.widths_,
        iterations=steps,
        seed=old.chosen_seed,
        init=old.codebooks_,
        balance=old.balance,
    )
    return fresh.fit(x)


def match_centroids(old: FloatRows, new: FloatRows) -> npt.NDArray[np.int32]:
    """The new code of each old one, int32 [old width], -1 where none is left for it.

    Of all one-to-one matchings, the one with the least sum of squared distances (the Hungarian problem).

    Args:
        old: centroids float32 [old width, d].
        new: centroids float32 [new width, d].
    """
    if old.shape[1] != new.shape[1]:
        raise InputError(f"centroids have {old.shape[1]} and {new.shape[1]} dimensions; give one level's")
    a, b = old.astype(np.float64), new.astype(np.float64)
    cost = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2.0 * (a @ b.T)
    rows, columns = linear_sum_assignment(cost)
    match = np.full(len(old), -1, dtype=np.int32)
    match[rows] = columns
    return match


def churn(old: Codes, new: Codes, matches: Sequence[npt.NDArray[np.int32]]) -> Churn:
    """Churn: items with another code than before; shares are of the items in both versions.

    `from`, `to`: versions; `items`: in both; `added`, `removed`: in one only; `levels`, for each: `changed`,
    share of items whose code is not the match of their old one, and `renumbered`, share of items whose code
    is another number; `full_codes`: share of items with a change on any level.

    Args:
        old: codes of the old version.
        new: codes of the new version, items in any order.
        matches: per level, as `match_centroids` gives them.

    Raises:
        InputError: versions with different numbers of levels, or without items in common.
    """
    before, after = _common(old, new)
    moved = np.empty(before.shape, dtype=np.bool_)
    levels = []
    for level, match in enumerate(matches):
        moved[:, level] = match[before[:, level]] != after[:, level]
        renumbered = float((before[:, level] != after[:, level]).mean())
        changed = float(moved[:, level].mean())
        levels.append(ChurnLevel(level=level + 1, changed=changed, renumbered=renumbered))
    return Churn(
        old=old.version,
        new=new.version,
        items=len(before),
        added=len(new) - len(before),
        removed=len(old) - len(before),
        levels=levels,
        full_codes=float(moved.any(axis=1).mean()),
    )


def remap_table(old: Codes, new: Codes, matches: Sequence[npt.NDArray[np.int32]]) -> pl.DataFrame:
    """What became of every old code: one row per level (from 1) and code.

    Columns, all i32: `level`, `old`, `new` (the match, null where there is none), `items` (in both versions,
    that had the old code), `kept` (of these with the matching new one).
    """
    before, after = _common(old, new)
    frames = []
    for level, match in enumerate(matches):
        kept = match[before[:, level]] == after[:, level]
        columns = {
            "level": np.full(len(match), level + 1),
            "old": np.arange(len(match)),
            "new": match,
            "items": np.bincount(before[:, level], minlength=len(match)),
            "kept": np.bincount(before[kept, level], minlength=len(match)),
        }
        frames.append(pl.DataFrame(columns).cast(pl.Int32))
    table = pl.concat(frames)
    return table.with_columns(new=pl.when(pl.col("new") >= 0).then(pl.col("new")))


def overlaps(old: Codes, new: Codes, level: int) -> pl.DataFrame:
    """Items in both versions by their old and new code at a level (from 0): `old`, `new` i32, `items` i64."""
    before, after = _common(old, new)
    frame = pl.DataFrame({"old": before[:, level], "new": after[:, level]}).cast(pl.Int32)
    return frame.group_by("old", "new").agg(pl.len().cast(pl.Int64).alias("items")).sort("old", "new")


def warm_embeddings(
    table: FloatRows, counts: pl.DataFrame, width: int, *, match: npt.NDArray[np.int32] | None = None
) -> FloatRows:
    """Embeddings of new codes, float32 [width, dim], to go on training from.

    A new code starts as the mean of the old codes' embeddings, weighted by the items that it takes over from
    each. A code without such items starts as its match, or as the mean of the table.

    Args:
        table: embeddings of the old codes, float32 [old width, dim].
        counts: columns old, new, items, as `overlaps` gives them.
        width: new codes.
        match: new code of each old one, -1 for none.

    Raises:
        InputError: counts name a code that one of the tables does not have.
    """
    old, new, items = (counts[name].to_numpy().astype(np.int64) for name in ("old", "new", "items"))
    for name, codes, rows in (("old", old, len(table)), ("new", new, width)):
        outside = codes[(codes < 0) | (codes >= rows)]
        if len(outside):
            raise InputError(f"{name} codes {shown(outside.tolist())} are outside 0 .. {rows - 1}")
    order = np.lexsort((old, new))  # sums in one order
    warm = np.tile(table.astype(np.float64).mean(axis=0), (width, 1))
    if match is not None:
        kept = np.flatnonzero(match >= 0)
        warm[match[kept]] = table[kept]
    weight = np.bincount(new, weights=items, minlength=width)
    sums = np.zeros((width, table.shape[1]))
    np.add.at(sums, new[order], items[order, None] * table[old[order]].astype(np.float64))
    filled = weight > 0
    warm[filled] = sums[filled] / weight[filled, None]
    return warm.astype(np.float32)


def _common(old: Codes, new: Codes) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Codes [n, levels] of the items in both, in the order of the old ones."""
    if old.rq.shape[1] != new.rq.shape[1]:
        raise InputError(f"versions have {old.rq.shape[1]} and {new.rq.shape[1]} levels; compare like ones")
    rows = ItemIndex(new.item_ids).find(old.item_ids)
    common = rows >= 0
    if not common.any():
        raise InputError("the two versions have no item in common; compare codes of one catalogue")
    return old.rq[common], new.rq[rows[common]]
