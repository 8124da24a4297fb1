"""Catalogue: one row per item with its text, its picture and its sound, read and checked."""

import hashlib
import os
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import polars as pl

from qarm.core.atomic_io import sha256_file
from qarm.core.tables import Table, TableColumns, as_ids, as_texts, media_folder, read_table, rows_hash
from qarm.errors import InputError, Problems, shown

__all__ = ["MEDIA", "MODALITIES", "Catalog", "as_catalog", "read_catalog"]

MODALITIES = ("text", "image", "audio")
MEDIA = ("image", "audio")


@dataclass(frozen=True)
class Catalog:
    """Content of the items, without any interaction.

    frame: item_id str (distinct), text str, image and audio str (a path) or binary (the file itself),
    null where an item lacks the modality, every item having at least one; rows in file order.
    folder: media paths resolve against it and do not leave it.
    """

    frame: pl.DataFrame
    folder: Path

    def __len__(self) -> int:
        return self.frame.height

    @property
    def item_ids(self) -> list[str]:
        """Item ids, in the order of the rows."""
        return self.frame["item_id"].to_list()

    def counts(self) -> dict[str, int]:
        """Number of items that have each modality."""
        return {name: len(self) - self.frame[name].null_count() for name in MODALITIES}

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

    def without_media(self, *, images: Collection[str] = (), sounds: Collection[str] = ()) -> "Catalog":
        """Catalogue without the pictures and sounds of the given item ids.

        Raises:
            InputError: an item would have no modality left.
        """
        frame = self.frame
        for name, bad in (("image", images), ("audio", sounds)):
            left_out = pl.col("item_id").is_in(list(bad))
            frame = frame.with_columns(pl.when(~left_out).then(pl.col(name)).alias(name))
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
        paths = [self.frame[name] for name in MEDIA if self.frame[name].dtype == pl.String]
        names = sorted({source for series in paths for source in series.drop_nulls()})
        with ThreadPoolExecutor() as pool:
            contents = pool.map(self._file_digest, names)
            lines = [f"{name}\0{content}\n" for name, content in zip(names, contents, strict=True)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def content_digest(self) -> str:
        """SHA-256 over ids, texts and media, in the order of the rows."""
        found = hashlib.sha256(self.media_digest().encode())
        for row in self.frame.iter_rows():
            for cell in row:
                kind = b"-" if cell is None else b"b" if isinstance(cell, bytes) else b"s"
                content = b"" if cell is None else cell if isinstance(cell, bytes) else cell.encode()
                found.update(kind + len(content).to_bytes(8, "big") + content)
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
    folder: Path | str | None = None,
) -> Catalog:
    """Catalogue from a file (Parquet, CSV or JSON Lines) or a frame.

    Args:
        table: the path of a file; or a frame of polars or pandas, an Arrow table, a `datasets.Dataset`.
        id: column of item ids, text or integers.
        text: columns joined, in order, to the item's text, one per line, empty ones left out.
        image, audio: column of paths or of file contents; None where there are none.
        folder: media paths are relative to it; by default the file's own, for a frame the working folder.

    Raises:
        InputError: all problems: missing columns, wrong types, null or duplicate ids, items
            without any content, media paths that leave the folder.
    """
    names = [text] if isinstance(text, str) else list(text)
    columns = [name for name in (id, *names, image, audio) if name is not None]
    read = read_table(table, columns, text=columns)
    if folder is None:
        folder = media_folder(table) if isinstance(table, Path | str) else Path()
    home = None if folder is None else Path(folder)
    return as_catalog(read, home, id=id, text=names, image=image, audio=audio)


def as_catalog(
    table: TableColumns,
    folder: Path | None,
    *,
    id: str,  # noqa: A002 - the key of the config
    text: Sequence[str],
    image: str | None,
    audio: str | None,
) -> Catalog:
    """Catalogue of a table that is already read.

    Args:
        folder: the folder of its media paths; None where it can have none.
        id, text, image, audio: as in `read_catalog`, and so are the errors.
    """
    problems, name = Problems(), table.name
    ids = table.column(id, problems=problems)
    if ids is not None:
        ids = as_ids(ids, table=name, problems=problems)
    columns = {
        "text": _text(table, text, problems=problems),
        "image": _media(table, image, kind="image", problems=problems),
        "audio": _media(table, audio, kind="audio", problems=problems),
    }
    if ids is None:
        problems.raise_any()
    frame = pl.DataFrame({"item_id": ids, **columns})
    _check_ids(frame, name=f"{name}.{id}", problems=problems)
    if not problems.messages:
        _check_content(frame, where=name, problems=problems)
    for kind in MEDIA:
        _check_paths(frame, kind, table=name, folder=folder, problems=problems)
    problems.raise_any()
    return Catalog(frame, (folder or Path()).absolute())


def _text(table: TableColumns, names: Sequence[str], *, problems: Problems) -> pl.Series:
    """Text columns joined to one, null where all of them are empty."""
    parts = []
    for name in names:
        series = table.column(name, problems=problems)
        if series is None:
            continue
        texts = as_texts(series)
        if texts is None:
            problems.add(
                f"{table.name}.{name}: text is {series.dtype}, need text, numbers or dates, or lists of them"
            )
            continue
        stripped = pl.lit(texts).str.strip_chars()
        parts.append(pl.when(stripped != "").then(stripped))
    if not parts:
        return _nothing("text", table.frame.height)
    joined = pl.concat_str(parts, separator="\n", ignore_nulls=True)
    return table.frame.select(pl.when(joined != "").then(joined).alias("text"))["text"]


def _media(table: TableColumns, name: str | None, *, kind: str, problems: Problems) -> pl.Series:
    """Column of paths or file contents, null where empty."""
    nothing = _nothing(kind, table.frame.height)
    if name is None:
        return nothing
    if name not in table.frame.columns:
        problems.add(
            f"{table.name}: no column {name!r} for {kind}; it has {shown(table.names, first=12)}; "
            f"name the right one, or set {kind} to null to go without"
        )
        return nothing
    found = table.column(name, problems=problems)
    if found is None or found.dtype == pl.Null:
        return nothing
    series = found.alias(kind)
    if series.dtype not in (pl.String, pl.Binary):
        problems.add(f"{table.name}.{name}: {kind} is {series.dtype}, need paths or the files' contents")
        return nothing
    empty = "" if series.dtype == pl.String else b""
    return series.to_frame().select(pl.when(pl.col(kind) != empty).then(pl.col(kind)).alias(kind))[kind]


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
            f"{where}: items {shown(empty)} have no text, picture or sound; add one or remove the rows"
        )


def _without_content(frame: pl.DataFrame) -> list[str]:
    nothing = pl.all_horizontal(pl.col(name).is_null() for name in MODALITIES)
    return frame.filter(nothing)["item_id"].to_list()


def _check_paths(
    frame: pl.DataFrame, name: str, *, table: str, folder: Path | None, problems: Problems
) -> None:
    """Problems of media paths that leave the table's folder, by name or through a symbolic link."""
    if frame[name].dtype != pl.String or frame[name].null_count() == frame.height:
        return
    if folder is None:
        problems.add(
            f"{table}: {name} holds paths, and a remote table has no folder of media; put the files' "
            "contents into the column, or copy table and media to this machine"
        )
        return
    home, inside = os.path.realpath(folder), {}
    leaving = []
    for item, source in frame.select("item_id", name).drop_nulls().iter_rows():
        parent = os.path.dirname(source)  # noqa: PTH120 - far cheaper than a Path for each item
        if parent not in inside and "\0" not in parent:
            inside[parent] = _inside(folder / parent, home)
        odd = "\0" in source or PurePath(source).name in ("", "..")
        if odd or not inside.get(parent) or _link_leaves(folder, source, home):
            leaving.append(f"{item!r}: {source!r}")
    if leaving:
        problems.add(
            f"{name} paths that leave {folder}: {shown(leaving)}; paths are relative to the table, inside it"
        )


def _inside(path: Path, home: str) -> bool:
    real = os.path.realpath(path)
    return real == home or real.startswith(home.rstrip(os.sep) + os.sep)


def _link_leaves(folder: Path, source: str, home: str) -> bool:
    path = os.path.join(folder, source)  # noqa: PTH118
    return os.path.islink(path) and not _inside(Path(path), home)  # noqa: PTH114
