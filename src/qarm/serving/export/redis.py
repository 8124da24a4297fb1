"""Redis commands of the codes, for `redis-cli --pipe`.

Own packing: four lines, so that the export needs no redis client.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

__all__ = ["command", "commands"]

AT_ONCE = 1000  # members of one SADD
LISTS = ("rq", "vq", "ids", "prefixes")


def command(*parts: str | int) -> bytes:
    """One command as an array of bulk strings, whose lengths count bytes of UTF-8."""
    encoded = [str(part).encode() for part in parts]
    head = b"*%d\r\n" % len(encoded)
    return head + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded)


def commands(
    items: pl.DataFrame, codes: pl.DataFrame, *, version: int, prefix: str = "qarm"
) -> Iterator[bytes]:
    """Commands that bring a database to these tables.

    `qarm:item:<item_id>` is a hash: version, valid_from, suffix where there is one, and rq, vq, ids, prefixes
    with commas; a removed item's is deleted. `qarm:code:<code_id>` is the set of a code's items. Last,
    `qarm:version` is set.

    Args:
        items, codes: of `code_table`.
        version: of the codebooks.
        prefix: of every key.
    """
    for row in items.iter_rows(named=True):
        key = f"{prefix}:item:{row['item_id']}"
        yield command("DEL", key) if row["removed"] else command("HSET", key, *_fields(row))
    for row in codes.iter_rows(named=True):
        key, members = f"{prefix}:code:{row['code_id']}", row["item_ids"]
        yield command("DEL", key)
        for start in range(0, len(members), AT_ONCE):
            yield command("SADD", key, *members[start : start + AT_ONCE])
    yield command("SET", f"{prefix}:version", version)


def _fields(row: dict[str, Any]) -> Iterator[str | int]:
    """Names and values in turn."""
    yield from ("version", row["version"], "valid_from", row["valid_from"].isoformat())
    if row.get("suffix") is not None:
        yield from ("suffix", row["suffix"])
    for name in LISTS:
        if name in row:
            values: Sequence[int] = row[name]
            yield from (name, ",".join(map(str, values)))
