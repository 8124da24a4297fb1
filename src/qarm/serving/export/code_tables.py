"""Code tables for other systems: item to codes, code to items, and changes between two versions."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.data.codes import Codes
from qarm.errors import InputError

__all__ = ["changed_codes", "changed_items", "code_items", "item_codes", "offsets", "prefix_ids"]

CODES = ("rq", "vq", "suffix", "ids", "prefixes")
LARGEST = 2**63 - 1

Integers = npt.NDArray[np.int64]


def offsets(widths: Sequence[int]) -> Integers:
    """The first global id of each level, int64 [levels]: all levels' codes lie one after the other."""
    return np.cumsum([0, *widths[:-1]], dtype=np.int64)


def prefix_ids(rq: npt.NDArray[np.int32], widths: Sequence[int]) -> Integers:
    """A number for the first 1, 2, ... codes of each item, int64 [n, levels], in mixed radix.

    ((code 1) * width 2 + code 2) * width 3 + ...; the first column is code 1.

    Raises:
        InputError: the levels have more combinations than an int64 can number.
    """
    total = 1
    for level, width in enumerate(widths, start=1):
        total *= int(width)
        if total - 1 > LARGEST:
            raise InputError(
                f"levels 1 to {level} of widths {list(widths)} have {total:.3g} combinations, need at most "
                f"2**63 for prefix ids; quantize with fewer levels or lower quantizer.width"
            )
    found = np.empty(rq.shape, dtype=np.int64)
    number: Integers = np.zeros(len(rq), dtype=np.int64)
    for level, width in enumerate(widths):
        number = number * width + rq[:, level]
        found[:, level] = number
    return found


def item_codes(codes: Codes, widths: Sequence[int], *, valid_from: Sequence[datetime]) -> pl.DataFrame:
    """A row per item.

    item_id str; version i32, of the codebooks; valid_from, in UTC, of each item; rq, vq fixed-size lists of
    i32; suffix i32, where the codes have one; ids, fixed-size list of i64: the RQ codes as rows of one table
    over all levels; prefixes, fixed-size list of i64, as `prefix_ids`; removed bool, False here.
    """
    ids, prefixes = codes.rq + offsets(widths), prefix_ids(codes.rq, widths)
    levels = codes.rq.shape[1]
    moment = pl.Series("valid_from", valid_from, dtype=pl.Datetime("us", "UTC"))
    columns = ["item_id", "version", "valid_from", *CODES, "removed"]
    frame = codes.frame().with_columns(
        moment,
        pl.Series("ids", ids, dtype=pl.Array(pl.Int64, levels)),
        pl.Series("prefixes", prefixes, dtype=pl.Array(pl.Int64, levels)),
        pl.lit(False).alias("removed"),
    )
    return frame.select(name for name in columns if name in frame.columns)


def code_items(items: pl.DataFrame) -> pl.DataFrame:
    """A row per code that some item has, by `code_id`.

    code_id i64, as in `ids`; level i32, from 1; version i32; valid_from, the latest of its items; item_ids,
    list of str in the order of `items`, which is of `item_codes`.
    """
    there = items.filter(~pl.col("removed"))
    levels = items.schema["ids"].shape[0]  # type: ignore[attr-defined]
    found = []
    for level in range(levels):
        ids = there.select("item_id", "version", "valid_from", code_id=pl.col("ids").arr.get(level))
        lists = ids.group_by("code_id", maintain_order=True).agg(
            pl.col("version").max(), pl.col("valid_from").max(), item_ids="item_id"
        )
        found.append(lists.sort("code_id").with_columns(level=pl.lit(level + 1, dtype=pl.Int32)))
    return pl.concat(found).select("code_id", "level", "version", "valid_from", "item_ids")


def changed_items(before: pl.DataFrame, now: pl.DataFrame, *, same_pool: bool) -> pl.DataFrame:
    """The rows of `now` that are new or have other codes than `before`, then items that are gone.

    Version and time do not count. Gone items are marked `removed` and have no codes.

    Args:
        before, now: of `item_codes`.
        same_pool: whether pool ids mean the same in both; where not, every VQ code has changed.
    """
    compared = [name for name in CODES if name in now.columns]
    comparable = same_pool and all(before.schema.get(name) == now.schema[name] for name in compared)
    fresh = now
    if comparable:
        same = now.join(before, on=["item_id", *compared], how="semi", nulls_equal=True)
        fresh = now.join(same, on="item_id", how="anti", maintain_order="left")
    gone = before.select("item_id").join(now, on="item_id", how="anti", maintain_order="left")
    stamp = now.select(pl.col("version", "valid_from").min())  # since the version's first items
    marked = gone.join(stamp, how="cross", maintain_order="left").with_columns(removed=pl.lit(True))
    return pl.concat([fresh, marked], how="diagonal")


def changed_codes(before: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """The rows of `now` with other items than `before`, whatever their order; emptied codes have empty lists.

    Args:
        before, now: of `code_items`.
    """
    sorted_items = pl.col("item_ids").list.sort()
    keys = ["code_id", "level", "members"]
    old, new = (frame.with_columns(members=sorted_items) for frame in (before, now))
    fresh = new.join(old.select(keys), on=keys, how="anti", maintain_order="left").select(now.columns)
    emptied = (
        old.join(new, on="code_id", how="anti", maintain_order="left")
        .select("code_id", "level")
        .join(now.select(pl.col("version", "valid_from").min()), how="cross", maintain_order="left")
        .with_columns(item_ids=pl.lit([], dtype=pl.List(pl.String)))
    )
    return pl.concat([fresh, emptied.select(now.columns)]).sort("code_id")
