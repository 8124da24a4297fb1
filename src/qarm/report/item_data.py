"""What the static explorer shows of items: texts, codes, neighbours, small pictures, short sounds."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any

import polars as pl

from qarm.data.catalog import Catalog
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.media import read_media
from qarm.data.previews import short_sound, small_picture, title_of
from qarm.encoder.evaluation.neighbour_examples import nearest
from qarm.quantizer.code_tree import CodeTree

__all__ = ["items_json"]

ITEMS, NEAREST, TEXT = 2000, 5, 400
PICTURE_BYTES, SOUND_BYTES = 4 * 2**20, 2**20
DECODED = 64

Row = Mapping[str, Any]


def items_json(
    tree: CodeTree, codes: Codes, catalog: Catalog, *, raw: Embeddings, aligned: Embeddings
) -> dict[str, Any]:
    """Content of `report/explorer.json`.

    Args:
        tree: of all coded items.
        codes: of the same items.
        catalog: what is known of them; appended items need not be in it.
        raw, aligned: vectors before and after alignment.

    Returns:
        limits: `items` that can be looked up, `neighbours` of each, `picture_bytes` and `sound_bytes` in
        all. counts: `coded`, `listed`, `pictures`, `sounds`. items: the listed ones, examples of the
        largest prefixes first, then items that are only a listed one's neighbour; each with `item`, `title`,
        `text` (its start), `codes`, `suffix`, `raw` and `aligned` (ids of its nearest items, None where it is
        not listed), `picture` and `sound` (data URIs, None where it has none or the bytes are used up).
    """
    known, listed = set(catalog.item_ids), _listed(tree, codes)
    asked = [item for item in listed if item in known]
    near = {
        name: dict(zip(asked, nearest(vectors, catalog.item_ids, asked, count=NEAREST), strict=True))
        for name, vectors in (("raw", raw), ("aligned", aligned))
    }
    named = (other for item in asked for lists in near.values() for other in lists[item])
    everything = list(dict.fromkeys([*listed, *named]))
    rows = _rows(catalog, everything)
    pictures = _media(catalog, rows, "image", small_picture, most=PICTURE_BYTES)
    sounds = _media(catalog, {item: rows[item] for item in listed}, "audio", short_sound, most=SOUND_BYTES)
    place = {item: row for row, item in enumerate(codes.item_ids)}
    chosen = set(listed)
    items = [
        {
            "item": item,
            "title": title_of(rows[item].get("text")),
            "text": _start(rows[item].get("text")) if item in chosen else None,
            "codes": codes.rq[place[item]].tolist(),
            "suffix": None if codes.suffix is None else int(codes.suffix[place[item]]),
            "raw": near["raw"].get(item, []) if item in chosen else None,
            "aligned": near["aligned"].get(item, []) if item in chosen else None,
            "picture": pictures.get(item),
            "sound": sounds.get(item),
        }
        for item in everything
    ]
    return {
        "limits": {
            "items": ITEMS,
            "neighbours": NEAREST,
            "picture_bytes": PICTURE_BYTES,
            "sound_bytes": SOUND_BYTES,
        },
        "counts": {
            "coded": len(codes),
            "listed": len(listed),
            "pictures": len(pictures),
            "sounds": len(sounds),
        },
        "items": items,
    }


def _listed(tree: CodeTree, codes: Codes) -> list[str]:
    largest = sorted(tree.nodes(most=ITEMS), key=lambda node: -node.items)
    examples = (item for node in largest for item in node.examples)
    return list(dict.fromkeys(chain(examples, codes.item_ids[:ITEMS])))[:ITEMS]


def _rows(catalog: Catalog, item_ids: Sequence[str]) -> dict[str, Row]:
    """What the catalogue has of each item, in this order; nothing of those that it does not know."""
    frame = catalog.frame.filter(pl.col("item_id").is_in(pl.Series(item_ids).implode()))
    found = {row["item_id"]: row for row in frame.iter_rows(named=True)}
    return {item: found.get(item, {}) for item in item_ids}


def _start(text: str | None) -> str | None:
    return None if text is None else text.strip()[:TEXT]


def _media(
    catalog: Catalog, rows: Mapping[str, Row], kind: str, small: Callable[[bytes], str], *, most: int
) -> dict[str, str]:
    """Data URIs of the first items that have any, until the next one would not fit."""
    sources = [(item, row[kind]) for item, row in rows.items() if row.get(kind) is not None]
    found: dict[str, str] = {}
    for item, uri in _decoded(sources, lambda source: small(read_media(catalog, source))):
        most -= len(uri)
        if most < 0:
            break
        found[item] = uri
    return found


def _decoded(sources: Iterable[tuple[str, Any]], decode: Callable[[Any], str]) -> Iterator[tuple[str, str]]:
    """A few at a time, so that none is decoded in vain when the room is used up."""
    rest = iter(sources)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(rest, DECODED)):
            names, contents = zip(*batch, strict=True)
            yield from zip(names, pool.map(decode, contents), strict=True)
