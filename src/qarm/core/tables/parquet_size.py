"""Memory that a Parquet file needs when it is read, by its footer: a few KB can unpack to many GB.

polars tells no sizes of columns, and pyarrow is no dependency; the footer is Thrift's compact protocol.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import polars as pl

from qarm.errors import InputError

__all__ = ["LIMIT", "check_parquet_size", "check_values_size"]

LIMIT = "QARMTABLE_MAX_GIB"  # environment variable
GIB, RATIO = 2**30, 200  # tables under 1 GiB, and under so many times their file, are read without it
MAGIC, TAIL = b"PAR1", 8
WIDTHS = {0: 1, 1: 4, 2: 8, 3: 8, 4: 4, 5: 8, 6: 16, 7: 16}  # bytes in memory of a value, by physical type
NUMBERS, BINARY, LISTS, MAP, STRUCT = (3, 4, 5, 6), 8, (9, 10), 11, 12
DEEPEST = 16  # levels of structs and lists; Parquet's footer has six


def check_parquet_size(path: str, columns: Collection[str] | None) -> None:
    """Refusal of a file whose columns would take too much memory; a damaged footer is left to the reader.

    Args:
        columns: those that are read, by name or `column.field`; None: all.

    Raises:
        InputError: over 1 GiB and over 200 times the size of the file, and the limit was not raised.
    """
    heads = None if columns is None else {head for name in columns for head in (name, name.split(".")[0])}
    try:
        needed = _needed(path, heads)
    except (ValueError, LookupError, TypeError):
        return
    _refuse(path, needed)


def check_values_size(path: str, frame: pl.DataFrame) -> None:
    """Refusal of texts and bytes that share memory, such as one long text in many rows, and would not later.

    Raises:
        InputError: as `check_parquet_size`.
    """
    lengths = [pl.col(pl.String).str.len_bytes(), pl.col(pl.Binary).bin.size()]
    sums = frame.select(length.cast(pl.Int64).sum() for length in lengths)
    _refuse(path, sum(value or 0 for value in sums.row(0)) if sums.width else 0)


def _refuse(path: str, needed: int) -> None:
    size = Path(path).stat().st_size
    given = os.environ.get(LIMIT)
    try:
        limit = max(GIB, RATIO * size) if given is None else int(float(given) * GIB)
    except (ValueError, OverflowError):
        raise InputError(f"{LIMIT} = {given!r}, need a number of GiB") from None
    if needed > limit:
        raise InputError(
            f"{path}: {size:,} bytes unpack to {needed / GIB:.1f} GiB, more than the {limit / GIB:.1f} GiB "
            f"that are read of it; leave out what is repeated, or set {LIMIT}={int(needed / GIB) + 1}"
        )


def _needed(path: str, heads: Collection[str] | None) -> int:
    """Bytes in memory: of each column chunk its unpacked pages or its values, whichever is more."""
    total = 0
    for group in _footer(path)[4]:
        for column in group[1]:
            facts = column[3]
            names = {facts[3][0].decode(), ".".join(map(bytes.decode, facts[3]))}
            if heads is None or not names.isdisjoint(heads):
                total += max(facts[6], facts[5] * WIDTHS[facts[1]])
    return total


def _footer(path: str) -> Any:
    with Path(path).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - TAIL, 0))
        tail = file.read(TAIL)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or length > end - TAIL:
            raise ValueError(path)
        file.seek(end - TAIL - length)
        return _Compact(file.read(length)).struct(0)


class _Compact:
    """Reader of Thrift's compact protocol: structs as dicts by field number, lists, numbers, bytes."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def byte(self) -> int:
        value = self.content[self.place]
        self.place += 1
        return value

    def count(self) -> int:
        value, shift = 0, 0
        while True:
            part = self.byte()
            value |= (part & 0x7F) << shift
            shift += 7
            if not part & 0x80:
                return value

    def number(self) -> int:
        value = self.count()
        return (value >> 1) ^ -(value & 1)

    def struct(self, depth: int) -> dict[int, object]:
        if depth > DEEPEST:
            raise ValueError(depth)
        fields: dict[int, object] = {}
        name = 0
        while head := self.byte():
            name = name + (head >> 4) if head >> 4 else self.number()
            kind = head & 15
            fields[name] = kind == 1 if kind in (1, 2) else self.value(kind, depth + 1)
        return fields

    def value(self, kind: int, depth: int) -> object:
        if kind in NUMBERS:
            return self.number() if kind != NUMBERS[0] else self.byte()
        if kind == BINARY:
            return self.take(self.count())
        if kind in LISTS:
            return self.list(depth)
        if kind == STRUCT:
            return self.struct(depth)
        if kind in (1, 2):  # in a list
            return self.byte() == 1
        if kind == 7:
            return self.take(8)
        raise ValueError(kind)

    def list(self, depth: int) -> list[object]:
        head = self.byte()
        size = head >> 4 if head >> 4 < 15 else self.count()
        if depth > DEEPEST or size > len(self.content):
            raise ValueError(size)
        return [self.value(head & 15, depth + 1) for _ in range(size)]

    def take(self, size: int) -> bytes:
        value = self.content[self.place : self.place + size]
        if len(value) < size:
            raise ValueError(size)
        self.place += size
        return value
