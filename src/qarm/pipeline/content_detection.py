"""Detection of an item's content: columns of texts, of pictures and of sounds, by their names and values."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import polars as pl

from qarm.core.tables import TableColumns, as_numbers, as_texts
from qarm.core.tables.times import as_times
from qarm.pipeline.column_detection import ROWS, is_media_struct, place

__all__ = ["MEDIA_NAMES", "choose_texts", "media_columns"]

TEXTS = ("title", "name", "brand", "category", "categories", "subtitle", "description", "tags", "text")
MEDIA_NAMES = {
    "image": ("image", "photo", "picture", "img", "thumbnail", "cover"),
    "audio": ("audio", "sound", "track", "song"),
}
MEDIA_FILE = {
    "image": r"(?i)\.(png|jpe?g|webp|gif|bmp|tiff?)$",
    "audio": r"(?i)\.(wav|flac|ogg|mp3)$",
}
ADDRESS = r"(?i)^(https?|s3|gs)://"
OPAQUE = r"(?i)^(?:[0-9a-f-]{16,}|[^\s]{40,})$"  # hashes, uuids and encoded bytes
MOST_TEXTS = 6


@dataclass(frozen=True)
class Texts:
    """Text columns in their order, and those that were left out as there are too many."""

    columns: list[str]
    left_out: list[str] = field(default_factory=list)


def choose_texts(table: TableColumns, taken: Iterable[str | None]) -> Texts:
    """Columns of words, those with a text's name first."""
    foreign = {*taken}
    names = [n for n in table.frame.columns if n not in foreign and _is_text(table.frame[n].head(ROWS))]
    names.sort(key=lambda name: (place(name, TEXTS), table.frame.columns.index(name)))
    return Texts(names[:MOST_TEXTS], names[MOST_TEXTS:])


def _is_text(series: pl.Series) -> bool:
    """Whether an encoder can read it: words; no numbers, dates, hashes, file names, addresses."""
    if not isinstance(series.dtype, pl.String | pl.Categorical | pl.Enum | pl.List | pl.Array | pl.Binary):
        return False
    texts = as_texts(series)
    if texts is None or texts.dtype != pl.String:
        return False
    values = texts.drop_nulls().filter(texts.drop_nulls().str.strip_chars() != "")
    if not len(values) or as_numbers(values) is not None or as_times(values).fault is None:
        return False
    others = (ADDRESS, OPAQUE, *MEDIA_FILE.values())
    return _share(values, r"\pL") > 0.5 and all(_share(values, pattern) < 0.5 for pattern in others)


def _share(values: pl.Series, pattern: str) -> float:
    return float(values.str.contains(pattern).sum()) / len(values)


def media_columns(
    frame: pl.DataFrame, kind: str, exists: Callable[[str], bool] | None
) -> Iterator[tuple[str, str | None]]:
    """Columns of pictures or sounds, each with the reason why it cannot be read, None where it can.

    Args:
        frame: the catalogue.
        kind: image or audio.
        exists: whether a path leads to a file; None: the table has no folder of media.
    """
    for name in frame.columns:
        values = frame[name].drop_nulls().head(ROWS)
        if isinstance(values.dtype, pl.List) and kind == "image":  # several pictures of an item
            values = values.explode().drop_nulls()
        called = any(word in name.lower() for word in MEDIA_NAMES[kind])
        if called and (values.dtype == pl.Binary or is_media_struct(values)):
            yield name, None
        if values.dtype != pl.String or not len(values := values.filter(values != "")):
            continue
        if called and _share(values, ADDRESS) > 0.5:
            yield (
                name,
                "it holds addresses, and only files are read: fetch them, name a column of paths",
            )
        elif _share(values, MEDIA_FILE[kind]) > 0.9:
            yield name, _unread(values.head(100).to_list(), exists)


def _unread(paths: list[str], exists: Callable[[str], bool] | None) -> str | None:
    if exists is None:
        return "it holds paths, and a remote table has no folder of media: put the contents into the column"
    if any(map(exists, paths)):
        return None
    return f"it holds paths such as {paths[0]}, and there is no such file in the table's folder"
