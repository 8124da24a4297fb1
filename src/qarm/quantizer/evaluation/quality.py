"""How good codes are, judged without training a recommender."""

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError, shown
from qarm.quantizer.evaluation.neighbour_overlap import neighbour_overlap

__all__ = ["Decoder", "code_quality", "prefix_groups"]

_TILE = 16384
_QUERIES, _NEIGHBOURS = 2000, 10


class Decoder(Protocol):
    """What a quantiser offers to be judged: its widths, and vectors for the first columns of codes."""

    widths_: list[int]

    def inverse_transform(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]: ...


def code_quality(
    embeddings: Embeddings,
    codes: Codes,
    quantizer: Decoder,
    *,
    pairs: pl.DataFrame | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures about codes, ready for JSON; shares are between 0 and 1.

    `levels`, one entry per level: `width`; `used` and `dead`, codes with and without items;
    `utilisation`, used / width; `entropy` in nats and `perplexity`, its exponential; `gini` of the items
    per code (0: all equal); `energy_left`, squared length of what this and earlier levels leave, over that
    of the vectors.
    `full_codes`: `distinct`; `collision_rate`, share of items that share their code with another item;
    `items_per_code` with `mean`, `max` and `histogram`, number of codes by their number of items.
    `neighbour_overlap_at_10`: of an item's 10 nearest vectors, the share still among the 10 nearest once
    all vectors are decoded from their codes; `mean` over `queries` seeded items against all items, with a
    95 % interval `low`, `high`; null below two items.
    `pairs`, where pairs are given: `used` and `skipped` (an item without codes, or paired with itself);
    `agreement`, for the first 1, 2, ... levels the `share` of pairs that agree and the `chance` that they
    would were targets dealt out at random.

    All of it takes O(n log n), but for the overlap, O(queries * n * d).

    Args:
        embeddings: the vectors that were coded, n rows.
        codes: of the same items, in any order.
        quantizer: that made the codes.
        pairs: columns trigger_id and target_id.
        seed: of the sampled queries.

    Raises:
        InputError: items of embeddings and codes differ, there are none, or pairs lack a column.
    """
    table = _aligned(embeddings, codes)
    groups = prefix_groups(table)
    report: dict[str, Any] = {
        "items": len(table),
        "levels": _levels(embeddings.vectors, table, quantizer),
        "full_codes": _full_codes(groups[-1]),
        "neighbour_overlap_at_10": neighbour_overlap(
            embeddings.vectors,
            table,
            groups[-1],
            quantizer.inverse_transform,
            neighbours=_NEIGHBOURS,
            queries=_QUERIES,
            seed=seed,
        ),
    }
    if pairs is not None:
        report["pairs"] = _pairs(embeddings.item_ids, groups, pairs)
    return report


def prefix_groups(table: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int64]]:
    """For the first 1, 2, ... levels of codes [n, levels]: the number of each row's group, int64 [n].

    Two rows are in one group when they agree on those levels; groups are numbered from 0 in code order.
    """
    groups: list[npt.NDArray[np.int64]] = []
    current = np.zeros(len(table), dtype=np.int64)
    for column in table.T:
        key = current * (int(column.max()) + 1) + column
        current = np.unique(key, return_inverse=True)[1].astype(np.int64)
        groups.append(current)
    return groups


def _aligned(embeddings: Embeddings, codes: Codes) -> npt.NDArray[np.int32]:
    """Codes [n, levels] in the order of the embeddings."""
    if len(embeddings) == 0:
        raise InputError("got 0 items, need at least 1 to judge codes")
    if codes.item_ids == embeddings.item_ids:
        return codes.rq
    place = {item: row for row, item in enumerate(codes.item_ids)}
    missing = [item for item in embeddings.item_ids if item not in place]
    if missing or len(place) != len(embeddings):
        extra = sorted(set(place) - set(embeddings.item_ids))
        raise InputError(f"embeddings and codes are of different items: {shown([*missing, *extra])}")
    return codes.rq[[place[item] for item in embeddings.item_ids]]


def _levels(
    vectors: npt.NDArray[np.float32], table: npt.NDArray[np.int32], quantizer: Decoder
) -> list[dict[str, Any]]:
    energies = np.zeros(table.shape[1] + 1)
    for start in range(0, len(table), _TILE):
        tile = vectors[start : start + _TILE].astype(np.float64)
        energies[0] += np.square(tile).sum()
        for level in range(1, table.shape[1] + 1):
            decoded = quantizer.inverse_transform(table[start : start + _TILE, :level])
            energies[level] += np.square(tile - decoded).sum()
    total = float(energies[0])
    entries = []
    for level, width in enumerate(quantizer.widths_):
        left = float(energies[level + 1]) / total if total > 0.0 else 0.0
        counts = np.bincount(table[:, level], minlength=width)
        entries.append({"level": level + 1, **_usage(counts), "energy_left": left})
    return entries


def _usage(counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    width, items = len(counts), int(counts.sum())
    used = int((counts > 0).sum())
    shares = counts[counts > 0] / items
    entropy = max(float(-(shares * np.log(shares)).sum()), 0.0)
    ranks = 2 * np.arange(1, width + 1) - width - 1
    gini = float((ranks * np.sort(counts)).sum() / (width * items))
    return {
        "width": width,
        "used": used,
        "dead": width - used,
        "utilisation": used / width,
        "entropy": entropy,
        "perplexity": math.exp(entropy),
        "gini": gini,
    }


def _full_codes(group: npt.NDArray[np.int64]) -> dict[str, Any]:
    sizes = np.bincount(group)
    items, codes = np.unique(sizes, return_counts=True)
    return {
        "distinct": len(sizes),
        "collision_rate": float(sizes[sizes > 1].sum() / len(group)),
        "items_per_code": {
            "mean": len(group) / len(sizes),
            "max": int(sizes.max()),
            "histogram": {str(i): int(c) for i, c in zip(items, codes, strict=True)},
        },
    }


def _pairs(item_ids: list[str], groups: list[npt.NDArray[np.int64]], pairs: pl.DataFrame) -> dict[str, Any]:
    missing = [name for name in ("trigger_id", "target_id") if name not in pairs.columns]
    if missing:
        raise InputError(f"pairs have no column {' and '.join(missing)}; they have {shown(pairs.columns)}")
    place = {item: row for row, item in enumerate(item_ids)}
    ends = (pairs["trigger_id"].to_list(), pairs["target_id"].to_list())
    both = [(place[a], place[b]) for a, b in zip(*ends, strict=True) if a != b and a in place and b in place]
    trigger, target = np.array(both, dtype=np.int64).reshape(-1, 2).T
    agreement = []
    for level, group in enumerate(groups):
        a, b = group[trigger], group[target]
        size = int(group.max()) + 1
        chance = (np.bincount(a, minlength=size) * 1.0) @ np.bincount(b, minlength=size)
        used = max(len(both), 1)
        entry = {
            "levels": level + 1,
            "share": float((a == b).sum() / used),
            "chance": float(chance / used**2),
        }
        agreement.append(entry)
    return {"used": len(both), "skipped": pairs.height - len(both), "agreement": agreement}
