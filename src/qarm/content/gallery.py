"""Ten items and their nearest neighbours, before and after, with small pictures for the report."""

from base64 import b64encode
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image

from qarm.artifacts import Embeddings
from qarm.content.catalog import Catalog
from qarm.content.media import load_image, read_media
from qarm.content.retrieval import by_vectors

__all__ = ["neighbours"]

SHOWN, NEAREST = 10, 5
SIDE, QUALITY = 56, 70
TITLE = 60


def neighbours(catalog: Catalog, raw: Embeddings, aligned: Embeddings, *, seed: int = 0) -> dict[str, Any]:
    """Content of `embeddings/neighbours.json`.

    Args:
        catalog: items that both versions have vectors of.
        raw, aligned: vectors before and after alignment.
        seed: of the draw of ten items.

    Returns:
        items: `item`, and the ids of its five nearest other items by cosine, `raw` and `aligned`, nearest
        first. cards: of every item that is named, its `title` (start of the text, None without one) and
        `picture` (a data URI of a JPEG of at most 56 x 56, None without one).
    """
    ids = catalog.item_ids
    chosen = np.sort(np.random.default_rng(seed).permutation(len(ids))[:SHOWN])
    near = {"raw": _nearest(raw, ids, chosen), "aligned": _nearest(aligned, ids, chosen)}
    items = [
        {"item": ids[number], **{name: rows[place] for name, rows in near.items()}}
        for place, number in enumerate(chosen)
    ]
    named = {entry["item"] for entry in items} | {i for rows in near.values() for row in rows for i in row}
    frame = catalog.only(sorted(named)).frame
    rows = frame.select("item_id", "text", "image").rows()
    return {"items": items, "cards": {item: _card(catalog, text, source) for item, text, source in rows}}


def _nearest(vectors: Embeddings, ids: list[str], chosen: Any) -> list[list[str]]:
    scores = by_vectors(vectors, ids)(chosen)
    scores[torch.arange(len(chosen)), torch.from_numpy(chosen)] = -torch.inf
    found = scores.sort(dim=1, descending=True, stable=True)
    return [
        [ids[number] for number, score in zip(numbers[:NEAREST], values, strict=False) if score > -np.inf]
        for numbers, values in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]


def _card(catalog: Catalog, text: str | None, source: str | bytes | None) -> dict[str, str | None]:
    title = None if text is None else text.strip().split("\n")[0][:TITLE]
    return {"title": title, "picture": None if source is None else _small(catalog, source)}


def _small(catalog: Catalog, source: str | bytes) -> str:
    picture = load_image(read_media(catalog, source))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    content = BytesIO()
    picture.save(content, format="JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + b64encode(content.getvalue()).decode("ascii")
