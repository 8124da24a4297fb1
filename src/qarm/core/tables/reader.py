"""Tables of the input: Parquet, CSV, JSON Lines or frames; errors name the rows."""

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from qarm.core.frames import Frame, as_frame
from qarm.errors import InputError

__all__ = ["Table", "read_table", "table_name"]

Table = Path | str | Frame


def _read_parquet(path: Path, text: Sequence[str]) -> pl.DataFrame:
    return pl.read_parquet(path, glob=False, hive_partitioning=False)


def _read_csv(path: Path, text: Sequence[str]) -> pl.DataFrame:
    as_text = dict.fromkeys(text, pl.String)
    # Types are inferred from the whole file, so that a letter in row 5,000 is read as text.
    return pl.read_csv(
        path, glob=False, infer_schema_length=None, try_parse_dates=True, schema_overrides=as_text
    )


def _read_json_lines(path: Path, text: Sequence[str]) -> pl.DataFrame:
    return pl.read_ndjson(glob.escape(str(path)), infer_schema_length=None)


READERS: dict[str, Callable[[Path, Sequence[str]], pl.DataFrame]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}
FRAME = "frame"
SUFFIXES = ", ".join(READERS)
# polars panics on some damaged files; a PanicException is no Exception.
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, UnicodeError, MemoryError)


def read_table(table: Table, *, text: Sequence[str] = ()) -> pl.DataFrame:
    """One table with at least one row.

    Args:
        table: a file whose suffix is .parquet, .csv, .jsonl or .ndjson; or a frame (see `as_frame`).
        text: columns of a CSV that are read as text, so that the id 007 stays 007.

    Raises:
        InputError: the file is missing, of an unknown kind, unreadable or without rows.
    """
    frame = _read_file(Path(table), text) if isinstance(table, Path | str) else as_frame(table)
    if frame.height == 0:
        raise InputError(f"{table if isinstance(table, Path | str) else FRAME}: the table has no rows")
    return frame


def table_name(table: Table) -> str:
    """Name of a table in messages: of its file, or `frame`."""
    return Path(table).name if isinstance(table, Path | str) else FRAME


def _read_file(path: Path, text: Sequence[str]) -> pl.DataFrame:
    if not os.path.isfile(path):  # noqa: PTH113 - never raises, whatever the name
        raise InputError(f"{path}: no such file; check data.root and the table's path")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: got suffix {path.suffix!r}, need one of {SUFFIXES}")
    try:
        return reader(path, text) if path.stat().st_size else pl.DataFrame()
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not readable as {path.suffix[1:]}: {reason}") from error
