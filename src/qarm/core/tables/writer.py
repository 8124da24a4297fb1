"""Tables for a user: the ending of the file's name decides what is written."""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from qarm.core.atomic_io import atomic
from qarm.core.paths import as_path
from qarm.core.tables.parquet import write_json_lines, write_parquet
from qarm.errors import InputError

__all__ = ["checked_ending", "write_table"]


def checked_ending(path: Path | str) -> str:
    """Ending of a table's name, in small letters.

    Raises:
        InputError: tables are not written with this ending.
    """
    ending = as_path(path).suffix.lower()
    if ending not in WRITERS:
        raise InputError(
            f"{path}: got ending {ending!r}, need one of {', '.join(WRITERS)}; it decides the format"
        )
    return ending


def write_table(path: Path | str, frame: pl.DataFrame) -> None:
    """Atomic write of a table in the format of its ending.

    CSV has no lists: a list of fixed length becomes columns, `rq_1`, `rq_2` and so on.

    Raises:
        InputError: tables are not written with this ending.
    """
    WRITERS[checked_ending(path)](as_path(path), frame)


def _csv(path: Path, frame: pl.DataFrame, separator: str = ",") -> None:
    columns: list[pl.Expr] = []
    for name, kind in frame.schema.items():
        if isinstance(kind, pl.Array):
            columns += [pl.col(name).arr.get(n).alias(f"{name}_{n + 1}") for n in range(kind.shape[0])]
        else:
            columns.append(pl.col(name))
    with atomic(path) as temporary:
        frame.select(columns).write_csv(temporary, separator=separator)


def _tsv(path: Path, frame: pl.DataFrame) -> None:
    _csv(path, frame, separator="\t")


def _json_lines(path: Path, frame: pl.DataFrame) -> None:
    arrays = [pl.col(name).arr.to_list() for name, kind in frame.schema.items() if isinstance(kind, pl.Array)]
    write_json_lines(path, frame.with_columns(arrays))


def _arrow(path: Path, frame: pl.DataFrame) -> None:
    with atomic(path) as temporary:
        frame.write_ipc(temporary, compat_level=pl.CompatLevel.oldest())


WRITERS: dict[str, Callable[[Path, pl.DataFrame], None]] = {
    ".parquet": write_parquet,
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".arrow": _arrow,
    ".feather": _arrow,
}
