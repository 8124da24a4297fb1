"""Media columns of a table: paths, contents, Hugging Face structs of both, and lists of any of them."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TypedDict

import polars as pl

from qarm.core.tables import TableColumns
from qarm.errors import Problems, shown

__all__ = ["MediaCell", "MediaEntry", "check_paths", "media_column", "paths_of", "sources_of", "without_bad"]


class MediaEntry(TypedDict):
    """One of several media of an item: the content of a file, or else its path."""

    bytes: bytes | None
    path: str | None


MediaCell = str | bytes | list[MediaEntry]  # a path, a content, or several of them
ENTRY = {"bytes": pl.Binary, "path": pl.String}
NEED = "need paths, contents of files, structs of bytes and path, or lists of them"


def sources_of(cell: MediaCell) -> list[str | bytes]:
    """Paths and contents of a cell, in their order."""
    if isinstance(cell, str | bytes):
        return [cell]
    found = (entry["path"] if entry["bytes"] is None else entry["bytes"] for entry in cell)
    return [source for source in found if source is not None]


def paths_of(series: pl.Series) -> pl.Series:
    """Distinct paths in a media column, in alphabetical order."""
    if series.dtype == pl.String:
        return series.drop_nulls().unique().sort()
    if series.dtype == pl.Binary:
        return pl.Series(dtype=pl.String)
    return series.explode().struct.field("path").drop_nulls().unique().sort()


# ---- reading ------------------------------------------------------------------------------------


def media_column(table: TableColumns, name: str | None, *, kind: str, problems: Problems) -> pl.Series:
    """Media of one kind, null where an item has none.

    A content is taken where there is one, else its path. The column is of paths (str) or of contents (binary)
    where it holds nothing else and no item has several, else of lists of structs with `bytes` and `path`.
    """
    nothing = pl.repeat(None, table.frame.height, dtype=pl.String, eager=True).alias(kind)
    if name is None:
        return nothing
    if name not in table.frame.columns:
        problems.add(
            f"{table.name}: no column {name!r} for {kind}; it has {shown(table.names, first=12)}; "
            f"name the right one, or set {kind} to null to go without"
        )
        return nothing
    found = table.column(name, problems=problems)
    if found is None:
        return nothing
    media = _normal(found)
    if media is None:
        problems.add(f"{table.name}.{name}: {kind} is {found.dtype}, {NEED}")
        return nothing
    if kind == "audio" and isinstance(media.dtype, pl.List):
        several = (media.list.len() > 1).arg_true()
        if len(several):
            problems.add(f"{table.name}.{name}: several sounds in rows {shown(several)}, need one; choose it")
    return media.alias(kind)


def _normal(series: pl.Series) -> pl.Series | None:
    """The column in its simplest form; None where its type holds no media."""
    cells = pl.DataFrame({"row": pl.int_range(len(series), eager=True), "cell": series})
    if isinstance(series.dtype, pl.List | pl.Array):
        cells = cells.explode("cell")
    parts = _bytes_and_paths(cells["cell"])
    if parts is None:
        return None
    contents, paths = parts
    entries = cells.select("row", bytes=contents, path=paths)
    entries = entries.with_columns(
        pl.when(pl.col("bytes") != b"").then("bytes").alias("bytes"),
        pl.when(pl.col("path") != "").then("path").alias("path"),
    )
    entries = entries.with_columns(path=pl.when(pl.col("bytes").is_null()).then("path"))
    entries = entries.filter(pl.any_horizontal(pl.col("bytes", "path").is_not_null()))
    if entries["row"].n_unique() < entries.height or not _uniform(entries):
        values = entries.group_by("row").agg(cell=pl.struct("bytes", "path"))
    else:
        used = "path" if entries["bytes"].null_count() == entries.height else "bytes"
        values = entries.select("row", cell=used)
    rows = pl.DataFrame({"row": pl.int_range(len(series), eager=True)})
    return rows.join(values, on="row", how="left", maintain_order="left")["cell"]


def _uniform(entries: pl.DataFrame) -> bool:
    return entries["bytes"].null_count() in (0, entries.height)


def _bytes_and_paths(cells: pl.Series) -> tuple[pl.Series, pl.Series] | None:
    """Contents and paths of cells that each hold one medium; None where their type holds none."""
    fields = {"bytes": cells, "path": cells}
    if isinstance(cells.dtype, pl.Struct):
        names = [field.name for field in cells.dtype.fields]
        if not {*ENTRY} & {*names}:
            return None
        fields = {name: cells.struct.field(name) for name in ENTRY if name in names}
        wrong = [name for name, values in fields.items() if values.dtype not in (ENTRY[name], pl.Null)]
    else:
        wrong = [] if cells.dtype in (pl.String, pl.Binary, pl.Null) else [str(cells.dtype)]
        fields = {name: values for name, values in fields.items() if values.dtype == ENTRY[name]}
    if wrong:
        return None
    nothing = pl.repeat(None, len(cells), dtype=pl.Null, eager=True)
    contents, paths = (fields.get(name, nothing).cast(kind) for name, kind in ENTRY.items())
    return contents, paths


# ---- what cannot be read ------------------------------------------------------------------------


def without_bad(
    frame: pl.DataFrame, kind: str, bad: Collection[str], numbers: Mapping[str, Sequence[int]]
) -> pl.DataFrame:
    """A catalogue's rows without the media of some items.

    Args:
        bad: ids of the items.
        numbers: from 0, which media of such an item go, where others of it stay.
    """
    whole = [item for item in bad if item not in numbers]
    frame = frame.with_columns(pl.when(~pl.col("item_id").is_in(whole)).then(kind).alias(kind))
    gone = [(item, number) for item, own in numbers.items() for number in own]
    if not gone or not isinstance(frame[kind].dtype, pl.List):
        return frame
    schema = {"item_id": pl.String, "number": pl.Int64}
    entries = frame.select("item_id", kind).explode(kind).drop_nulls(kind)
    entries = entries.with_columns(number=pl.int_range(pl.len()).over("item_id"))
    kept = entries.join(pl.DataFrame(gone, schema, orient="row"), on=["item_id", "number"], how="anti")
    lists = kept.group_by("item_id").agg(pl.col(kind).sort_by("number"))
    columns = frame.columns
    return frame.drop(kind).join(lists, on="item_id", how="left", maintain_order="left").select(columns)


# ---- paths --------------------------------------------------------------------------------------


def check_paths(
    frame: pl.DataFrame, kind: str, *, table: str, folder: Path | None, problems: Problems
) -> None:
    """Problems of media paths that leave the table's folder, by name or through a symbolic link."""
    if not len(paths_of(frame[kind])):
        return
    if folder is None:
        problems.add(
            f"{table}: {kind} holds paths, and a remote table has no folder of media; put the files' "
            "contents into the column, or copy table and media to this machine"
        )
        return
    home, inside = os.path.realpath(folder), {}
    leaving = []
    for item, source in _named_paths(frame, kind):
        parent = os.path.dirname(source)  # noqa: PTH120 - far cheaper than a Path for each item
        if parent not in inside and "\0" not in parent:
            inside[parent] = _inside(folder / parent, home)
        odd = "\0" in source or PurePath(source).name in ("", "..")
        if odd or not inside.get(parent) or _link_leaves(folder, source, home):
            leaving.append(f"{item!r}: {source!r}")
    if leaving:
        problems.add(
            f"{kind} paths that leave {folder}: {shown(leaving)}; paths are relative to the table, inside it"
        )


def _named_paths(frame: pl.DataFrame, kind: str) -> Iterator[tuple[str, str]]:
    for item, cell in frame.select("item_id", kind).drop_nulls().iter_rows():
        yield from ((item, source) for source in sources_of(cell) if isinstance(source, str))


def _inside(path: Path, home: str) -> bool:
    real = os.path.realpath(path)
    return real == home or real.startswith(home.rstrip(os.sep) + os.sep)


def _link_leaves(folder: Path, source: str, home: str) -> bool:
    path = os.path.join(folder, source)  # noqa: PTH118
    return os.path.islink(path) and not _inside(Path(path), home)  # noqa: PTH114
