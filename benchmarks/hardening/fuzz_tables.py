"""Hostile tables and configs for `qarm check`, which ends with a result or one message, never a traceback."""

import contextlib
import io
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from hypothesis import strategies as st
from polars.testing.parametric import column, dataframes

from qarm.cli import main
from qarm.config import Config

__all__ = ["BOMB", "ODD", "check_command", "check_config", "check_tables", "configs", "damaged", "tables"]

HOSTILE = [
    "",
    " ",
    "\0",
    "a\0b",
    "../../etc/passwd",
    "/dev/zero",
    "\U0001f600",
    "\u00e9",
    "\u202e",
    "=1+1",
    "a" * 300,
]
TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=8))
PLAIN = st.sampled_from(["a", "b", "c", "d"])
LAYOUT = """\
data:
  items: {path: items.%s, text: [title], image: image_path, audio: null}
  interactions: {path: interactions.%s, label: label}
"""

# ---- tables -------------------------------------------------------------------------------------


def _columns(names: dict[str, Any]) -> st.SearchStrategy[pl.DataFrame]:
    """Tables with those columns, each of its own type and content, or of any other; some left out."""

    @st.composite
    def draw_frame(draw: st.DrawFn) -> pl.DataFrame:
        chosen = []
        for name, (dtype, strategy) in names.items():
            kind = draw(st.sampled_from(["right", "right", "right", "any", "absent"]))
            if kind == "right":
                chosen.append(column(name, dtype=dtype, strategy=strategy, allow_null=draw(st.booleans())))
            elif kind == "any":
                chosen.append(column(name, allow_null=True))
        extra = draw(st.integers(0, 1))
        size = draw(st.integers(0, 6))
        lazy = (
            dataframes(chosen, min_size=size, max_size=size) if chosen else dataframes(extra, max_size=size)
        )
        return draw(lazy)

    return draw_frame()


ITEMS = {"item_id": (pl.String, TEXT | PLAIN), "title": (pl.String, TEXT), "image_path": (pl.String, TEXT)}
EVENTS = {
    "user_id": (pl.String, TEXT | PLAIN),
    "item_id": (pl.String, PLAIN),
    "timestamp": (pl.Int64, st.integers(-(2**63), 2**63 - 1)),
    "label": (pl.Int64, st.integers(0, 1)),
}
SUFFIXES = ("parquet", "csv", "jsonl")


def _written(frame: pl.DataFrame, suffix: str) -> bytes:
    """The table as a file; as Parquet where a format cannot hold its types."""
    stream = io.BytesIO()
    try:
        if suffix == "csv":
            frame.write_csv(stream)
        elif suffix == "jsonl":
            frame.write_ndjson(stream)
        else:
            frame.write_parquet(stream)
    except (pl.exceptions.PolarsError, TypeError, pl.exceptions.PanicException):
        return b"\xff\xfe" * 8
    return stream.getvalue()


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes as they are, or with some flipped, cut off, doubled or put in their place."""
    made = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        if not made:
            break
        place = draw(st.integers(0, len(made) - 1))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "huge", "drop"]))
        if kind == "flip":
            made[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del made[place:]
        elif kind == "insert":
            made[place:place] = draw(st.binary(max_size=6) | st.sampled_from([b"\0", b'"\\ud800"', b"\xff"]))
        elif kind == "huge":
            made[place : place + 4] = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]))
        else:
            del made[place : place + draw(st.integers(1, 9))]
    return bytes(made)


def _good() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Four items and twelve events, with which nothing is wrong."""
    items = pl.DataFrame({"item_id": list("abcd"), "title": ["one", "two", "three", "four"]})
    pairs = pl.DataFrame({"user_id": list("uvw")}).join(items.select("item_id"), how="cross")
    events = pairs.with_columns(timestamp=pl.int_range(pl.len()), label=pl.lit(1))
    return items.with_columns(image_path=pl.lit(None, pl.String)), events


@st.composite
def _nearly_good(draw: st.DrawFn, good: pl.DataFrame, names: dict[str, Any]) -> pl.DataFrame:
    """The table with some rows left out or doubled, or one column's values or type changed."""
    size = len(good)
    rows = draw(st.just(list(range(size))) | st.lists(st.integers(0, size - 1), max_size=size + 2))
    made = good[rows]
    change = draw(st.sampled_from(["none", "values", "any"]))
    if change == "none":
        return made
    name = draw(st.sampled_from(sorted(names)))
    dtype, strategy = names[name]
    right = column(name, dtype=dtype, strategy=strategy)
    chosen = right if change == "values" else column(name, allow_null=True)
    other = draw(dataframes([chosen], min_size=len(made), max_size=len(made)))
    return made.with_columns(other.get_column(name))


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """Suffix, and the bytes of a table of items and one of interactions."""
    suffix = draw(st.sampled_from(SUFFIXES))
    kinds = (ITEMS, EVENTS)
    if draw(st.booleans()):
        frames = [draw(_nearly_good(good, names)) for good, names in zip(_good(), kinds, strict=True)]
    else:
        frames = [draw(_columns(names)) for names in kinds]
    items, events = (_written(frame, suffix) for frame in frames)
    if draw(st.booleans()):
        items, events = draw(damaged(items)), draw(damaged(events))
    return suffix, items, events


def check_command(folder: Path, config: str = "config.yaml") -> int:
    """`qarm check` on a config of the folder ends with 0, or with 2 and one message without a traceback."""
    err = io.StringIO()
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()) as out:
            main(["check", str(folder / config), "--data.root", str(folder)])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    out.getvalue().encode()  # a terminal would be sent it
    assert code in (0, 2), (code, err.getvalue())
    assert code == 0 or err.getvalue().startswith("qarm: "), err.getvalue()
    assert len(err.getvalue()) < 20_000, len(err.getvalue())
    return code


def check_tables(folder: Path, made: tuple[str, bytes, bytes]) -> int:
    suffix, items, events = made
    (folder / "config.yaml").write_text(LAYOUT % (suffix, suffix))
    (folder / f"items.{suffix}").write_bytes(items)
    (folder / f"interactions.{suffix}").write_bytes(events)
    return check_command(folder)


# ---- configs ------------------------------------------------------------------------------------


def _keys(model: Any = Config, depth: int = 0) -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        found.append(name)
        below = field.annotation
        if depth < 3 and hasattr(below, "model_fields"):
            found += _keys(below, depth + 1)
    return sorted(set(found))


KEYS = st.sampled_from(_keys()) | TEXT
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXT,
    st.dates(),
    st.binary(max_size=3),
    st.just(10**30),
)
VALUES = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=4),
    max_leaves=12,
)
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}]\n" for old, new in zip("bcdefghijk", "cdefghijkl", strict=True)
)
ODD = [
    *("2026-99-99", "!!int 0x", "!!float x", "!!timestamp x", "!!python/object:os.system {}", "<<: 3"),
    *("1" * 5000, "0x" + "f" * 5000, "[" * 3000, "{a: " * 3000, "&a [*a]", "a: &a {b: *a}", BOMB),
    *('"\\ud800"', "? [1, 2]\n: 3", "\t", "%YAML 9.9\n---\n"),
]
SECTIONS = sorted(Config.model_fields)
SETTINGS = [
    (section, name)
    for section, field in Config.model_fields.items()
    if section != "data"
    for name in getattr(field.annotation, "model_fields", ())
]


@st.composite
def configs(draw: st.DrawFn) -> str:
    """YAML of known keys with any values, of anything at all, or text that is hardly YAML."""
    kind = draw(st.sampled_from(["one", "sections", "any", "odd", "text"]))
    if kind == "one":  # one setting over a config with which nothing is wrong
        section, name = draw(st.sampled_from(SETTINGS))
        return LAYOUT % ("parquet", "parquet") + yaml.safe_dump({section: {name: draw(LEAVES)}})
    if kind == "odd":
        section = draw(st.sampled_from(["", "seed: ", "data:\n  root: ", "encoder: {text: "]))
        return section + draw(st.sampled_from(ODD))
    if kind == "text":
        return draw(st.text(max_size=40))
    content = draw(
        st.dictionaries(st.sampled_from(SECTIONS), VALUES, max_size=3) if kind == "sections" else VALUES
    )
    return yaml.safe_dump(content, allow_unicode=draw(st.booleans()))


def check_config(folder: Path, text: str) -> int:
    for name, frame in zip(("items", "interactions"), _good(), strict=True):
        frame.write_parquet(folder / f"{name}.parquet")
    (folder / "config.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    return check_command(folder)
