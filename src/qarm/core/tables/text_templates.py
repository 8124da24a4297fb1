"""Text templates: columns of a table written into one text, as in `{title}. {brand}`."""

from collections.abc import Sequence
from string import Formatter

import polars as pl

__all__ = ["filled", "is_template", "text_columns"]


def is_template(text: str) -> bool:
    """Whether an entry of the texts is a template, and not a column."""
    return "{" in text


def text_columns(entries: Sequence[str]) -> list[str]:
    """Columns that are named, by themselves or in templates, each once.

    Raises:
        ValueError: a template that names no column, or holds anything else in its braces.
    """
    names = []
    for entry in entries:
        names += _fields(entry) if is_template(entry) else [entry]
    return list(dict.fromkeys(names))


def _fields(template: str) -> list[str]:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"template {template!r}: {error}; write columns as {{title}}") from None
    named = [field for _, field, form, conversion in parts if field is not None]
    plain = all(not form and conversion is None for _, field, form, conversion in parts if field is not None)
    if not named or not all(named) or not plain:
        raise ValueError(f"template {template!r}: need names of columns in the braces, as in {{title}}")
    return named


def filled(template: str, texts: pl.DataFrame) -> pl.Series:
    """The template with each row's texts; a missing one is empty, and where all are missing, so is the row.

    Args:
        template: as above.
        texts: a column of str for each field, null where it is missing.
    """
    parts = []
    for literal, field, _, _ in Formatter().parse(template):
        parts.append(pl.lit(literal))
        if field is not None:
            parts.append(pl.col(field).fill_null(""))
    nothing = pl.all_horizontal(pl.col(field).is_null() for field in _fields(template))
    return texts.select(pl.when(~nothing).then(pl.concat_str(parts)).alias("text"))["text"]
