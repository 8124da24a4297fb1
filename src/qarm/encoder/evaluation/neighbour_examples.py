"""Neighbour examples: ten items and their nearest ones before and after alignment, for the report."""

from collections.abc import Sequence

import numpy as np

from qarm.core.item_index import ItemIndex
from qarm.data.catalog import Catalog
from qarm.data.embeddings import Embeddings
from qarm.data.media import read_media
from qarm.data.media_columns import MediaCell
from qarm.data.previews import small_picture, title_of
from qarm.encoder.evaluation.retrieval import best_items, by_vectors
from qarm.schemas.encoder import Card, NearItem, Neighbours

__all__ = ["NEAREST", "nearest", "neighbours"]

SHOWN, NEAREST = 10, 5


def neighbours(catalog: Catalog, raw: Embeddings, aligned: Embeddings, *, seed: int = 0) -> Neighbours:
    """Content of `embeddings/neighbours.json`.

    Args:
        catalog: items that both versions have vectors of.
        raw, aligned: vectors before and after alignment.
        seed: of the draw of ten items.

    Returns:
        items: `item`, and the ids of its five nearest other items by cosine, `raw` and `aligned`, nearest
        first. cards: of every item that is named, its `title` (start of the text, None without one) and
        `picture` (a data URI of a WebP of at most 96 x 96, None without one).
    """
    ids = catalog.item_ids
    chosen = np.sort(np.random.default_rng(seed).permutation(len(ids))[:SHOWN])
    asked = [ids[number] for number in chosen]
    near = {"raw": nearest(raw, ids, asked), "aligned": nearest(aligned, ids, asked)}
    items = [
        NearItem(item=item, raw=before, aligned=after)
        for item, before, after in zip(asked, near["raw"], near["aligned"], strict=True)
    ]
    named = set(asked) | {i for rows in near.values() for row in rows for i in row}
    frame = catalog.only(sorted(named)).frame
    rows = frame.select("item_id", "text", "image").rows()
    return Neighbours(items=items, cards={item: _card(catalog, text, source) for item, text, source in rows})


def nearest(
    vectors: Embeddings, item_ids: list[str], asked: Sequence[str], *, count: int = NEAREST
) -> list[list[str]]:
    """Ids of the `count` nearest other items by cosine for each item asked about, nearest first.

    Args:
        vectors: of the items; one without a vector finds nothing and is never found.
        item_ids: among which to look; of two that are equally near, the earlier comes first.
        asked: some of `item_ids`.
    """
    chosen = ItemIndex(item_ids).rows(asked)
    width = min(count + 1, len(item_ids))
    found, scores = best_items(by_vectors(vectors, item_ids), chosen, width, len(item_ids))
    rows = []
    for own, numbers, values in zip(chosen, found, scores, strict=True):
        others = [item_ids[n] for n, s in zip(numbers, values, strict=True) if n != own and s > -np.inf]
        rows.append(others[:count])
    return rows


def _card(catalog: Catalog, text: str | None, source: MediaCell | None) -> Card:
    picture = None if source is None else small_picture(read_media(catalog, source))
    return Card(title=title_of(text), picture=picture)
