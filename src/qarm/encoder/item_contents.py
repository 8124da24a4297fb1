"""Contents of items as towers load them; an item with several pictures has a content for each of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from qarm.data.catalog import MEDIA, Catalog
from qarm.data.media import blame, read_media
from qarm.data.media_columns import sources_of
from qarm.encoder.towers.tower import Tower, reads, reads_parts
from qarm.errors import InputError

__all__ = [
    "Several",
    "content_key",
    "contents_of",
    "encode_items",
    "flattened",
    "load_item",
    "mean_features",
    "readable",
]

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Several:
    """Loaded inputs of one item, one for each of its pictures; its feature is the mean of theirs."""

    inputs: tuple[Any, ...]


def readable(catalog: Catalog, name: str, tower: Tower) -> npt.NDArray[np.bool_]:
    """Which items have something that the tower reads, bool [n]."""
    there = [
        catalog.frame[modality].is_not_null().to_numpy()
        if modality in catalog.modalities
        else np.zeros(len(catalog), dtype=np.bool_)
        for modality in reads(name, tower)
    ]
    found: npt.NDArray[np.bool_] = np.logical_or.reduce(there)
    return found


def contents_of(catalog: Catalog, name: str, tower: Tower, row: Mapping[str, Any]) -> list[Any]:
    """What a tower loads of an item: str or bytes, or for a tower of several modalities those by name.

    An item with several pictures has one content for each, with the same text and sound.

    Raises:
        InputError: a file cannot be read, by name of the item.
    """
    own = reads(name, tower)
    parts = {m: _contents(catalog, m, row) for m in own if row.get(m) is not None}
    contents = [dict(zip(parts, chosen, strict=True)) for chosen in product(*parts.values())]
    return contents if reads_parts(name, tower) else [content[own[0]] for content in contents]


def _contents(catalog: Catalog, modality: str, row: Mapping[str, Any]) -> list[str | bytes]:
    if modality not in MEDIA:
        return [row[modality]]
    contents: list[str | bytes] = []
    for source in sources_of(row[modality]):
        try:
            contents.append(read_media(catalog, source))
        except InputError as error:
            raise _blamed(row, modality, blame(source, error)) from None
    return contents


def load_item(name: str, tower: Tower, row: Mapping[str, Any], contents: Sequence[Any]) -> Any:
    """`tower.load` of the only content, or `Several` of them; errors name the item and the file."""
    media = [m for m in reads(name, tower) if m in MEDIA and row.get(m) is not None]
    sources = sources_of(row[media[0]]) if len(media) == 1 else []
    loaded = []
    for number, content in enumerate(contents):
        try:
            loaded.append(tower.load(content))
        except InputError as error:
            reason = blame(sources[number], error) if sources else str(error)
            raise _blamed(row, media[0] if sources else name, reason) from None
    return loaded[0] if len(loaded) == 1 else Several(tuple(loaded))


def _blamed(row: Mapping[str, Any], modality: str, reason: str) -> InputError:
    return InputError(
        f"item {row['item_id']!r}: {modality} {reason}; repair it, or use Catalog.without_media"
    )


def content_key(contents: Sequence[Any]) -> bytes:
    """SHA-256 of an item's content; of several, over their hashes."""
    keys = [_key(content) for content in contents]
    return keys[0] if len(keys) == 1 else hashlib.sha256(b"several\0" + b"".join(keys)).digest()


def _key(content: Any) -> bytes:
    """SHA-256 of a content; of several parts, over their names and hashes."""
    if isinstance(content, Mapping):
        lines = b"".join(name.encode() + b"\0" + _key(part) for name, part in content.items())
        return hashlib.sha256(lines).digest()
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).digest()


# ---- features -----------------------------------------------------------------------------------


def encode_items(tower: Tower, inputs: Sequence[Any]) -> Array:
    """Features of loaded items, [n, ...]; the mean over the pictures of an item with several."""
    flat, sizes = flattened(inputs)
    return mean_features(tower.encode(flat), sizes)


def flattened(inputs: Sequence[Any]) -> tuple[list[Any], npt.NDArray[np.int64]]:
    """Loaded inputs one by one, and how many of them each item has, int64 [n]."""
    each = [item.inputs if isinstance(item, Several) else (item,) for item in inputs]
    flat = [one for own in each for one in own]
    return flat, np.fromiter((len(own) for own in each), np.int64, len(each))


def mean_features(values: Array, sizes: npt.NDArray[np.int64]) -> Array:
    """Mean of the features of each item, [n, ...], of the type of `values`."""
    if len(sizes) == len(values):
        return values
    sums = np.add.reduceat(values.astype(np.float64), np.cumsum(sizes) - sizes, axis=0)
    means: Array = (sums / sizes.reshape(-1, *[1] * (values.ndim - 1))).astype(values.dtype)
    return means
