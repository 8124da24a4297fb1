"""Collisions of full codes: suffixes that tell items apart, or reassignment to a free code."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.item_index import ItemIndex
from qarm.core.parallel.numba_jit import compiled
from qarm.core.parallel.tiles import over_tiles
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError, shown
from qarm.quantizer.evaluation.quality import prefix_groups
from qarm.quantizer.kmeans.assignment import prepared, scored
from qarm.quantizer.kmeans.assignment_kernels import LANES, Bounds, RowBounds, buffers_for, settle_rows
from qarm.quantizer.kmeans.lloyd import row_distances
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.vectors import ResidualRows

__all__ = ["items_by_code", "reassign", "suffixes"]

FloatRows = npt.NDArray[np.float32]


def items_by_code(codes: Codes) -> pl.DataFrame:
    """One row per full code that is in use, in code order: `rq` array of i32, `item_ids` list, sorted."""
    group = prefix_groups(codes.rq)[-1]
    frame = pl.DataFrame({"group": group, "item_ids": codes.item_ids}).sort("group", "item_ids")
    lists = frame.group_by("group", maintain_order=True).agg("item_ids")
    first = np.unique(group, return_index=True)[1]
    rq = pl.Series("rq", codes.rq[first], dtype=pl.Array(pl.Int32, codes.rq.shape[1]))
    return pl.DataFrame([rq, lists["item_ids"]])


def suffixes(
    codes: Codes, *, published: tuple[Codes, npt.NDArray[np.int32]] | None = None
) -> npt.NDArray[np.int32]:
    """A number that tells items with the same full code apart, int32 [n], from 0 in the order of item ids.

    Args:
        codes: of n items.
        published: earlier codes and their suffixes. Their items keep their number, and others of the same
            full code count on from the highest, so that no number is given twice.

    Raises:
        InputError: a published item now has another code.
    """
    old, numbers = published if published is not None else (Codes([], codes.rq[:0]), np.empty(0, np.int32))
    earlier = ItemIndex(old.item_ids).find(codes.item_ids)
    kept = np.flatnonzero(earlier >= 0)
    moved = kept[(codes.rq[kept] != old.rq[earlier[kept]]).any(axis=1)]
    if len(moved):
        items = shown([codes.item_ids[row] for row in moved])
        raise InputError(f"codes of published items {items} changed; a suffix holds for one code only")
    group = prefix_groups(np.concatenate([codes.rq, old.rq]))[-1]
    following = np.zeros(len(group), dtype=np.int64)
    np.maximum.at(following, group[len(codes) :], numbers.astype(np.int64) + 1)
    found = np.empty(len(codes), dtype=np.int32)
    found[kept] = numbers[earlier[kept]]
    frame = pl.DataFrame({"group": group[: len(codes)], "item": codes.item_ids, "known": earlier})
    new = frame.with_row_index("row").filter(pl.col("known") < 0).sort("group", "item")
    same = new["group"].to_numpy()
    rank = np.arange(len(same)) - np.searchsorted(same, same, side="left")
    found[new["row"].to_numpy()] = following[same] + rank
    return found


def reassign(embeddings: Embeddings, codes: Codes, quantizer: ResidualKMeans, *, capacity: int = 1) -> Codes:
    """Leave at most `capacity` items under each full code; the others take the nearest free last code.

    Of the items that share a code, those nearest to its centroid stay. The others keep all but their last
    code and are placed one after the other, nearest first, each at the nearest centroid of the last level
    that has room under its earlier codes. Equal distances go to the smaller item id.

    Args:
        embeddings: the vectors that were coded, n rows.
        codes: of the same items in the same order.
        quantizer: that made the codes.
        capacity: items per full code, at least 1.

    Raises:
        InputError: items differ, or more items share their earlier codes than the last level has room for.
    """
    if codes.item_ids != embeddings.item_ids:
        raise InputError("embeddings and codes are not of the same items in the same order; use .rows(...)")
    if capacity < 1:
        raise InputError(f"got capacity={capacity}, need 1 or more items per full code")
    books, last = quantizer.codebooks_[:-1], quantizer.codebooks_[-1]
    groups = [np.zeros(len(codes), dtype=np.int64), *prefix_groups(codes.rq)]
    _check_room(codes, groups[-2], capacity * len(last))
    rows = ResidualRows(embeddings.vectors, books, codes.rq)
    distances = row_distances(rows, last, np.ascontiguousarray(codes.rq[:, -1]))
    frame = pl.DataFrame(
        {"prefix": groups[-2], "full": groups[-1], "distance": distances, "item": codes.item_ids}
    )
    order = frame.with_row_index("row").sort("full", "distance", "item")
    place = np.arange(len(codes)) - np.searchsorted(sorted_full := order["full"].to_numpy(), sorted_full)
    movers = order.filter(pl.Series(place >= capacity)).sort("prefix", "distance", "item")["row"].to_numpy()
    stays = np.ones(len(codes), dtype=np.bool_)
    stays[movers] = False
    rq = codes.rq.copy()
    _place(rows, movers, np.flatnonzero(stays), groups[-2], rq, last, capacity)
    return Codes(list(codes.item_ids), rq, codes.vq, codes.version)


def _check_room(codes: Codes, prefix: npt.NDArray[np.int64], room: int) -> None:
    sizes = np.bincount(prefix, minlength=1)
    full = np.flatnonzero(sizes > room)
    if len(full):
        row = int(np.flatnonzero(prefix == full[0])[0])
        raise InputError(
            f"got {sizes[full[0]]} items under {codes.rq[row, :-1].tolist()}, need at most {room}; "
            f"raise capacity or quantizer.width ({len(full)} such codes)"
        )


def _place(
    rows: ResidualRows,
    movers: npt.NDArray[np.int64],
    stayers: npt.NDArray[np.int64],
    prefix: npt.NDArray[np.int64],
    rq: npt.NDArray[np.int32],
    centroids: FloatRows,
    capacity: int,
) -> None:
    """Give each mover its last code in `rq`; movers come prefix by prefix, and prefixes are independent."""
    book = prepared(centroids)
    by_prefix = stayers[np.argsort(prefix[stayers], kind="stable")]
    taken, starts = rq[by_prefix, -1], np.searchsorted(prefix[by_prefix], np.arange(prefix.max() + 2))
    group = prefix[movers]
    cuts = np.searchsorted(group, group[:: book.tile_rows])
    cuts = np.unique(np.append(cuts, len(movers)))

    def work(_: None, first: int, last: int) -> None:
        counts, current = np.zeros(len(centroids), dtype=np.int64), np.array([-1], dtype=np.int64)
        free = _Free(book.bounds._replace(half_norms=book.half_norms.copy()), counts, current)
        occupied = _Occupied(book.half_norms, taken, starts, capacity)
        for start in range(cuts[first], cuts[last], book.tile_rows):
            part = movers[start : min(start + book.tile_rows, cuts[last])]
            tile = rows.take(part)
            scores = scored(tile, book)
            new = np.empty(len(part), dtype=np.int32)
            row_bounds = RowBounds(scores.scale, scores.margin, scores.slack)
            _fill(scores.products, row_bounds, (tile, book.centroids), prefix[part], occupied, free, new)
            rq[part, -1] = new

    over_tiles(max(len(cuts) - 1, 0), 1, lambda: None, work)


class _Occupied(NamedTuple):
    """Occupied codes: half_norms of all centroids, the stayers' codes by prefix, most items of a code."""

    half_norms: FloatRows
    taken: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    capacity: int


class _Free(NamedTuple):
    """Free codes of the current prefix: bounds whose half_norms are infinite for full codes, item counts."""

    bounds: Bounds
    counts: npt.NDArray[np.int64]
    current: npt.NDArray[np.int64]


@compiled()
def _fill(
    products: Any, row_bounds: Any, vectors: Any, prefix: Any, occupied: Any, free: Any, new: Any
) -> None:
    """The nearest free centroid for one row after the other; full ones have an infinite norm in `free`."""
    half_norms, taken, starts, capacity = occupied
    bounds, counts, current = free
    open_norms, buffers = bounds.half_norms, buffers_for(half_norms.size)
    for i in range(len(prefix)):
        if prefix[i] != current[0]:
            current[0] = prefix[i]
            open_norms[:] = half_norms
            counts[:] = 0
            for s in range(starts[prefix[i]], starts[prefix[i] + 1]):
                counts[taken[s]] += 1
                if counts[taken[s]] >= capacity:
                    open_norms[taken[s] // LANES, taken[s] % LANES] = np.inf
        settle_rows(products, (i, i + 1), bounds, row_bounds, vectors, buffers, new)
        code = new[i]
        counts[code] += 1
        if counts[code] >= capacity:
            open_norms[code // LANES, code % LANES] = np.inf
