"""Factory of a run's codes: the quantiser that the config names, and its collision policy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from qarm.config import QuantizerConfig
from qarm.core.atomic_io import read_json
from qarm.core.item_index import ItemIndex
from qarm.core.run_folder import verify
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError
from qarm.quantizer.base import Quantizer
from qarm.quantizer.collisions import reassign, suffixes
from qarm.quantizer.fsq import ResidualKMeansFSQ
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.opq import ResidualKMeansOPQ
from qarm.quantizer.residual_kmeans import ResidualKMeans

__all__ = ["all_codes", "auto_width", "load_quantizer", "new_quantizer"]

Policy = Literal["keep", "suffix", "reassign"]
KINDS: dict[str, type[Quantizer]] = {
    kind.__name__: kind for kind in (ResidualKMeans, ResidualKMeansFSQ, ResidualKMeansOPQ)
}
_ITEMS_PER_CODE, _NARROWEST, _WIDEST = 16, 4, 8192


def auto_width(n_items: int, levels: int) -> int:
    """Codes per level for that many training items: `quantizer.width: auto`.

    The largest power of two that leaves every code 16 items or more on average, between 4 and 8,192. Every
    level assigns all items, so this holds on each level: 16 is where a code's embedding has several
    items' clicks to learn from, and where its centroid is a mean and not a copy of one item. Where the
    codes would then be fewer than the items even if all were used (width ** levels < n_items, one level
    mostly), the width is doubled as long as 4 items per code remain. docs/codes.md has the measurements.

    Args:
        n_items: rows that the quantiser is fitted on, at least 1.
        levels: number of levels, at least 1.
    """
    if n_items < 1 or levels < 1:
        raise InputError(f"got n_items={n_items} and levels={levels}, need at least 1 of each")
    width = _NARROWEST
    while width * 2 * _ITEMS_PER_CODE <= n_items and width < _WIDEST:
        width *= 2
    while width**levels < n_items and width * 2 * 4 <= n_items and width < _WIDEST:
        width *= 2
    return min(width, n_items)


def new_quantizer(settings: QuantizerConfig, items: int, *, seed: int = 0) -> Quantizer:
    """The quantiser of a config, not fitted yet.

    `settings.last` "fsq" and "opq" put a finer last level in the place of the last k-means level (QARM V2).

    Args:
        items: to be fitted on, from which `width: auto` follows.
    """
    width = auto_width(items, settings.levels) if settings.width == "auto" else settings.width
    if settings.last == "kmeans":
        return ResidualKMeans(
            settings.levels, width, iterations=settings.iterations, seed=seed, balance=settings.balance
        )
    kind = ResidualKMeansFSQ if settings.last == "fsq" else ResidualKMeansOPQ
    above = width if isinstance(width, int) else width[:-1]
    return kind(settings.levels - 1, above, iterations=settings.iterations, seed=seed)


def all_codes(
    vectors: Embeddings,
    known_ids: Sequence[str],
    quantizer: Quantizer,
    nearest: NearestCodes,
    *,
    collisions: str = "keep",
    version: int = 1,
) -> Codes:
    """RQ and VQ codes of all items.

    Args:
        vectors: of all items.
        known_ids: the items that the quantiser was fitted on. `reassign` moves only these, and suffixes
            count them first, so that what comes later changes nothing for them.
        collisions: "keep" (the paper), "suffix", or "reassign" to the nearest free last code.
        version: of these codes.

    Raises:
        InputError: an unknown policy, or `reassign` with a last level that is not k-means.
    """
    if collisions not in get_args(Policy):
        raise InputError(f"got collisions={collisions!r}, need one of {', '.join(get_args(Policy))}")
    rq = quantizer.transform(vectors)
    known = Embeddings(list(known_ids), vectors.rows(list(known_ids)))
    fitted = quantizer.codes(known)
    if collisions == "reassign":
        if not isinstance(quantizer, ResidualKMeans):
            raise InputError("reassign needs a k-means last level; set quantizer.last to kmeans, or keep")
        fitted = reassign(known, fitted, quantizer)
        rq[ItemIndex(vectors.item_ids).rows(known.item_ids)] = fitted.rq
    codes = Codes(vectors.item_ids, rq, nearest.codes(vectors), version)
    if collisions == "suffix":
        numbers = suffixes(codes, published=(fitted, suffixes(fitted)))
        codes = Codes(codes.item_ids, codes.rq, codes.vq, version, numbers.astype(np.int32))
    return codes


def load_quantizer(folder: Path) -> Quantizer:
    """Whatever kind of quantiser a run's `codes/quantizer` holds.

    Raises:
        ArtifactError: it holds none that is known, or a file is damaged.
    """
    verify(folder)
    config = read_json(folder / "config.json")
    name = config.get("kind") if isinstance(config, dict) else None
    if name not in KINDS:
        raise ArtifactError(f"{folder}: holds {name}, need one of {', '.join(KINDS)}; quantize again")
    return KINDS[name].from_pretrained(folder)
