"""Catalogue: one row per item with its text, its picture and its sound, read and checked."""

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from qarm.core.atomic_io import sha256_file
from qarm.core.paths import as_path
from qarm.core.tables import Table, TableColumns, as_ids, as_texts, media_folder, read_table, rows_hash
from qarm.core.tables.feature_columns import (
    AttributeKind,
    attribute_column,
    is_vector_file,
    vector_column,
    vector_key,
)
from qarm.core.tables.text_templates import filled, is_template, text_columns
from qarm.core.text_tables import ROWS, html_table
from qarm.data.media_columns import (
    MediaCell,
    check_paths,
    media_column,
    paths_of,
    sources_of,
    without_bad,
)
from qarm.errors import InputError, Problems, shown

__all__ = ["MEDIA", "MODALITIES", "Catalog", "as_catalog", "read_catalog", "text_catalog"]

MODALITIES = ("text", "image", "audio")
MEDIA = ("image", "audio")


@dataclass(frozen=True, repr=False)
class Catalog:
    """Content of the items, without any interaction.

    frame: item_id str (distinct), text str, image and audio str (a path), binary (the file itself) or, where
    items have several pictures, lists of structs with `bytes` and `path`; null where an item lacks the
    modality, every item having at least one; rows in file order.
    Further columns are features that the items come with: `attributes` (JSON), and vectors (float32 bytes).
    folder: media paths resolve against it and do not leave it.
    """

    frame: pl.DataFrame
    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", as_path(self.folder))

    def __len__(self) -> int:
        return self.frame.height

    def __repr__(self) -> str:
        names = {"text": "text", "image": "picture", "audio": "sound"}
        counts = ", ".join(
            f"{count:,} with {names.get(kind, kind)}" for kind, count in self.counts().items() if count
        )
        return f"Catalog({len(self):,} items: {counts})"

    def _repr_html_(self) -> str:
        from qarm.data.previews import preview_rows

        return html_table(repr(self), ["item_id", "text", "picture", "sound"], preview_rows(self, ROWS))

    @property
    def item_ids(self) -> list[str]:
        """Item ids, in the order of the rows."""
        return self.frame["item_id"].to_list()

    def counts(self) -> dict[str, int]:
        """Number of items that have each modality."""
        return {name: len(self) - self.frame[name].null_count() for name in self.modalities}

    @property
    def modalities(self) -> list[str]:
        """Names of the columns of content: text, image, audio, and the features."""
        return [name for name in self.frame.columns if name != "item_id"]

    @property
    def features(self) -> list[str]:
        """Names of the columns of features: `attributes`, and `vector_` with a name."""
        return [name for name in self.modalities if name not in MODALITIES]

    def only(self, item_ids: Iterable[str]) -> "Catalog":
        """Catalogue of the given items, in file order; unknown ids are ignored.

        Raises:
            InputError: none of the ids is known.
        """
        wanted = list(item_ids)
        frame = self.frame.filter(pl.col("item_id").is_in(wanted))
        if frame.height == 0:
            raise InputError(
                f"none of {len(wanted):,} item ids ({shown(wanted, first=3)}) is in the catalogue; "
                "check that both tables write ids alike"
            )
        return replace(self, frame=frame)

    def without_media(
        self,
        *,
        images: Collection[str] = (),
        sounds: Collection[str] = (),
        numbers: Mapping[str, Sequence[int]] | None = None,
    ) -> "Catalog":
        """Catalogue without the pictures and sounds of the given item ids.

        Args:
            images, sounds: item ids.
            numbers: from 0, which pictures of an item go, where it has several and the others stay.

        Raises:
            InputError: an item would have no modality left.
        """
        frame = without_bad(self.frame, "image", images, numbers or {})
        frame = without_bad(frame, "audio", sounds, {})
        empty = _without_content(frame)
        if empty:
            raise InputError(
                f"items {shown(empty)} have nothing left without their unreadable media; "
                "repair the files, give them a text, or remove the rows"
            )
        return replace(self, frame=frame)

    def path(self, source: str) -> Path:
        """Path of a media file that the table names."""
        return self.folder / source

    def sample(self, count: int = 10) -> dict[str, str | None]:
        """Texts of the first items by id, as the encoder reads them."""
        return dict(self.frame.head(count).select("item_id", "text").iter_rows())

    def rows_hash(self) -> str:
        """SHA-256 of all rows."""
        return rows_hash(self.frame)

    def media_digest(self) -> str:
        """SHA-256 over the names and contents of all media files; a missing file counts as "missing"."""
        names = sorted({path for kind in MEDIA for path in paths_of(self.frame[kind])})
        with ThreadPoolExecutor() as pool:
            contents = pool.map(self._file_digest, names)
            lines = [f"{name}\0{content}\n" for name, content in zip(names, contents, strict=True)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def content_digest(self) -> str:
        """SHA-256 over ids, texts and media, in the order of the rows."""
        found = hashlib.sha256(self.media_digest().encode())
        for row in self.frame.iter_rows():
            for cell in row:
                found.update(_cell_content(cell))
        return found.hexdigest()

    def _file_digest(self, source: str) -> str:
        path = self.path(source)
        return sha256_file(path) if os.path.isfile(path) else "missing"  # noqa: PTH113 - never raises


def read_catalog(
    table: Table,
    *,
    id: str = "item_id",  # noqa: A002 - the key of the config
    text: Sequence[str] = ("title", "description"),
    image: str | None = "image_path",
    audio: str | None = "audio_path",
    vectors: Sequence[str] = (),
    attributes: Mapping[str, AttributeKind] | None = None,
    folder: Path | str | None = None,
) -> Catalog:
    """Catalogue from a file (Parquet, CSV or JSON Lines) or a frame.

    Args:
        table: the path of a file; or a frame of polars or pandas, an Arrow table, a `datasets.Dataset`.
        id: column of item ids, text or integers.
        text: columns joined, in order, to the item's text, one per line, empty ones left out; or templates
            of columns, `{title}. {brand}`.
        image, audio: column of paths, of file contents, of structs with `bytes` and `path` (as Hugging Face's
            datasets have them), or of lists of these for items with several pictures; None: there are none.
        vectors: list columns of vectors that an encoder elsewhere made, or `.npy` and Parquet files of them.
        attributes: columns of attributes, each `categorical`, `list` or `number`.
        folder: media paths are relative to it; by default the file's own, for a frame the working folder.

    Raises:
        InputError: all problems: missing columns, wrong types, null or duplicate ids, items
            without any content, media paths that leave the folder.
    """
    names = [text] if isinstance(text, str) else list(text)
    try:
        fields = text_columns(names)
    except ValueError as error:
        raise InputError(str(error)) from None
    kinds = dict(attributes or {})
    texts = [name for name in (id, *fields, image, audio) if name is not None]
    listed = [name for name in vectors if not is_vector_file(name)]
    texts += [name for name, kind in kinds.items() if kind == "categorical"]
    read = read_table(table, list(dict.fromkeys([*texts, *kinds, *listed])), text=texts)
    if folder is None:
        folder = media_folder(table) if isinstance(table, Path | str) else Path()
    home = None if folder is None else as_path(folder)
    return as_catalog(
        read, home, id=id, text=names, image=image, audio=audio, vectors=vectors, attributes=kinds
    )


def text_catalog(texts: Sequence[str]) -> Catalog:
    """Catalogue of texts alone; the items are called `0`, `1` and so on.

    Raises:
        InputError: no texts, one that is empty, or something else than text.
    """
    listed = [texts] if isinstance(texts, str) else list(texts)
    wrong = [row for row, text in enumerate(listed) if not isinstance(text, str) or not text.strip()]
    if isinstance(texts, str) or wrong or not listed:
        where = f"empty or no text at {shown(wrong)}" if wrong else f"got {type(texts).__name__}"
        raise InputError(f'{where}, need a list of texts that are not empty, such as ["red shoe"]')
    frame = pl.DataFrame({"item_id": [str(row) for row in range(len(listed))], "text": listed})
    nothing = [pl.lit(None, dtype=pl.String).alias(kind) for kind in MEDIA]
    return Catalog(frame.with_columns(nothing), Path())


def as_catalog(
    table: TableColumns,
    folder: Path | None,
    *,
    id: str,  # noqa: A002 - the key of the config
    text: Sequence[str],
    image: str | None,
    audio: str | None,
    vectors: Sequence[str] = (),
    attributes: Mapping[str, AttributeKind] | None = None,
) -> Catalog:
    """Catalogue of a table that is already read.

    Args:
        folder: the folder of its media paths; None where it can have none.
        id, text, image, audio, vectors, attributes: as in `read_catalog`, and so are the errors.
    """
    problems, name = Problems(), table.name
    ids = table.column(id, problems=problems)
    if ids is not None:
        ids = as_ids(ids, table=name, problems=problems)
    columns = {
        "text": _text(table, text, problems=problems),
        "image": media_column(table, image, kind="image", problems=problems),
        "audio": media_column(table, audio, kind="audio", problems=problems),
    }
    if ids is None:
        problems.raise_any()
    assert ids is not None  # noqa: S101 - else it was raised
    if attributes:
        columns["attributes"] = attribute_column(table, attributes, problems=problems)
    for own in vectors:
        columns[vector_key(own)] = vector_column(table, own, ids=ids, folder=folder, problems=problems)
    frame = pl.DataFrame({"item_id": ids, **columns})
    _check_ids(frame, name=f"{name}.{id}", problems=problems)
    if not problems.messages:
        _check_content(frame, where=name, problems=problems)
    for kind in MEDIA:
        check_paths(frame, kind, table=name, folder=folder, problems=problems)
    problems.raise_any()
    return Catalog(frame, (folder or Path()).absolute())


def _text(table: TableColumns, names: Sequence[str], *, problems: Problems) -> pl.Series:
    """Text columns joined to one, null where all of them are empty."""
    parts: list[pl.Expr] = []
    read = {name: _texts(table, name, problems=problems) for name in text_columns(names)}
    texts = pl.DataFrame({name: series for name, series in read.items() if series is not None})
    if len(texts.columns) == len(read):
        parts = [pl.lit(filled(name, texts) if is_template(name) else texts[name]) for name in names]
    if not parts:
        return _nothing("text", table.frame.height)
    joined = pl.concat_str(parts, separator="\n", ignore_nulls=True)
    return table.frame.select(pl.when(joined != "").then(joined).alias("text"))["text"]


def _texts(table: TableColumns, name: str, *, problems: Problems) -> pl.Series | None:
    """A column as texts without spaces around them, null where empty; None where it has none."""
    series = table.column(name, problems=problems)
    texts = None if series is None else as_texts(series)
    if series is not None and texts is None:
        problems.add(
            f"{table.name}.{name}: text is {series.dtype}, need text, numbers or dates, or lists of them"
        )
    if texts is None:
        return None
    stripped = texts.alias(name).str.strip_chars()
    return stripped.to_frame().select(pl.when(pl.col(name) != "").then(pl.col(name)))[name]


def _nothing(name: str, height: int) -> pl.Series:
    return pl.repeat(None, height, dtype=pl.String, eager=True).alias(name)


def _check_ids(frame: pl.DataFrame, *, name: str, problems: Problems) -> None:
    rows = frame.with_row_index("row").group_by("item_id", maintain_order=True).agg("row")
    repeated = rows.filter(pl.col("row").list.len() > 1)
    if repeated.height:
        named = [f"{item!r} in rows {shown(where)}" for item, where in repeated.iter_rows()]
        problems.add(f"{name}: duplicate ids: {shown(named)}; keep one row per item")


def _check_content(frame: pl.DataFrame, *, where: str, problems: Problems) -> None:
    empty = _without_content(frame)
    if empty:
        problems.add(
            f"{where}: items {shown(empty)} have no text, picture or sound, nor others; "
            "add one or remove the rows"
        )


def _cell_content(cell: MediaCell | None) -> bytes:
    """Bytes that tell a cell from others: its type, its length, its content."""
    if isinstance(cell, list):
        parts = [_cell_content(source) for source in sources_of(cell)]
        return b"l" + len(parts).to_bytes(8, "big") + b"".join(parts)
    kind = b"-" if cell is None else b"b" if isinstance(cell, bytes) else b"s"
    content = b"" if cell is None else cell if isinstance(cell, bytes) else cell.encode()
    return kind + len(content).to_bytes(8, "big") + content


def _without_content(frame: pl.DataFrame) -> list[str]:
    nothing = pl.all_horizontal(pl.col(name).is_null() for name in frame.columns if name != "item_id")
    return frame.filter(nothing)["item_id"].to_list()
