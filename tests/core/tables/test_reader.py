"""Tables are read whatever their kind, and every fault is named by row."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from qarm.core.tables import as_ids, column, read_table
from qarm.errors import InputError, Problems

FRAME = pl.DataFrame({"item_id": ["007", "008"], "price": [1, 2]})


@pytest.fixture(params=["parquet", "csv", "jsonl", "ndjson", "PARQUET"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"items.{request.param}"
    kind = request.param.lower()
    {"parquet": FRAME.write_parquet, "csv": FRAME.write_csv}.get(kind, FRAME.write_ndjson)(path)
    return path


def test_every_kind_gives_the_same_table(table: Path) -> None:
    assert read_table(table, text=["item_id"]).equals(FRAME)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_brackets_in_a_path_are_no_pattern(tmp_path: Path, ending: str) -> None:
    for folder, price in (("run1", 0), ("run[1]", 7)):
        (tmp_path / folder).mkdir()
        frame = pl.DataFrame({"item_id": ["a"], "price": [price]})
        write = {"parquet": frame.write_parquet, "csv": frame.write_csv, "jsonl": frame.write_ndjson}
        write[ending](tmp_path / folder / f"items.{ending}")
    assert read_table(tmp_path / "run[1]" / f"items.{ending}")["price"].to_list() == [7]


def test_a_csv_keeps_leading_zeros_only_where_text_is_asked_for(tmp_path: Path) -> None:
    FRAME.write_csv(tmp_path / "items.csv")
    assert read_table(tmp_path / "items.csv")["item_id"].to_list() == [7, 8]
    assert read_table(tmp_path / "items.csv", text=["item_id", "absent"])["item_id"].to_list() == [
        "007",
        "008",
    ]


def test_a_csv_is_typed_by_all_of_its_rows(tmp_path: Path) -> None:
    lines = ["item_id,day", *(f"{n},2024-01-02" for n in range(2000)), "last,2024-01-03"]
    (tmp_path / "items.csv").write_text("\n".join(lines))
    frame = read_table(tmp_path / "items.csv")
    assert frame["item_id"][-1] == "last"
    assert frame["day"][-1] == date(2024, 1, 3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "no such file"),
        ("items.xlsx", b"x", "got suffix '.xlsx', need one of .parquet, .csv, .jsonl, .ndjson"),
        ("items.parquet", b"not parquet at all", "not readable as parquet"),
        ("items.csv", b"a,b\n1,\xff\xfe", "not readable as csv"),
        ("items.jsonl", b"{'a': 1}", "not readable as jsonl"),
        ("items.csv", b"", "no rows"),
        ("items.csv", b"a,b\n", "no rows"),
        ("items.jsonl", b"", "no rows"),
    ],
)
def test_unreadable_tables_are_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / name)


def test_a_missing_column_names_those_there_are() -> None:
    problems = Problems()
    assert column(FRAME, "id", table="items", problems=problems) is None
    assert problems.messages == ["items: no column 'id'; it has item_id, price"]
    assert column(FRAME, "price", table="items", problems=problems) is not None


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Enum(["7", "8"])])
def test_text_ids_stay(kind: pl.DataType) -> None:
    ids = as_ids(pl.Series("id", ["7", "8"], dtype=kind), table="t", problems=Problems())
    assert ids is not None
    assert ids.to_list() == ["7", "8"]
    assert ids.dtype == pl.String


def test_whole_numbers_become_text_and_others_are_refused() -> None:
    problems = Problems()
    ids = as_ids(pl.Series("id", [7, 8]), table="t", problems=problems)
    assert ids is not None
    assert ids.to_list() == ["7", "8"]
    assert as_ids(pl.Series("id", [7.0]), table="t", problems=problems) is None
    assert problems.messages == ["t.id: ids are Float64, need text or integers; cast them"]


def test_null_and_empty_ids_are_named_by_their_row_in_the_file() -> None:
    problems = Problems()
    series = pl.Series("id", ["a", None, ""])
    as_ids(series, table="t", problems=problems)
    as_ids(series, table="t", problems=problems, rows=pl.Series([10, 20, 30]))
    assert [p.split(" in ")[1] for p in problems.messages] == [
        "rows 1, 2; remove them",
        "rows 20, 30; remove them",
    ]
