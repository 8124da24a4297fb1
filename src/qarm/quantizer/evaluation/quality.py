"""Quality of codes without a recommender: usage, collisions, residual energy, neighbours, pairs."""

import math

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.item_index import ItemIndex
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError, shown
from qarm.quantizer.evaluation.neighbour_overlap import neighbour_overlap
from qarm.quantizer.evaluation.residual_energy import Decoder, residual_energies
from qarm.schemas.codes import Agreement, CodeQuality, FullCodes, ItemsPerCode, Level, PairAgreement, Usage

__all__ = ["code_quality", "prefix_groups"]

_QUERIES, _NEIGHBOURS = 2000, 10


def code_quality(
    embeddings: Embeddings,
    codes: Codes,
    quantizer: Decoder,
    *,
    pairs: pl.DataFrame | None = None,
    seed: int = 0,
) -> CodeQuality:
    """Figures of codes; shares are between 0 and 1.

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
    quality = CodeQuality(
        items=len(table),
        levels=_levels(embeddings.vectors, table, quantizer),
        full_codes=_full_codes(groups[-1]),
        neighbour_overlap_at_10=neighbour_overlap(
            embeddings.vectors,
            table,
            groups[-1],
            quantizer.inverse_transform,
            neighbours=_NEIGHBOURS,
            queries=_QUERIES,
            seed=seed,
        ),
    )
    if pairs is not None:
        quality.pairs = _pairs(embeddings.item_ids, groups, pairs)
    return quality


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
    index = ItemIndex(codes.item_ids)
    missing = [item for item in embeddings.item_ids if item not in index]
    if missing or len(index) != len(embeddings):
        extra = sorted(set(index) - set(embeddings.item_ids))
        raise InputError(f"embeddings and codes are of different items: {shown([*missing, *extra])}")
    return codes.rq[index.rows(embeddings.item_ids)]


def _levels(
    vectors: npt.NDArray[np.float32], table: npt.NDArray[np.int32], quantizer: Decoder
) -> list[Level]:
    left = residual_energies(vectors, table, quantizer)
    usages = [
        _usage(np.bincount(table[:, level], minlength=width)) for level, width in enumerate(quantizer.widths_)
    ]
    return [
        Level(level=level, **usage.model_dump(), energy_left=energy)
        for level, (usage, energy) in enumerate(zip(usages, left, strict=True), start=1)
    ]


def _usage(counts: npt.NDArray[np.int64]) -> Usage:
    width, items = len(counts), int(counts.sum())
    used = int((counts > 0).sum())
    shares = counts[counts > 0] / items
    entropy = max(float(-(shares * np.log(shares)).sum()), 0.0)
    ranks = 2 * np.arange(1, width + 1) - width - 1
    gini = float((ranks * np.sort(counts)).sum() / (width * items))
    return Usage(
        width=width,
        used=used,
        dead=width - used,
        utilisation=used / width,
        entropy=entropy,
        perplexity=math.exp(entropy),
        gini=gini,
    )


def _full_codes(group: npt.NDArray[np.int64]) -> FullCodes:
    sizes = np.bincount(group)
    items, codes = np.unique(sizes, return_counts=True)
    per_code = ItemsPerCode(
        mean=len(group) / len(sizes),
        max=int(sizes.max()),
        histogram={str(i): int(c) for i, c in zip(items, codes, strict=True)},
    )
    collided = float(sizes[sizes > 1].sum() / len(group))
    return FullCodes(distinct=len(sizes), collision_rate=collided, items_per_code=per_code)


def _pairs(item_ids: list[str], groups: list[npt.NDArray[np.int64]], pairs: pl.DataFrame) -> PairAgreement:
    missing = [name for name in ("trigger_id", "target_id") if name not in pairs.columns]
    if missing:
        raise InputError(f"pairs have no column {' and '.join(missing)}; they have {shown(pairs.columns)}")
    index = ItemIndex(item_ids)
    trigger, target = (index.find(pairs[end].to_list()) for end in ("trigger_id", "target_id"))
    both = (trigger >= 0) & (target >= 0) & (trigger != target)
    trigger, target, used = trigger[both], target[both], int(both.sum())
    agreement = []
    for level, group in enumerate(groups):
        a, b = group[trigger], group[target]
        size = int(group.max()) + 1
        chance = (np.bincount(a, minlength=size) * 1.0) @ np.bincount(b, minlength=size)
        share = float((a == b).sum() / max(used, 1))
        agreement.append(Agreement(levels=level + 1, share=share, chance=float(chance / max(used, 1) ** 2)))
    return PairAgreement(used=used, skipped=pairs.height - used, agreement=agreement)
