"""Item metadata of a bundle: text columns, and the paths of picture and sound."""

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import soundfile
from PIL import Image

from qarm.config import ItemsTable
from qarm.core.atomic_io import atomic, read_json, read_model
from qarm.core.run_folder import read_manifest
from qarm.core.tables import as_texts, files_hash, is_table, read_table
from qarm.data.catalog import MEDIA, Catalog, read_catalog
from qarm.data.media import read_media
from qarm.data.media_columns import MediaCell, without_bad
from qarm.data.media_decoding import FORMATS, UNREADABLE
from qarm.data.run_inputs import PLACES
from qarm.errors import InputError, shown
from qarm.schemas.check import TablePlaces

__all__ = ["item_facts", "run_catalog"]

ENDINGS = {"JPEG": "jpg", "TIFF": "tif", "MPEG": "mp3"}  # where it is not the format's name


def item_facts(
    run: Path,
    item_ids: Sequence[str],
    *,
    columns: ItemsTable,
    tables: Sequence[Path] = (),
    media: Path | None = None,
) -> pl.DataFrame:
    """A row per item: item_id, the text columns as str, and `image` and `audio`, paths of the bundle's files.

    Items that no table has, appended ones say, have nothing but their id.

    Args:
        run: whose tables are read.
        item_ids: the items, in order.
        columns: `data.items` of the run's config.
        tables: the run's table of items, and further ones; empty: looked for.
        media: folder to copy pictures and sounds to, as `media/<SHA-256>.<format>`; None: neither is read.

    Raises:
        InputError: no table, none that is the run's, or one that is wrong.
    """
    found = [_read(path, columns) for path in _located(run, columns, tables)]
    wanted = set(item_ids)
    frames = []
    for texts, catalog in found:
        names = {kind: _copied(run, catalog, kind, wanted, media) for kind in MEDIA}
        frames.append(texts.with_columns(**names))
    rows = pl.concat(frames).unique("item_id", keep="first", maintain_order=True)
    return pl.DataFrame({"item_id": list(item_ids)}).join(
        rows, on="item_id", how="left", maintain_order="left"
    )


def run_catalog(run: Path, *, columns: ItemsTable, tables: Sequence[Path] = ()) -> Catalog:
    """The catalogue of the first table, without the media that the run could not read; as in `item_facts`."""
    catalog = _read(_located(run, columns, tables)[0], columns)[1]
    bad = _bad(run)
    return catalog.without_media(images=bad["image"], sounds=bad["audio"], numbers=bad["numbers"])


def _bad(run: Path) -> dict[str, dict[str, Any]]:
    """Media that the run could not read, by kind and item, and which pictures of items with several."""
    path = run / "check" / "check.json"
    found = read_json(path) if path.is_file() else {}
    names = {"image": "bad_images", "audio": "bad_sounds", "numbers": "bad_numbers"}
    return {kind: found.get(name) or {} for kind, name in names.items()}


def _located(run: Path, columns: ItemsTable, tables: Sequence[Path]) -> list[Path]:
    """The tables, the one that the run read among them."""
    manifest = read_manifest(run / "check")
    expected = manifest.inputs["items"] if manifest else None
    name = columns.path
    paths = list(tables) or _remembered(run, name)
    if not paths:
        raise InputError(f"the run's table of items, {name}, is not where it was; give it with --items")
    missing = [path for path in paths if not is_table(path)]
    if missing:
        raise InputError(f"{shown(missing)}: no such file; give the run's table of items with --items")
    if expected is not None and expected not in [_hash(path, columns) for path in paths]:
        raise InputError(
            f"{shown(paths)}: not the table that the run read (its SHA-256 is {expected[:12]}...); "
            "give that one with --items"
        )
    return paths


def _remembered(run: Path, name: Path) -> list[Path]:
    """The run's table of items where it was when the run was made, else the demo's or the current one."""
    places = [run / "world" / name, name]
    if (run / PLACES).is_file():
        places.insert(0, Path(read_model(run / PLACES, TablePlaces).items))
    return [path for path in places if is_table(path)][:1]


def _hash(path: Path, columns: ItemsTable) -> str:
    return (None if columns.has_files else files_hash(path)) or _read(path, columns)[1].rows_hash()


def _read(path: Path, columns: ItemsTable) -> tuple[pl.DataFrame, Catalog]:
    """The text columns by item, and the catalogue."""
    catalog, names = read_catalog(path, **columns.content), [columns.id, *columns.text_columns]
    table = read_table(path, names, text=names)
    ids = catalog.frame.select("item_id")
    texts = pl.DataFrame([as_texts(table.frame[name]) for name in columns.text_columns])
    return ids.hstack(texts.drop("item_id", *MEDIA, strict=False)), catalog


def _copied(run: Path, catalog: Catalog, kind: str, wanted: set[str], media: Path | None) -> pl.Series:
    """Names of a kind's files, copied to the bundle; null where one is missing or damaged."""
    if media is None:
        return pl.repeat(None, len(catalog), dtype=pl.String, eager=True).alias(kind)
    bad = _bad(run)
    left = without_bad(catalog.frame, kind, bad[kind], bad["numbers"] if kind == "image" else {})
    names = [
        _copy(catalog, cell, kind, media) if cell and item in wanted else None
        for item, cell in left.select("item_id", kind).iter_rows()
    ]
    return pl.Series(kind, names, dtype=pl.String)


def _copy(catalog: Catalog, cell: MediaCell, kind: str, media: Path) -> str | None:
    try:
        content = read_media(catalog, cell)
        ending = _image_format(content) if kind == "image" else _sound_format(content)
    except (InputError, soundfile.LibsndfileError, *UNREADABLE):
        return None
    name = f"media/{hashlib.sha256(content).hexdigest()}.{ENDINGS.get(ending, ending.lower())}"
    if not (media / name).is_file():
        with atomic(media / name) as temporary:
            temporary.write_bytes(content)
    return name


def _image_format(content: bytes) -> str:
    with Image.open(BytesIO(content), formats=FORMATS) as image:
        return str(image.format)


def _sound_format(content: bytes) -> str:
    with soundfile.SoundFile(BytesIO(content)) as sound:
        return str(sound.format)
