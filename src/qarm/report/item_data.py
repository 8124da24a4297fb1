"""Items of the static explorer: texts, codes, neighbours, small pictures, short sounds."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import NamedTuple

import polars as pl

from qarm.core.item_index import ItemIndex
from qarm.data.catalog import Catalog
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.media import read_media
from qarm.data.media_columns import MediaCell
from qarm.data.previews import short_sound, small_picture, title_of
from qarm.encoder.evaluation.neighbour_examples import nearest
from qarm.quantizer.code_tree import CodeTree
from qarm.schemas.explorer import ExplorerItem, ExplorerItems, ItemCounts, ItemLimits

__all__ = ["explorer_items"]

ITEMS, NEAREST, TEXT = 2000, 5, 400
PICTURE_BYTES, SOUND_BYTES = 4 * 2**20, 2**20
DECODED = 64


class ItemContent(NamedTuple):
    """Text and media of an item in the catalogue; a medium is a path, the file's bytes, or several."""

    text: str | None = None
    image: MediaCell | None = None
    audio: MediaCell | None = None


def explorer_items(
    tree: CodeTree, codes: Codes, catalog: Catalog, *, raw: Embeddings, aligned: Embeddings
) -> ExplorerItems:
    """Content of `report/explorer.json`.

    The listed items come first: examples of the largest prefixes, then others in the order of the codes;
    after them items that are only neighbours of listed ones.

    Args:
        tree: of all coded items.
        codes: of the same items.
        catalog: texts and media of the items; appended items need not be in it.
        raw, aligned: vectors before and after alignment.
    """
    listed = _listed(tree, codes)
    in_catalog = set(catalog.item_ids)
    queries = [item for item in listed if item in in_catalog]
    neighbours = {
        name: dict(zip(queries, nearest(vectors, catalog.item_ids, queries, count=NEAREST), strict=True))
        for name, vectors in (("raw", raw), ("aligned", aligned))
    }
    others = (other for item in queries for lists in neighbours.values() for other in lists[item])
    contents = _contents(catalog, list(dict.fromkeys([*listed, *others])))
    pictures = _media(
        catalog, {item: row.image for item, row in contents.items()}, small_picture, most=PICTURE_BYTES
    )
    sounds = _media(catalog, {item: contents[item].audio for item in listed}, short_sound, most=SOUND_BYTES)
    rows, shown = ItemIndex(codes.item_ids), set(listed)
    items = [
        ExplorerItem(
            item=item,
            title=title_of(content.text),
            text=_start(content.text) if item in shown else None,
            codes=codes.rq[rows[item]].tolist(),
            suffix=None if codes.suffix is None else int(codes.suffix[rows[item]]),
            raw=neighbours["raw"].get(item, []) if item in shown else None,
            aligned=neighbours["aligned"].get(item, []) if item in shown else None,
            picture=pictures.get(item),
            sound=sounds.get(item),
        )
        for item, content in contents.items()
    ]
    return ExplorerItems(
        limits=ItemLimits(
            items=ITEMS, neighbours=NEAREST, picture_bytes=PICTURE_BYTES, sound_bytes=SOUND_BYTES
        ),
        counts=ItemCounts(coded=len(codes), listed=len(listed), pictures=len(pictures), sounds=len(sounds)),
        items=items,
    )


def _listed(tree: CodeTree, codes: Codes) -> list[str]:
    largest = sorted(tree.nodes(most=ITEMS), key=lambda node: -node.items)
    examples = (item for node in largest for item in node.examples)
    return list(dict.fromkeys(chain(examples, codes.item_ids[:ITEMS])))[:ITEMS]


def _contents(catalog: Catalog, item_ids: Sequence[str]) -> dict[str, ItemContent]:
    """Texts and media of the items, in this order; empty for items outside the catalogue."""
    frame = catalog.frame.filter(pl.col("item_id").is_in(pl.Series(item_ids).implode()))
    columns = ["item_id", *(name for name in ItemContent._fields if name in frame.columns)]
    contents = {
        item: ItemContent(**dict(zip(columns[1:], values, strict=True)))
        for item, *values in frame.select(columns).iter_rows()
    }
    return {item: contents.get(item, ItemContent()) for item in item_ids}


def _start(text: str | None) -> str | None:
    return None if text is None else text.strip()[:TEXT]


def _media(
    catalog: Catalog,
    sources: Mapping[str, MediaCell | None],
    preview: Callable[[bytes], str],
    *,
    most: int,
) -> dict[str, str]:
    """Data URIs of the first items that have the medium, as many as fit into `most` characters."""
    uris: dict[str, str] = {}
    present = [(item, source) for item, source in sources.items() if source is not None]
    for item, uri in _decoded(present, lambda source: preview(read_media(catalog, source))):
        most -= len(uri)
        if most < 0:
            break
        uris[item] = uri
    return uris


def _decoded(
    sources: Iterable[tuple[str, MediaCell]], decode: Callable[[MediaCell], str]
) -> Iterator[tuple[str, str]]:
    """Decoded media in batches, so that few are decoded in vain when the limit is reached."""
    rest = iter(sources)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(rest, DECODED)):
            names, contents = zip(*batch, strict=True)
            yield from zip(names, pool.map(decode, contents), strict=True)
