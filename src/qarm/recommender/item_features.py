"""Item features of a variant: codes and vectors, by row of the vocabulary."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from qarm.config import features_of
from qarm.core.item_index import ItemIndex
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import Problems, shown

__all__ = ["ItemTable", "item_table"]


@dataclass(frozen=True)
class ItemTable:
    """Features of the vocabulary's items, each None where the variant goes without.

    ids: whether items have an id of their own; cross: whether histories are searched by code; fixed: whether
    the codes' embeddings stay as they were drawn;
    rq: int64 [n, levels]; vq: int64 [n, nearest], pool ids; pool: int64 [pool], the row of every pool id's
    item, -1 for one outside the vocabulary; vectors: float32 [n, d]: over the items that they were scaled by,
    columns have mean 0 and rows a mean square of 1;
    without: items that have no codes; where there are any, the last code of each level and of the pool is
    theirs; codebooks: float [width, d] of each level, and pool_vectors: float [pool, d], to start from.
    """

    item_ids: list[str]
    rq: npt.NDArray[np.int64] | None = None
    vq: npt.NDArray[np.int64] | None = None
    vectors: npt.NDArray[np.float32] | None = None
    pool: npt.NDArray[np.int64] | None = None
    ids: bool = True
    cross: bool = False
    fixed: bool = False
    without: list[str] = field(default_factory=list)
    codebooks: list[npt.NDArray[np.float32]] | None = None
    pool_vectors: npt.NDArray[np.float32] | None = None


def item_table(
    item_ids: Sequence[str],
    variant: str,
    *,
    codes: Codes | None = None,
    embeddings: Embeddings | None = None,
    raw: Embeddings | None = None,
    pool: Sequence[str] | None = None,
    scale_by: Sequence[str] | None = None,
    missing_codes: float = 0.0,
    codebooks: Sequence[npt.NDArray[np.float32]] | None = None,
    pool_vectors: npt.NDArray[np.float32] | None = None,
) -> ItemTable:
    """The features that a variant such as `id+rq+vq` or `id+frozen` uses, for sorted `item_ids`.

    Args:
        item_ids: the catalogue.
        variant: some of `id`, `raw` (vectors before alignment), `frozen` (aligned ones), `rq`, `vq`, `cross`
            (search of the history by code), joined by +.
        codes, embeddings, raw: of all these items, where the variant needs them.
        pool: the items of the VQ code's pool, in the order of their pool ids; without it, `cross` searches by
            RQ code only.
        scale_by: items of the training part, whose mean and size scale the vectors; by default all.
        missing_codes: largest share of the items that may go without codes; they share a code of their own.
        codebooks: centroids of each level, for code tables that start from them.
        pool_vectors: of the VQ code's pool, by pool id, for a VQ table that starts from them.

    Raises:
        InputError: an unknown feature, one that is asked for but not given, items without codes or a
            vector, codes below 0, or numbers that are not finite; every problem is listed.
    """
    vocabulary = sorted(item_ids)
    problems = Problems()
    try:
        features = features_of(variant)
    except ValueError as error:
        problems.add(str(error))
        features = variant.split("+")
    rq = vq = vectors = None
    without: list[str] = []
    if {"rq", "vq"} & set(features):
        without = _without(vocabulary, codes, missing_codes, problems)
        rq, vq = _codes(vocabulary, features, codes, problems, without)
    for name, given in (("frozen", embeddings), ("raw", raw)):
        if name in features:
            vectors = _vectors(vocabulary, given, scale_by or vocabulary, name, problems)
    problems.raise_any()
    cross = "cross" in features
    return ItemTable(
        vocabulary,
        rq=rq,
        vq=vq,
        vectors=vectors,
        pool=_pool_rows(vocabulary, pool) if cross and pool is not None and vq is not None else None,
        ids="id" in features,
        cross=cross,
        without=without,
        codebooks=None if codebooks is None or rq is None else list(codebooks),
        pool_vectors=None if vq is None else pool_vectors,
    )


def _without(vocabulary: list[str], codes: Codes | None, share: float, problems: Problems) -> list[str]:
    """Items that have no codes; a problem where they are too many."""
    if codes is None:
        return []
    known = {*codes.item_ids}
    missing = [item for item in vocabulary if item not in known]
    if len(missing) > share * len(vocabulary) or (missing and not len(codes)):
        problems.add(
            f"{len(missing)} items have no codes: {shown(missing)}; code and embed all items first"
            f"{_allowed(len(missing), len(vocabulary), share)}"
        )
    return missing


def _allowed(missing: int, items: int, share: float) -> str:
    """How to let them pass; nothing about it where no share was asked for and all are missing."""
    if missing == items:
        return ""
    return f", or raise ranker.missing_codes={share:g} to {math.ceil(1000 * missing / items) / 1000:g}"


def _pool_rows(vocabulary: list[str], pool: Sequence[str]) -> npt.NDArray[np.int64]:
    return ItemIndex(vocabulary).find(pool)


def _codes(
    vocabulary: list[str],
    features: list[str],
    codes: Codes | None,
    problems: Problems,
    without: list[str],
) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None]:
    if codes is None:
        problems.add(f"variant {'+'.join(features)} needs codes; give them, or take variant id")
        return None, None
    if not len(codes):
        return None, None
    rows = ItemIndex(codes.item_ids).find(vocabulary)
    tables: dict[str, npt.NDArray[np.int64]] = {}
    for name, table in (("rq", codes.rq), ("vq", codes.vq)):
        if name not in features:
            continue
        if table is None:
            problems.add(f"variant {'+'.join(features)} needs VQ codes and there are none; take id+rq")
        elif table.size and table.min() < 0:
            problems.add(f"{name} codes go down to {table.min()}, need 0 or more")
        else:
            tables[name] = table[rows].astype(np.int64)
            if without:
                tables[name][rows < 0] = _spare(name, table)
    return tables.get("rq"), tables.get("vq")


def _spare(name: str, table: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """The code after the last one, of each level or of the pool."""
    last: npt.NDArray[np.int64] = table.astype(np.int64).max(axis=0 if name == "rq" else None)
    return last + 1


def _vectors(
    vocabulary: list[str],
    embeddings: Embeddings | None,
    scale_by: Sequence[str],
    name: str,
    problems: Problems,
) -> npt.NDArray[np.float32] | None:
    if embeddings is None:
        problems.add(f"the feature {name} needs embeddings; give them, or leave it out of the variant")
        return None
    rows = _rows(vocabulary, embeddings.item_ids, "vector", problems)
    if rows is None:
        return None
    vectors = embeddings.vectors[rows].astype(np.float64)
    broken = [vocabulary[i] for i in np.flatnonzero(~np.isfinite(vectors).all(axis=1))]
    if broken:
        problems.add(f"vectors of items {shown(broken)} hold NaN or infinity; embed them again")
        return None
    known = vectors[np.isin(vocabulary, list(scale_by))]
    centre = known.mean(axis=0)
    vectors -= centre
    scale = np.sqrt(np.mean(np.square(known - centre).sum(axis=1)))
    return (vectors / max(float(scale), 1e-12)).astype(np.float32)


def _rows(
    vocabulary: list[str], given: list[str], what: str, problems: Problems
) -> npt.NDArray[np.int64] | None:
    rows = ItemIndex(given).find(vocabulary)
    missing = [vocabulary[place] for place in np.flatnonzero(rows < 0).tolist()]
    if missing:
        problems.add(f"{len(missing)} items have no {what}: {shown(missing)}; code and embed all items first")
        return None
    return rows
