"""The log: what is read, how it is ordered, and every way in which a table can be wrong."""

import subprocess
import sys
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from qarm.data.interactions import Log, read_log
from qarm.errors import InputError

EVENTS: dict[str, list[Any]] = {
    "user_id": ["b", "a", "a", "b", "a"],
    "item_id": ["x", "y", "x", "x", "z"],
    "timestamp": [5, 9, 3, 5, 3],
}
NEW_YEAR = 1_704_067_200  # 2024-01-01, UTC, in seconds


def read(folder: Path, columns: dict[str, Any] | None = None, **options: Any) -> Log:
    path = folder / "clicks.parquet"
    pl.DataFrame({**EVENTS, **(columns or {})}, strict=False).write_parquet(path)
    return read_log(path, **options)


def problems(folder: Path, columns: dict[str, Any] | None = None, **options: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(folder, columns, **options)
    return caught.value.problems


# ---- what is read -----------------------------------------------------------------------------


def test_events_are_sorted_by_user_time_and_row(tmp_path: Path) -> None:
    log = read(tmp_path)
    assert log.frame.rows() == [
        ("a", "x", 3, 1, 2),
        ("a", "z", 3, 1, 4),
        ("a", "y", 9, 1, 1),
        ("b", "x", 5, 1, 0),
        ("b", "x", 5, 1, 3),
    ]
    assert log.frame.dtypes == [pl.String, pl.String, pl.Int64, pl.Int8, pl.Int64]
    assert (len(log), log.items, log.users) == (5, ["x", "y", "z"], ["a", "b"])
    assert (log.explicit, log.unknown, log.unit) == (False, 0, None)


def test_any_column_names_and_kinds_of_table(tmp_path: Path) -> None:
    names = {"user_id": "who", "item_id": "what", "timestamp": "when"}
    pl.DataFrame(EVENTS).rename(names).write_csv(tmp_path / "clicks.csv")
    other = read_log(str(tmp_path / "clicks.csv"), user="who", item="what", time="when")
    assert other.frame.equals(read(tmp_path).frame)


def test_ids_of_a_csv_keep_their_zeros(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("user_id,item_id,timestamp\n01,007,2024-01-01\n01,008,2024-01-02\n")
    log = read_log(tmp_path / "clicks.csv")
    assert (log.users, log.items) == (["01"], ["007", "008"])
    assert log.frame["time"].to_list() == [NEW_YEAR * 10**6, (NEW_YEAR + 86_400) * 10**6]


@pytest.mark.parametrize(
    "moment",
    [
        date(2024, 1, 1),
        datetime(2024, 1, 1),
        datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_dates_become_microseconds(tmp_path: Path, moment: Any) -> None:
    log = read(tmp_path, {"timestamp": [moment] * 5})
    assert set(log.frame["time"]) == {NEW_YEAR * 10**6}
    assert log.unit == "us"


def test_order_stands_for_time(tmp_path: Path) -> None:
    log = read(tmp_path, {"timestamp": ["text"] * 5, "order": [0, 2, 1, 1, 0]}, order="order")
    assert log.frame["item_id"].to_list() == ["z", "x", "y", "x", "x"]


@pytest.mark.parametrize(
    "labels", [[1, 0, 1, 1, 1], [1.0, 0.0, 1.0, 1.0, 1.0], [True, False, True, True, True]]
)
def test_labels_of_any_type(tmp_path: Path, labels: list[Any]) -> None:
    log = read(tmp_path, {"good": labels}, label="good")
    assert log.explicit
    assert log.frame.filter(pl.col("label") == 0)["row"].to_list() == [1]
    assert len(log.positives()) == 4
    assert not log.positives().explicit


def test_where_keeps_equal_rows_and_their_numbers(tmp_path: Path) -> None:
    flags = {"first": [True, None, True, False, True], "shop": ["s", "s", "s", "s", "t"]}
    log = read(tmp_path, flags, where={"first": True, "shop": "s"})
    assert log.frame["row"].to_list() == [2, 0]
    assert len(read(tmp_path, {"n": [1, 2, 1, 2, 1]}, where={"n": 1.0})) == 3


def test_unknown_items_are_dropped_and_counted(tmp_path: Path) -> None:
    log = read(tmp_path, known_items=["x", "y"], max_unknown=0.2)
    assert (log.unknown, len(log), log.items) == (1, 4, ["x", "y"])
    assert log.positives().unknown == 1


def test_choosing_items(tmp_path: Path) -> None:
    log = read(tmp_path)
    assert log.only_items(["x", "absent"]).items == ["x"]
    assert log.without_items(["x"]).items == ["y", "z"]
    assert len(log.only_items([])) == 0


def test_reading_needs_no_heavy_library() -> None:
    code = "import sys, qarm.data.splits; print({'torch', 'numba', 'sklearn', 'faiss'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


# ---- splitting at a time ----------------------------------------------------------------------


def test_split_at_a_number(tmp_path: Path) -> None:
    past, future = read(tmp_path).split_at(5)
    assert past.frame["row"].to_list() == [2, 4]
    assert future.frame["row"].to_list() == [1, 0, 3]


@pytest.mark.parametrize("per_second", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("text", ["2024-01-01", "2024-01-01T00:00:00", "2024-01-01T02:00:00+02:00"])
def test_split_at_a_date_in_any_unit(tmp_path: Path, per_second: int, text: str) -> None:
    times = [(NEW_YEAR + shift) * per_second for shift in (-2, -1, 0, 1, 2)]
    past, future = read(tmp_path, {"timestamp": times}).split_at(text)
    assert sorted(past.frame["row"]) == [0, 1]
    assert sorted(future.frame["row"]) == [2, 3, 4]


def test_dates_of_the_seventies_are_not_taken_for_seconds(tmp_path: Path) -> None:
    days = [date(1970, 1, day) for day in (1, 2, 3, 4, 5)]
    past, future = read(tmp_path, {"timestamp": days}).split_at("1970-01-03")
    assert (len(past), len(future)) == (2, 3)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("2024-01-01", "times run from 3 to 9, no dates"),
        ("last week", "got time 'last week', need an ISO date"),
        (3, "no event before 3; the log's times run from 3 to 9"),
        (10, "no event at or after 10"),
    ],
)
def test_a_split_that_cannot_be(tmp_path: Path, at: int | str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path).split_at(at)


# ---- what is refused --------------------------------------------------------------------------


def test_all_problems_at_once(tmp_path: Path) -> None:
    bad = {"user_id": ["b", None, "a", "", "a"], "timestamp": ["now"] * 5, "rating": [3.5, 0, 1, None, 1]}
    assert problems(tmp_path, bad, item="sku", label="rating", where={"shop": 1}) == [
        "clicks.parquet: no column 'shop'; it has user_id, item_id, timestamp, rating",
        "clicks.parquet.user_id: null or empty ids in rows 1, 3; remove them",
        "clicks.parquet: no column 'sku'; it has user_id, item_id, timestamp, rating",
        "clicks.parquet.timestamp: got now, need ISO dates (2024-01-31 18:30:00) or whole numbers; set "
        "data.interactions.time_format, for example to '%d/%m/%Y'",
        "clicks.parquet.rating: got 3.5, None in rows 0, 3; labels are 0 and 1; set a rule, {column: stars, "
        "at_least: 4}, or make such a column",
    ]


@pytest.mark.parametrize("times", [[timedelta(1)] * 5, [True] * 5, [None] * 5])
def test_times_of_other_types(tmp_path: Path, times: list[Any]) -> None:
    (problem,) = problems(tmp_path, {"timestamp": times})
    assert "need integers, dates or datetimes" in problem


def test_null_and_huge_times_are_named_by_row(tmp_path: Path) -> None:
    huge = pl.Series([1, None, 2, 2**63, 3], dtype=pl.UInt64)
    assert problems(tmp_path, {"timestamp": huge}) == [
        "clicks.parquet.timestamp: null or beyond 64 bits in rows 1, 3; remove those rows"
    ]


def test_rows_are_those_of_the_file_after_where(tmp_path: Path) -> None:
    columns = {"keep": [0, 1, 0, 1, 1], "item_id": [None, "x", "y", None, "z"]}
    assert problems(tmp_path, columns, where={"keep": 1}) == [
        "clicks.parquet.item_id: null or empty ids in rows 3; remove them"
    ]


@pytest.mark.parametrize(
    "labels", [[2, 1, 1, 1, 1], [0.5, 1, 1, 1, 1], [None, 1, 1, 1, 1], [float("nan"), 1, 1, 1, 1]]
)
def test_labels_beyond_0_and_1(tmp_path: Path, labels: list[Any]) -> None:
    (problem,) = problems(tmp_path, {"label": labels}, label="label")
    assert "in rows 0; labels are 0 and 1" in problem


def test_labels_of_text(tmp_path: Path) -> None:
    """As a CSV has them."""
    log = read(tmp_path, {"label": ["1", "0", "true", "False", "1.0"]}, label="label")
    assert log.frame.sort("row")["label"].to_list() == [1, 0, 1, 0, 1]
    (problem,) = problems(tmp_path, {"label": ["yes"] * 5}, label="label")
    assert "got String, need 0 and 1 or booleans" in problem


def test_a_rule_makes_labels_of_stars(tmp_path: Path) -> None:
    stars = {"stars": [5, 4, 3, 1, 4]}
    rule = {"column": "stars", "at_least": 4}
    log = read(tmp_path, stars, label=rule, labels={"low": {"column": "stars", "at_most": 1}})
    assert log.frame.sort("row")["label"].to_list() == [1, 1, 0, 0, 1]
    assert log.frame.sort("row")["label_low"].to_list() == [0, 0, 0, 1, 0]
    (problem,) = problems(tmp_path, {"stars": [5, None, 3, 1, 4]}, label=rule)
    assert "stars: got None in rows 1; labels are 0 and 1" in problem
    (problem,) = problems(tmp_path, {"stars": ["good"] * 5}, label=rule)
    assert "stars: got String, and the label's rule is of another type" in problem
    (problem,) = problems(tmp_path, stars, label={"column": "stars"})
    assert "need a column of 1 and 0, or a rule: {column: stars, at_least: 4}" in problem


def test_weights_are_positive_numbers(tmp_path: Path) -> None:
    log = read(tmp_path, {"w": ["1", "2.5", "3", "4", "5"]}, weight="w")
    assert log.frame.sort("row")["weight"].to_list() == [1.0, 2.5, 3.0, 4.0, 5.0]
    assert "weight" not in read(tmp_path, {"w": [1] * 5}).frame.columns
    (problem,) = problems(tmp_path, {"w": [1, 0, None, float("inf"), -2]}, weight="w")
    assert "w: got 0.0, None, inf, -2.0 in rows 1, 2, 3, 4; weights are positive numbers" in problem
    (problem,) = problems(tmp_path, {"w": ["much"] * 5}, weight="w")
    assert "w: got String, need positive numbers as weights" in problem


def test_conditions_on_several_columns(tmp_path: Path) -> None:
    columns = {
        "stars": [5, 4, 3, 1, 4],
        "country": ["DE", "FR", "FR", None, None],
        "price": [1.0, 0, 2, 1, 0],
    }
    where = {"stars": [4, 5, 1], "country": {"not": ["DE"]}, "price": {"at_least": 1}}
    assert read(tmp_path, columns, where=where).frame["row"].to_list() == [3]
    (problem,) = problems(tmp_path, columns, where={"stars": {"least": 1}})
    assert "where.stars" in problem
    (problem,) = problems(tmp_path, columns, where={"country": [4, "DE"]})
    assert "country: is String, got where country in [4, 'DE']; compare like with like" in problem
    assert problems(tmp_path, columns, where={"price": {"at_least": 9}}) == [
        "clicks.parquet: no row has price in {'at_least': 9}; loosen where"
    ]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_dates_of_any_format_and_their_period(tmp_path: Path, ending: str) -> None:
    frame = pl.DataFrame(
        {**EVENTS, "timestamp": [f"2024-01-0{day}T10:00:00+02:00" for day in (5, 9, 3, 5, 3)]}
    )
    path = tmp_path / f"clicks.{ending}"
    frame.write_csv(path) if ending == "csv" else frame.write_ndjson(path)
    log = read_log(path)
    assert log.period == ("2024-01-03T08:00:00", "2024-01-09T08:00:00")
    assert (log.unit, log.times) == ("us", "ISO dates; those without a zone as UTC")
    assert read(tmp_path).period is None
    assert read(tmp_path).times == "positions, no dates"
    dated = read(tmp_path, {"timestamp": [NEW_YEAR + day for day in range(5)]})
    assert dated.period == ("2024-01-01T00:00:00", "2024-01-01T00:00:04")


def test_dates_that_can_be_read_in_two_ways(tmp_path: Path) -> None:
    american = {"timestamp": ["01/02/2024", "02/03/2024", "03/04/2024", "04/05/2024", "05/06/2024"]}
    (problem,) = problems(tmp_path, american)
    assert problem.endswith("set data.interactions.time_format to '%d/%m/%Y' or '%m/%d/%Y'")
    assert read(tmp_path, american, time_format="%m/%d/%Y").period == (
        "2024-01-02T00:00:00",
        "2024-05-06T00:00:00",
    )


def test_labels_and_conditions_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp,stars\n01,007,5,4\n01,08,6,2\n02,7,7,5.0\n")
    log = read_log(tmp_path / "a.csv", label={"column": "stars", "at_least": 5}, where={"stars": [4, 5]})
    assert log.frame.select("user_id", "item_id", "time", "label").rows() == [
        ("01", "007", 5, 0),
        ("02", "7", 7, 1),
    ]


def test_where_that_matches_nothing_or_compares_unlike(tmp_path: Path) -> None:
    assert problems(tmp_path, where={"timestamp": 4}) == [
        "clicks.parquet: no row has timestamp = 4; loosen where"
    ]
    (problem,) = problems(tmp_path, where={"item_id": 4})
    assert "item_id: is String, got where item_id = 4" in problem


def test_too_many_unknown_items(tmp_path: Path) -> None:
    assert problems(tmp_path, known_items=["x"], max_unknown=0.2) == [
        "clicks.parquet: 2 of 5 events (40.0%) are on items that the catalogue lacks, need at most "
        "20.0%: y, z; add those items, or raise max_unknown"
    ]
    assert "5 of 5 events" in problems(tmp_path, known_items=[], max_unknown=1.0)[0]


def test_unknown_items_are_reported_beside_other_problems(tmp_path: Path) -> None:
    assert len(problems(tmp_path, {"timestamp": ["x"] * 5}, known_items=["x"])) == 2


# ---- auxiliary labels ---------------------------------------------------------------------------


def test_auxiliary_labels_may_be_unknown(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    frame = pl.DataFrame(
        {
            "user_id": ["b", "a", "a"],
            "item_id": ["x", "x", "y"],
            "timestamp": [1, 2, 3],
            "liked": [True, None, False],
            "score": [1.0, float("nan"), 0.0],
        }
    )
    frame.write_parquet(path)
    log = read_log(path, labels={"like": "liked", "s": "score"})
    assert log.auxiliary == ["like", "s"]
    assert log.frame["label_like"].to_list() == log.frame["label_s"].to_list() == [None, 0, 1]
    assert log.frame["label_like"].dtype == pl.Int8
    assert log.positives().auxiliary == ["like", "s"]
    assert read_log(path).auxiliary == []


def test_faults_of_auxiliary_labels_are_named_with_the_others(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    frame = pl.DataFrame(
        {"user_id": ["a"], "item_id": ["x"], "timestamp": [1], "stars": [3], "word": ["yes"]}
    )
    frame.write_parquet(path)
    with pytest.raises(InputError) as caught:
        read_log(path, label="stars", labels={"a": "stars", "b": "word", "c": "gone"})
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    assert "log.parquet.stars: got 3 in rows 0" in text
    assert "log.parquet.word: got String, need 0 and 1" in text
    assert "no column 'gone'" in text
