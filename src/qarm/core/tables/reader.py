"""Tables of the input, from files or frames: only the columns that are asked for; errors name the file."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from qarm.core.tables.frames import Frame, as_frame
from qarm.core.tables.location import Part, escaped, located_parts
from qarm.core.tables.parquet_size import check_parquet_size, check_values_size
from qarm.errors import InputError, Problems, shown

__all__ = ["Table", "TableColumns", "column", "read_table", "table_name"]

# polars refuses a whole file for a time zone such as +05:30, although it reads its instants
os.environ.setdefault("POLARS_IGNORE_TIMEZONE_PARSE_ERROR", "1")

Table = Path | str | Frame
FRAME = "frame"
# polars panics on some damaged files; a PanicException is no Exception.
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, UnicodeError, MemoryError)
NO_TEXT = "\ufffd"  # what is not UTF-8 is read as
SEPARATORS = (";", "\t", "|", ",")  # of files whose header has none of what their ending promises
ARROW_FILE = b"ARROW1"  # how a file of the Arrow IPC format begins; a stream begins otherwise


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table that were asked for, as far as it has them.

    name: of the table in messages; frame: its rows; names: of all columns that the table has.
    """

    name: str
    frame: pl.DataFrame
    names: list[str]

    def column(self, name: str, *, problems: Problems) -> pl.Series | None:
        """Column by its name; None, and a problem, as in `column`."""
        return column(self.frame, name, table=self.name, problems=problems, names=self.names)


def column(
    frame: pl.DataFrame, name: str, *, table: str, problems: Problems, names: Sequence[str] | None = None
) -> pl.Series | None:
    """Column by its name.

    None, and a problem, where it is missing or its values are Python objects of several types.

    Args:
        names: of all columns of the table, for the message; by default the frame's.
    """
    if name not in frame.columns:
        there = frame.columns if names is None else names
        problems.add(f"{table}: no column {name!r}; it has {shown(there, first=12)}")
        return None
    series = frame.get_column(name)
    if series.dtype != pl.Object:
        return series
    kinds = sorted({type(value).__name__ for value in series if value is not None})
    problems.add(f"{table}.{name}: values are of type {' and '.join(kinds)}, need one; convert them to it")
    return None


def read_table(
    table: Table, columns: Sequence[str] | None = None, *, text: Sequence[str] = ()
) -> TableColumns:
    """Columns of a table with at least one row. Other columns are not read, and do no harm.

    CSV holds text only, so every column of it is text, as it is written: `007` stays `007`.

    Args:
        table: a place (see `located_parts`) or a frame (see `as_frame`).
        columns: names; `info.title` is a field of the column `info` where no column has that name. None: all.
        text: columns that are text even where JSON Lines hold numbers or both: 7 and 7.0 become `7`.

    Raises:
        InputError: nothing is there, of an unknown kind, unreadable or without rows.
    """
    name, wanted = table_name(table), None if columns is None else list(dict.fromkeys(columns))
    if not isinstance(table, Path | str):
        frame = as_frame(table)
        found, names = _chosen(frame.lazy(), frame.schema, wanted).collect(), frame.columns
    else:
        found, names = _joined([_read_part(part, wanted, text) for part in located_parts(table)], table)
    found = found.select([one for one in wanted or found.columns if one in found.columns])
    if not found.height and (found.columns or not names):
        raise InputError(f"{table if isinstance(table, Path | str) else FRAME}: the table has no rows")
    return TableColumns(name, found, names)


def table_name(table: Table) -> str:
    """Name of a table in messages: of its file or folder, or `frame`."""
    return Path(table).name if isinstance(table, Path | str) else FRAME


@dataclass(frozen=True)
class _PartRows:
    """Rows of one file, the names of all its columns, and whether a column may be absent from it."""

    place: str
    frame: pl.DataFrame
    names: list[str]
    sparse: bool


def _joined(parts: list[_PartRows], table: Path | str) -> tuple[pl.DataFrame, list[str]]:
    """Rows of all files, in their order, and the names of all columns."""
    filled = [part for part in parts if part.frame.height]
    names = list(dict.fromkeys(name for part in parts for name in part.names))
    there = list(dict.fromkeys(name for part in filled for name in part.frame.columns))
    problems = Problems()
    for part in filled:
        missing = [name for name in there if name not in part.frame.columns]
        if missing and not part.sparse:
            problems.add(f"{part.place}: no column {shown(missing)}, which other files of {table} have")
    problems.raise_any()
    if not filled:
        return next((part.frame for part in parts if part.frame.columns), pl.DataFrame()), names
    try:
        return pl.concat([part.frame for part in filled], how="diagonal_relaxed").select(there), names
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{table}: its files differ in the type of a column: {reason}") from error


def _read_part(part: Part, columns: list[str] | None, text: Sequence[str]) -> _PartRows:
    if any("\ud800" <= letter <= "\udfff" for letter in part.place):
        raise InputError(f"{part.place!r}: the name is not UTF-8; rename the file or folder")
    try:
        if not part.remote and os.stat(part.place).st_size == 0:  # noqa: PTH116
            return _PartRows(part.place, pl.DataFrame(), [], sparse=True)
        rows, names = _rows(part, columns, text)
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{part.place}: not readable as {part.kind}: {reason}") from error
    keys = [key for key in part.keys if rows.columns and (columns is None or key in columns)]
    values = [pl.lit(part.keys[key], dtype=pl.String).alias(key) for key in keys]
    names = list(dict.fromkeys([*names, *part.keys]))
    return _PartRows(part.place, rows.with_columns(values), names, sparse=part.kind == "jsonl")


def _rows(part: Part, columns: list[str] | None, text: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """The columns of a file, and the names of all that it has."""
    if part.kind in ("csv", "tsv"):
        return _read_csv(part, columns)
    if part.kind == "jsonl":
        return _read_json_lines(part, columns, text)
    if part.kind == "arrow":
        return _read_arrow(part, columns)
    table = pl.scan_parquet(part.place, glob=False, hive_partitioning=False)
    if not part.remote:
        check_parquet_size(part.place, columns)
    schema = table.collect_schema()
    rows = _chosen(table, schema, columns).collect()
    if not part.remote:
        check_values_size(part.place, rows)
    return rows, schema.names()


def _chosen(table: pl.LazyFrame, schema: pl.Schema, columns: list[str] | None) -> pl.LazyFrame:
    """The columns that a table has, also fields of a struct by `column.field`."""
    if columns is None:
        return table
    found = {name: _field(name, schema) for name in columns}
    return table.select(value.alias(name) for name, value in found.items() if value is not None)


def _field(name: str, schema: pl.Schema) -> pl.Expr | None:
    if name in schema:
        return pl.col(name)
    head, *fields = name.split(".")
    kind, value = schema.get(head), pl.col(head)
    for field in fields:
        kinds = {one.name: one.dtype for one in kind.fields} if isinstance(kind, pl.Struct) else {}
        kind, value = kinds.get(field), value.struct.field(field)  # type: ignore[assignment] # a DataType
    return None if kind is None else value


# ---- kinds of files ---------------------------------------------------------------------------


def _read_csv(part: Part, columns: list[str] | None) -> tuple[pl.DataFrame, list[str]]:
    def query(encoding: str, separator: str) -> pl.LazyFrame:
        return pl.scan_csv(
            part.place,
            separator=separator,
            infer_schema=False,
            glob=False,
            encoding=encoding,  # type: ignore[arg-type]
        )

    separator = "\t" if part.kind == "tsv" else ","
    schema = query("utf8-lossy", separator).collect_schema()
    if (other := _other_separator(schema.names())) is not None:
        separator, schema = other, query("utf8-lossy", other).collect_schema()
    twice = [name for name in columns or () if f"{name}_duplicated_0" in schema]
    if twice:
        raise InputError(f"{part.place}: several columns {shown(twice)}; give each a name of its own")
    try:
        rows = _chosen(query("utf8", separator), schema, columns).collect()
    except pl.exceptions.ComputeError as error:
        if "utf" not in str(error).lower():
            raise
        rows = _without_damage(_chosen(query("utf8-lossy", separator), schema, columns).collect(), part)
    return rows, schema.names()


def _other_separator(names: Sequence[str]) -> str | None:
    """What separates the columns of a header that would else be one column; None where it is one or many."""
    if len(names) != 1:
        return None
    counts = {separator: names[0].count(separator) for separator in SEPARATORS}
    most = max(SEPARATORS, key=lambda separator: counts[separator])
    return most if counts[most] else None


def _without_damage(rows: pl.DataFrame, part: Part) -> pl.DataFrame:
    """The rows, where only other columns are not UTF-8."""
    for series in rows.select(pl.col(pl.String)):
        damaged = series.str.contains(NO_TEXT, literal=True).fill_null(False).arg_true()
        if len(damaged):
            raise InputError(
                f"{part.place}: not readable as {part.kind}: column {series.name} is not UTF-8 in rows "
                f"{shown(damaged)}; save the file as UTF-8"
            )
    return rows


def _read_json_lines(
    part: Part, columns: list[str] | None, text: Sequence[str]
) -> tuple[pl.DataFrame, list[str]]:
    try:
        return _parse_json_lines(part.place, columns, text)
    except pl.exceptions.ComputeError as error:
        if part.remote or "utf" not in str(error).lower():
            raise
    content = Path(part.place).read_bytes().decode("utf-8", errors="replace").encode()
    rows, names = _parse_json_lines(content, columns, text)
    return _without_damage(rows, part), names


def _parse_json_lines(
    source: str | bytes, columns: list[str] | None, text: Sequence[str]
) -> tuple[pl.DataFrame, list[str]]:
    """Chosen columns of JSON Lines; types come from all rows, also that of a letter in row 5,000."""

    def query(schema: dict[str, pl.DataType] | None) -> pl.LazyFrame:
        if isinstance(source, bytes):
            return pl.scan_ndjson(io.BytesIO(source), schema=schema, infer_schema_length=None)
        return pl.scan_ndjson(escaped(source), schema=schema, infer_schema_length=None)

    try:
        schema = query(None).collect_schema()
    except pl.exceptions.SchemaError:  # values of several types in a column: all that is asked for is text
        schema = pl.Schema(dict.fromkeys(columns or text, pl.String()))
    heads = {head for name in columns or schema for head in (name, name.split(".")[0])}
    kinds = {name: _json_kind(kind, name in text) for name, kind in schema.items() if name in heads}
    if not kinds:
        return pl.DataFrame(), schema.names()
    return _chosen(query(kinds), pl.Schema(kinds), columns).collect(), schema.names()


def _json_kind(kind: pl.DataType, is_text: bool) -> pl.DataType:
    return pl.String() if is_text and not kind.is_nested() else kind


def _read_arrow(part: Part, columns: list[str] | None) -> tuple[pl.DataFrame, list[str]]:
    """An Arrow IPC file (Feather version 2), or a stream, as `datasets` writes it."""
    if not part.remote and not _is_arrow_file(part.place):
        with open(part.place, "rb") as stream:  # noqa: PTH123
            rows = pl.read_ipc_stream(stream)
        return _chosen(rows.lazy(), rows.schema, columns).collect(), rows.columns
    table = pl.scan_ipc(part.place, glob=False)
    schema = table.collect_schema()
    return _chosen(table, schema, columns).collect(), schema.names()


def _is_arrow_file(place: str) -> bool:
    with open(place, "rb") as stream:  # noqa: PTH123
        return stream.read(len(ARROW_FILE)) == ARROW_FILE
