"""Detection of what the columns of a shop's tables hold, by their names and their values."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from qarm.core.tables import TableColumns, as_keys, as_numbers, read_table
from qarm.core.tables.times import as_times
from qarm.errors import InputError, shown

__all__ = [
    "IDS",
    "ORDERS",
    "ROWS",
    "TIMES",
    "USERS",
    "Choice",
    "choose_label",
    "choose_time",
    "choose_user",
    "is_media_struct",
    "is_named",
    "open_table",
    "place",
]

# names of columns, the likeliest first
IDS: tuple[str, ...] = ("item_id", "sku", "product_id", "asin", "parent_asin", "article_id", "movie_id")
IDS = (*IDS, "video_id", "track_id", "book_id", "news_id", "listing_id", "offer_id", "item", "product")
IDS = (*IDS, "article", "id")
USERS: tuple[str, ...] = (
    "user_id",
    "user",
    "customer_id",
    "customer",
    "visitor_id",
    "visitor",
    "reviewer_id",
)
USERS = (*USERS, "reviewer", "member_id", "account_id", "client_id", "buyer_id", "uid", "who")
USERS = (*USERS, "session_id", "session")
TIMES = ("timestamp", "time", "ts", "datetime", "event_time", "date", "created_at", "at", "when", "created")
ORDERS = ("order", "position", "sequence", "seq", "step", "index")
GRADES = ("stars", "rating", "ratings", "grade", "score", "overall")
FLAGS = (
    "label",
    "clicked",
    "click",
    "liked",
    "like",
    "purchased",
    "bought",
    "positive",
    "is_click",
    "target",
)
ROWS = 10_000  # that are looked at to tell what a column holds
GRADE_SHARE = 0.8  # of the highest grade: 4 of 5 stars, 8 of 10
MOST_GRADES = 21


@dataclass(frozen=True)
class Choice:
    """A column, why it was chosen, and whether another reading is possible; at_least: of a label's grades."""

    column: str
    why: str
    sure: bool = True
    at_least: float | None = None


def open_table(table: str) -> tuple[TableColumns, list[str]]:
    """All columns of a table, fields of structs as columns `info.title`, and what cannot be read.

    Raises:
        InputError: no table, or not one column of it can be read.
    """
    try:
        read, notes = read_table(table), list[str]()
    except InputError as error:
        read, notes = _readable_columns(table, error)
    frame = read.frame
    while structs := _plain_structs(frame):
        fields = [
            frame[name].struct.field(part).alias(f"{name}.{part}")
            for name in structs
            for part in frame[name].struct.fields
            if f"{name}.{part}" not in frame.columns
        ]
        frame = frame.drop(structs).with_columns(fields)
    return TableColumns(read.name, frame, frame.columns), notes


def _plain_structs(frame: pl.DataFrame) -> list[str]:
    """Names of the struct columns whose fields are columns of their own."""
    return [one.name for one in frame if isinstance(one.dtype, pl.Struct) and not is_media_struct(one)]


def _readable_columns(table: str, error: InputError) -> tuple[TableColumns, list[str]]:
    """The columns that can be read one by one, where not all can be at once."""
    try:
        names = read_table(table, []).names
    except InputError:
        raise error from None
    series, notes = list[pl.Series](), list[str]()
    for name in names:
        try:
            series.append(read_table(table, [name]).frame[name])
        except InputError as fault:
            notes.append(f"column {name} is left out, it cannot be read: {fault}")
    if not series:
        raise error
    return TableColumns(read_table(table, [series[0].name]).name, pl.DataFrame(series), names), notes


def place(name: str, words: Sequence[str]) -> int:
    """Place of a name among words, their number where it is none; `info.title` counts as `title`."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.rpartition(".")[2]).lower()
    plain = re.sub(r"[\s-]+", "_", plain.strip())
    return words.index(plain) if plain in words else len(words)


def is_named(name: str, words: Sequence[str]) -> bool:
    """Whether a name is one of the words."""
    return place(name, words) < len(words)


def _best(words: Sequence[str], names: Iterable[str]) -> list[str]:
    """The names among the words, in the words' order."""
    return [name for _, name in sorted((place(name, words), name) for name in names if is_named(name, words))]


# ---- the log ----------------------------------------------------------------------------------


def choose_user(frame: pl.DataFrame, item: str) -> Choice | None:
    """Column of users: by its name, else the only column of repeated keys."""
    keys = [name for name in frame.columns if name != item and as_keys(frame[name].head(ROWS)) is not None]
    if named := _best(USERS, keys):
        session = "session" in named[0].lower()
        others = f"; {shown(named[1:])} could be it too" if named[1:] else ""
        why = "sessions stand for users" if session else f"named as users are{others}"
        return Choice(named[0], why, sure=not (session or others))
    repeated = [name for name in keys if _may_be_user(frame[name])]
    return Choice(repeated[0], "the only repeated ids", sure=False) if len(repeated) == 1 else None


def _may_be_user(series: pl.Series) -> bool:
    known = (TIMES, ORDERS, GRADES, FLAGS)
    kind = series.dtype
    if any(is_named(series.name, words) for words in known) or kind in (pl.Boolean, pl.Date, pl.Null):
        return False
    if kind == pl.String and not as_times(series.head(ROWS)).fault and as_numbers(series.head(ROWS)) is None:
        return False
    return MOST_GRADES < series.n_unique() < len(series)


def choose_time(frame: pl.DataFrame, names: Sequence[str]) -> tuple[str, Choice] | None:
    """`time` or `order`, and its column; None where there is none."""
    named, dated = list[str](), list[str]()
    for name in names:
        kind, values = frame[name].dtype, frame[name].head(ROWS)
        if (kind.is_temporal() and kind not in (pl.Duration, pl.Time)) or _is_dated_text(values):
            dated.append(name)
        if is_named(name, TIMES) and _has_times(values):
            named.append(name)
    if found := _best(TIMES, named) or dated:
        best, others = found[0], [name for name in {*named, *dated} if name != found[0]]
        fault = as_times(frame[best]).fault
        why = fault or as_times(frame[best]).said
        if others:
            why += f"; {shown(sorted(others))} hold times too"
        return "time", Choice(best, why, sure=not (others or fault))
    orders = _best(ORDERS, (name for name in names if as_numbers(frame[name].head(ROWS)) is not None))
    return ("order", Choice(orders[0], "no column of times; named as an order is", False)) if orders else None


def _is_dated_text(series: pl.Series) -> bool:
    return series.dtype == pl.String and as_numbers(series) is None and _has_times(series)


def _has_times(series: pl.Series) -> bool:
    """Whether values are times; an ambiguous date is one, and a setting decides."""
    times = as_times(series)
    return series.null_count() < len(series) and (times.fault is None or _ambiguous(times.fault))


def _ambiguous(fault: str) -> bool:
    return "day or the month first" in fault.replace("\n", " ")


def choose_label(frame: pl.DataFrame, names: Sequence[str]) -> tuple[Choice | None, list[str]]:
    """Column of 1 and 0, or of grades with the least positive one; and other columns of 1 and 0."""
    flags, grades = list[str](), list[str]()
    for name in names:
        if not (is_named(name, FLAGS) or is_named(name, GRADES) or frame[name].dtype == pl.Boolean):
            continue
        values = as_numbers(frame[name])
        if values is None:
            continue
        distinct = set(values.drop_nulls().unique())
        if distinct == {0.0, 1.0} and not values.null_count():
            flags.append(name)
        elif is_named(name, GRADES) and 2 <= len(distinct) <= MOST_GRADES:
            grades.append(name)
    if named := _best(FLAGS, flags):
        others = [name for name in flags if name != named[0]]
        why = "1 and 0" + (f"; {shown(others)} have 1 and 0 too" if others else "")
        return Choice(named[0], why, sure=not others), others
    if graded := _best(GRADES, grades):
        return _of_grades(frame[graded[0]]), flags
    return None, flags


def _of_grades(series: pl.Series) -> Choice:
    values = as_numbers(series)
    assert values is not None  # noqa: S101 - its caller looked
    grades = sorted(float(value) for value in values.drop_nulls().unique())
    least = next(grade for grade in grades if grade >= GRADE_SHARE * grades[-1])
    count = float((values >= least).sum() / max(len(values), 1))
    why = f"grades from {grades[0]:g} to {grades[-1]:g}; {count:.0%} of the events have at least {least:g}"
    return Choice(series.name, why, sure=False, at_least=least)


def is_media_struct(series: pl.Series) -> bool:
    """Whether values are structs of `bytes` and `path`, as Hugging Face's `Image` and `Audio` columns."""
    return isinstance(series.dtype, pl.Struct) and set(series.struct.fields) == {"bytes", "path"}
