"""Columns of tables as what the config says that they are: ids, texts, numbers."""

import polars as pl

from qarm.errors import Problems, shown

__all__ = ["as_ids", "as_keys", "as_numbers", "as_texts"]

TEXTS = (pl.String, pl.Categorical, pl.Enum)
BETWEEN = ", "  # the values of a list or a struct in a text
TRUTH = {"true": 1.0, "false": 0.0}


def as_ids(
    series: pl.Series, *, table: str, problems: Problems, rows: pl.Series | None = None
) -> pl.Series | None:
    """Ids as text, as in `as_keys`; nulls and empty text are problems.

    Args:
        rows: row of each entry in the file, from 0, for messages; by default its position.
    """
    ids = as_keys(series)
    if ids is None:
        problems.add(f"{table}.{series.name}: ids are {series.dtype}, need text or integers; cast them")
        return None
    bad = (ids.is_null() | (ids == "")).arg_true()
    if len(bad):
        file_rows = bad if rows is None else rows.gather(bad)
        problems.add(f"{table}.{series.name}: null or empty ids in rows {shown(file_rows)}; remove them")
        return None
    return ids


def as_keys(series: pl.Series) -> pl.Series | None:
    """Values that stand for something, as text; None where their type has no one way to be written.

    Text stays as it is; whole numbers, decimals without a fraction, booleans (`true`) and dates
    (`2024-01-31`) become text. Floats do not: 7.0 and 7 would be two ids.
    """
    kind = series.dtype
    whole = kind.is_integer() or (isinstance(kind, pl.Decimal) and kind.scale == 0)
    if whole or kind in TEXTS or kind in (pl.Boolean, pl.Date, pl.Null):
        return series.cast(pl.String)
    return _decoded(series) if kind == pl.Binary else None


def as_texts(series: pl.Series) -> pl.Series | None:
    """Values as an encoder reads them; null where one is missing; None where they are no text.

    A number is written with the fewest digits that tell it apart in the column's own type, a decimal with all
    of its digits; NaN is missing. Times with a zone are written in UTC, with a Z. The values of a list or a
    struct are joined by commas.
    """
    kind = series.dtype
    if kind.is_float():
        return series.fill_nan(None).cast(pl.String)
    if kind.is_numeric() or kind in TEXTS or kind in (pl.Boolean, pl.Date, pl.Time, pl.Null):
        return series.cast(pl.String)
    if isinstance(kind, pl.Datetime):
        moments = series.cast(pl.Int64).cast(pl.Datetime(kind.time_unit)).dt.strftime("%Y-%m-%d %H:%M:%S%.f")
        return moments if kind.time_zone is None else moments + "Z"
    if kind == pl.Duration:
        return series.dt.to_string("iso")
    if isinstance(kind, pl.List | pl.Array):
        return _joined_list(series)
    if isinstance(kind, pl.Struct):
        return _joined_struct(series)
    return _decoded(series) if kind == pl.Binary else None


def as_numbers(series: pl.Series) -> pl.Series | None:
    """Numbers as float64, null where one is missing; booleans are 1 and 0, and so are `true` and `false`.

    None where the column holds no numbers, or a text that is none.
    """
    kind = series.dtype
    if kind.is_numeric() or kind in (pl.Boolean, pl.Null):
        return series.cast(pl.Float64).fill_nan(None)
    if kind not in TEXTS:
        return None
    texts = series.cast(pl.String).str.strip_chars()
    texts = texts.set(texts == "", None)
    numbers = texts.cast(pl.Float64, strict=False)
    truth = texts.str.to_lowercase().replace_strict(TRUTH, default=None, return_dtype=pl.Float64)
    values = numbers.zip_with(numbers.is_not_null(), truth)
    return None if (values.is_null() & texts.is_not_null()).any() else values.fill_nan(None)


def _decoded(series: pl.Series) -> pl.Series | None:
    """Bytes as text: some writers of Parquet do not mark their text columns."""
    try:
        return series.cast(pl.String)
    except pl.exceptions.PolarsError:
        return None


def _joined_list(series: pl.Series) -> pl.Series | None:
    lists = series.arr.to_list() if isinstance(series.dtype, pl.Array) else series
    values = as_texts(lists.explode(empty_as_null=True, keep_nulls=True))
    if values is None:
        return None
    rows = pl.int_range(len(lists), eager=True).repeat_by(lists.list.len().fill_null(0).clip(1)).explode()
    kept = pl.DataFrame({"row": rows, "value": values}).filter(pl.col("value").str.strip_chars() != "")
    joined = kept.group_by("row").agg(pl.col("value").str.join(BETWEEN))
    all_rows = pl.DataFrame({"row": pl.int_range(len(lists), eager=True)})
    return all_rows.join(joined, on="row", how="left", maintain_order="left")["value"].alias(series.name)


def _joined_struct(series: pl.Series) -> pl.Series | None:
    fields = [as_texts(series.struct.field(name)) for name in series.struct.fields]
    if any(field is None for field in fields) or not fields:
        return None
    stripped = [pl.lit(field).str.strip_chars() for field in fields]
    parts = [pl.when(text != "").then(text) for text in stripped]
    joined = pl.select(pl.concat_str(parts, separator=BETWEEN, ignore_nulls=True)).to_series()
    return joined.set(joined == "", None).alias(series.name)
