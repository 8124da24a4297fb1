"""Frames of other libraries: the values of the file, what is missing as null, mixed types refused."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from qarm.core.tables.frames import as_frame
from qarm.data.catalog import read_catalog
from qarm.data.interactions import read_log
from qarm.data.users import read_users
from qarm.errors import InputError


class Arrow:
    """A table of which only the Arrow stream is known."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.frame.__arrow_c_stream__(requested_schema)


class Dataset:
    """A table that polars does not know, with the method that `datasets.Dataset` has."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def to_polars(self) -> pl.DataFrame:
        return self.frame


@pytest.mark.parametrize(
    "wrap", [lambda f: f, lambda f: f.lazy(), Arrow, Dataset], ids=["eager", "lazy", "arrow", "dataset"]
)
def test_tables_that_polars_knows_come_through_as_they_are(wrap: Any) -> None:
    frame = pl.DataFrame({"id": ["007", None], "n": [1, 2], "list": [["a"], None]})
    assert as_frame(wrap(frame)).equals(frame)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["a", None, np.nan, pd.NA], pl.String, ["a", None, None, None]),
        (pd.Series(["a", None, np.nan], dtype=object), pl.String, ["a", None, None]),
        (pd.array(["a", pd.NA], dtype="string[python]"), pl.String, ["a", None]),
        ([1.5, np.nan], pl.Float64, [1.5, None]),
        (np.array([1.5, np.nan], dtype=np.float32), pl.Float32, [1.5, None]),
        (np.array([7, 8], dtype=np.uint8), pl.UInt8, [7, 8]),
        (pd.array([2**53 + 1, pd.NA], dtype="Int64"), pl.Int64, [2**53 + 1, None]),
        (pd.array([True, None], dtype="boolean"), pl.Boolean, [True, None]),
        (pd.Series([2**53 + 1, np.nan], dtype=object), pl.Int64, [2**53 + 1, None]),
        (pd.Series([1, "1"], dtype=object), pl.Object, [1, "1"]),
        (pd.Series([1, 1.5], dtype=object), pl.Object, [1, 1.5]),
        (pd.Categorical(["p", None, "q"]), pl.String, ["p", None, "q"]),
        (pd.Categorical([2**53 + 1, None]), pl.Int64, [2**53 + 1, None]),
        (pd.Series([b"x", None], dtype=object), pl.Binary, [b"x", None]),
        (pd.Series([np.array([1, 2]), None], dtype=object), pl.List(pl.Int64), [[1, 2], None]),
        (pd.Series([np.int64(3), np.int64(4)], dtype=object), pl.Int64, [3, 4]),
        (pd.Series([{"path": "a.png"}, None], dtype=object), pl.Struct({"path": pl.String}), None),
        (
            pd.Series([datetime.date(2024, 1, 2), None], dtype=object),
            pl.Date,
            [datetime.date(2024, 1, 2), None],
        ),
    ],
    ids=str,
)
def test_columns_of_pandas(values: Any, kind: pl.DataType, expected: list[object] | None) -> None:
    column = as_frame(pd.DataFrame({"x": values}))["x"]
    assert column.dtype == kind
    if expected is not None:
        assert column.to_list() == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Asia/Kolkata"])
def test_times_of_pandas_keep_their_instant(unit: str, zone: str | None) -> None:
    times = pd.Series(pd.to_datetime(["2024-06-01T12:00:00", None])).dt.as_unit(unit)
    column = as_frame(pd.DataFrame({"t": times if zone is None else times.dt.tz_localize(zone)}))["t"]
    noon = datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC)
    hours = 0 if zone is None else 5.5
    assert column.dt.epoch("us").to_list() == [int((noon.timestamp() - hours * 3600) * 10**6), None]
    assert (column.dtype.time_zone is None) == (zone is None)  # type: ignore[attr-defined]


def test_an_index_other_than_the_row_numbers_moves_nothing() -> None:
    frame = pd.DataFrame({"a": ["x", "y"], "b": pd.Categorical(["p", "q"])}, index=[7, 7])
    assert as_frame(frame).to_dict(as_series=False) == {"a": ["x", "y"], "b": ["p", "q"]}


def test_names_of_pandas_that_are_no_text_become_text_and_repeated_ones_are_refused() -> None:
    assert as_frame(pd.DataFrame({0: [1]})).columns == ["0"]
    repeated = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(InputError, match="several columns a; give each a name of its own"):
        as_frame(repeated)


@pytest.mark.parametrize("table", [[{"a": 1}], {"a": [1]}, np.zeros((2, 2)), pd.Series([1], name="a"), None])
def test_what_is_no_table_is_refused(table: Any) -> None:
    with pytest.raises(InputError, match="is no table .*; give a path, a frame of polars or pandas"):
        as_frame(table)


# ---- logs, catalogues and users of frames: as of their files, never the text nan ----

EVENTS = {
    "user_id": ["u2", "u1", "u1", "u2"],
    "item_id": ["007", "7", "007", "8"],
    "timestamp": [4, 3, 1, 2],
    "liked": [True, False, True, None],
}
ITEMS = {"item_id": ["007", "7", "8"], "title": ["Hat", None, "  "], "price": [1.5, 2.0, 3.0]}
LIKED = {"labels": {"liked": "liked"}}


def arrow(columns: dict[str, list[Any]]) -> Arrow:
    return Arrow(pl.DataFrame(columns))


def categorical(columns: dict[str, list[Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    return frame.astype({name: "category" for name in frame if name.endswith("_id") or name == "title"})


KINDS = [pl.DataFrame, pl.LazyFrame, arrow, pd.DataFrame, categorical]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_frame_gives_what_its_file_gives(kind: Any, tmp_path: Path) -> None:
    log, items = tmp_path / "log.parquet", tmp_path / "items.parquet"
    pl.DataFrame(EVENTS).write_parquet(log)
    pl.DataFrame(ITEMS).write_parquet(items)
    assert read_log(kind(EVENTS), **LIKED).frame.equals(read_log(log, **LIKED).frame)
    columns = {"text": ["title", "price"], "image": None, "audio": None}
    assert read_catalog(kind(ITEMS), **columns).frame.equals(read_catalog(items, **columns).frame)
    assert read_users(kind(ITEMS), id="item_id", features=["title"]).frame.equals(
        read_users(items, id="item_id", features=["title"]).frame
    )


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.0, np.nan, 2.0], "ids are Float64, need text or integers"),
        (pd.Series(["a", np.nan, "b"], dtype=object), "null or empty ids in rows 1"),
        (pd.Series(["a", pd.NA, "b"], dtype="string"), "null or empty ids in rows 1"),
        (pd.Categorical(["a", None, "b"]), "null or empty ids in rows 1"),
        (pd.Series(["a", 1, "b"], dtype=object), "values are of type int and str, need one"),
        (pd.Series([["a"], ["b"], ["c"]]), "ids are List"),
    ],
    ids=str,
)
def test_ids_of_pandas_that_are_missing_or_of_several_types_are_refused(ids: Any, message: str) -> None:
    events = pd.DataFrame({"user_id": ids, "item_id": ["a", "b", "c"], "timestamp": [1, 2, 3]})
    with pytest.raises(InputError, match=f"frame.user_id: {message}"):
        read_log(events)
    items = pd.DataFrame({"item_id": ids, "title": ["a", "b", "c"]})
    with pytest.raises(InputError, match=f"frame.item_id: {message}"):
        read_catalog(items, text=["title"], image=None, audio=None)


def test_texts_that_pandas_calls_nan_are_missing() -> None:
    frame = pd.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": pd.Series(["Hat", np.nan, None], dtype=object),
            "kind": pd.Categorical([None, "x", "y"]),
            "price": [np.nan, np.nan, 2.5],
        }
    )
    catalog = read_catalog(frame, text=["title", "kind", "price"], image=None, audio=None)
    assert catalog.frame["text"].to_list() == ["Hat", "x", "y\n2.5"]


def test_mixed_columns_do_harm_where_they_are_read_and_nowhere_else() -> None:
    mixed = pd.Series(["a.png", 3, None], dtype=object)
    frame = pd.DataFrame({"item_id": [1, 2, 3], "title": ["a", "b", "c"], "mixed": mixed})
    assert len(read_catalog(frame, text=["title"], image=None, audio=None)) == 3
    for columns in ({"text": ["mixed"], "image": None}, {"text": ["title"], "image": "mixed"}):
        with pytest.raises(InputError, match=r"frame.mixed: values are of type int and str, need one"):
            read_catalog(frame, audio=None, **columns)
    events = pd.DataFrame({"user_id": [1], "item_id": [1], "timestamp": pd.Series([object()], dtype=object)})
    with pytest.raises(InputError, match=r"frame.timestamp: values are of type object, need one"):
        read_log(events)


def test_dates_of_pandas_are_microseconds_utc() -> None:
    times = pd.to_datetime(["1970-01-02", "1970-01-03"]).tz_localize("UTC").tz_convert("Asia/Kolkata")
    log = read_log(pd.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": times}))
    assert log.frame["time"].to_list() == [86_400 * 10**6, 2 * 86_400 * 10**6]
    assert log.unit == "us"


def test_media_paths_of_a_frame_are_relative_to_the_folder_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame({"item_id": [1], "image": ["a.png"]})
    columns = {"text": [], "image": "image", "audio": None}
    assert read_catalog(frame, folder=str(tmp_path), **columns).path("a.png") == tmp_path / "a.png"
    monkeypatch.chdir(tmp_path)
    assert read_catalog(frame, **columns).path("a.png") == tmp_path / "a.png"
    table = tmp_path / "tables" / "items.parquet"
    table.parent.mkdir()
    pl.from_dict(frame.to_dict("list")).write_parquet(table)
    assert read_catalog(str(table), **columns).path("a.png") == table.parent / "a.png"
    assert read_catalog(str(table), folder=tmp_path, **columns).path("a.png") == tmp_path / "a.png"


def test_an_empty_frame_is_refused_like_an_empty_file() -> None:
    with pytest.raises(InputError, match="frame: the table has no rows"):
        read_log(pd.DataFrame({"user_id": []}))
