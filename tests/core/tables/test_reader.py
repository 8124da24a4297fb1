"""Tables are read whatever their kind, only the columns that are asked for, and every fault is named."""

import gzip
import os
from pathlib import Path

import polars as pl
import pytest

from qarm.core.tables import column, read_table
from qarm.errors import InputError, Problems

FRAME = pl.DataFrame({"item_id": ["007", "008"], "price": [1, 2]})
TEXTS = FRAME.cast(pl.String)  # CSV holds nothing else
STRANGE = Path(__file__).parent / "strange"


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "ndjson", "arrow", "feather", "PARQUET", "jsonl.gz"])
def test_every_kind_gives_the_same_table(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"items.{ending}", FRAME)
    assert read_table(path, text=["item_id"]).frame.equals(FRAME)


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "tsv.gz", "CSV"])
def test_csv_is_text_as_it_is_written(tmp_path: Path, ending: str) -> None:
    assert read_table(write(tmp_path / f"items.{ending}", FRAME)).frame.equals(TEXTS)
    odd = pl.DataFrame({"a": ["007", "1.10", "1e400", "00123", "true", "2024-01-02", "1 day", "x"]})
    assert read_table(write(tmp_path / f"odd.{ending}", odd), ["a"]).frame.equals(odd)


def write(path: Path, frame: pl.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, _, packed = path.name.partition(".")[2].lower().partition(".")
    with gzip.open(path, "wb") if packed else path.open("wb") as stream:
        if first in ("csv", "tsv"):
            frame.write_csv(stream, separator="," if first == "csv" else "\t")
        else:
            kinds = {"parquet": frame.write_parquet, "arrow": frame.write_ipc, "feather": frame.write_ipc}
            kinds.get(first, frame.write_ndjson)(stream)
    return path


def test_a_stream_of_arrow_is_read_as_datasets_writes_it(tmp_path: Path) -> None:
    FRAME.write_ipc_stream(tmp_path / "items.arrow")
    assert read_table(tmp_path / "items.arrow", ["price"]).frame.equals(FRAME.select("price"))


def test_json_lines_may_mix_numbers_and_texts_in_an_id(tmp_path: Path) -> None:
    """A number is its shortest form: 7 and 7.0 are the id 7."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 7}\n{"id": "007"}\n{"id": 7.0}\n{"id": 12345678901234567890123}\n')
    assert read_table(path, ["id"], text=["id"]).frame["id"].to_list() == [
        "7",
        "007",
        "7",
        "12345678901234567890123",
    ]


def test_the_last_row_may_show_the_type(tmp_path: Path) -> None:
    lines = [*(f'{{"id": {n}}}' for n in range(2000)), '{"id": "last"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert read_table(tmp_path / "a.jsonl", ["id"]).frame["id"][-1] == "last"


# ---- only what is asked for -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zone.parquet", "decimal256.parquet", "not_utf8.parquet"])
def test_columns_that_nobody_asked_for_do_no_harm(name: str) -> None:
    """Written by pyarrow: a time zone +05:30, a decimal of 60 digits, a text that is not UTF-8."""
    table = read_table(STRANGE / name, ["item_id", "title"])
    assert table.frame.rows() == [("007", "a"), ("8", "b")]
    assert len(table.names) == 3


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_text_that_is_not_utf_8_matters_only_where_it_is_asked_for(tmp_path: Path, ending: str) -> None:
    csv, lines = b"id,bad\n1,\xff\n2,b\n", b'{"id": "1", "bad": "\xff"}\n{"id": "2", "bad": "b"}\n'
    path = tmp_path / f"a.{ending}"
    path.write_bytes(csv if ending == "csv" else lines)
    assert read_table(path, ["id"]).frame["id"].to_list() == ["1", "2"]
    with pytest.raises(InputError, match=f"a.{ending}: .*: column bad is not UTF-8 in rows 0"):
        read_table(path, ["id", "bad"])


def test_mixed_values_of_another_column_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 7, "x": {"a": 1}}\n{"id": "8", "x": [1]}\n')
    assert read_table(tmp_path / "a.jsonl", ["id"], text=["id"]).frame["id"].to_list() == ["7", "8"]


def test_a_dot_names_a_field_unless_a_column_has_that_name(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": ["a"], "info": [{"title": "t", "more": {"n": 5}}], "info.n": [1]})
    for ending in ("parquet", "jsonl", "arrow"):
        path = write(tmp_path / f"a.{ending}", frame)
        read = read_table(path, ["info.title", "info.more.n", "info.n", "info.gone", "id.x"])
        assert read.frame.to_dict(as_series=False) == {"info.title": ["t"], "info.more.n": [5], "info.n": [1]}
        assert read.names == ["id", "info", "info.n"]
    assert read_table(frame, ["info.title"]).frame["info.title"].to_list() == ["t"]


def test_a_header_that_names_a_column_twice_is_refused_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,id,x\n1,2,3\n")
    assert read_table(tmp_path / "a.csv", ["x"]).frame["x"].to_list() == ["3"]
    with pytest.raises(InputError, match="several columns id; give each a name of its own"):
        read_table(tmp_path / "a.csv", ["id"])


# ---- several files ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_brackets_in_a_path_are_no_pattern(tmp_path: Path, ending: str) -> None:
    for folder, price in (("run1", 0), ("run[1]", 7)):
        write(tmp_path / folder / f"items.{ending}", pl.DataFrame({"price": [price]}))
    assert read_table(tmp_path / "run[1]" / f"items.{ending}").frame["price"].cast(int).to_list() == [7]
    pattern = tmp_path / "run[1]" / f"*.{ending}"
    assert read_table(pattern).frame["price"].cast(int).to_list() == [7]


def test_the_files_of_a_folder_are_one_table(tmp_path: Path) -> None:
    """As Spark and Hive write it: parts in order, keys in the names of folders, files that are no part."""
    folder = tmp_path / "clicks"
    for number, day in enumerate(["2024-01-02", "2024-01-01", "__HIVE_DEFAULT_PARTITION__"]):
        frame = pl.DataFrame({"id": [f"{number}"], "price": [number] if number else [0.5]})
        write(folder / f"day={day}" / "shop=0%2F7" / f"part-{number}.parquet", frame)
    (folder / "_SUCCESS").write_bytes(b"")
    write(folder / "_delta_log" / "a.parquet", FRAME)
    (folder / "read.me").write_text("x")
    read = read_table(folder, ["id", "day", "shop", "price"])
    assert read.frame.rows() == [
        ("1", "2024-01-01", "0/7", 1.0),
        ("0", "2024-01-02", "0/7", 0.5),
        ("2", None, "0/7", 2.0),
    ]
    assert read.names == ["id", "price", "day", "shop"]


def test_a_pattern_is_what_has_a_star_or_a_question_mark(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "a" / f"part-{number}.csv", pl.DataFrame({"id": [str(number)]}))
    write(tmp_path / "a" / "other.csv", pl.DataFrame({"id": ["other"]}))
    assert read_table(tmp_path / "a" / "part-?.csv").frame["id"].to_list() == ["0", "1", "2"]
    assert read_table(tmp_path / "**" / "*-[1].csv".replace("[1]", "1")).frame["id"].to_list() == ["1"]
    write(tmp_path / "a*.csv", pl.DataFrame({"id": ["literal"]}))
    assert read_table(tmp_path / "a*.csv").frame["id"].to_list() == ["literal"]


def test_parts_must_agree(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.csv", pl.DataFrame({"id": ["1"], "x": ["y"]}))
    write(tmp_path / "a" / "2.csv", pl.DataFrame({"id": ["2"]}))
    with pytest.raises(InputError, match=r"2.csv: no column x, which other files of .*a have"):
        read_table(tmp_path / "a")
    assert read_table(tmp_path / "a", ["id"]).frame["id"].to_list() == ["1", "2"]
    write(tmp_path / "b" / "1.jsonl", pl.DataFrame({"id": ["1"], "x": ["y"]}))
    write(tmp_path / "b" / "2.jsonl", pl.DataFrame({"id": ["2"]}))  # JSON leaves out what is null
    (tmp_path / "b" / "3.jsonl").write_bytes(b"")
    assert read_table(tmp_path / "b").frame["x"].to_list() == ["y", None]
    write(tmp_path / "b" / "4.parquet", FRAME)
    with pytest.raises(InputError, match="holds tables of several kinds: .*4.parquet"):
        read_table(tmp_path / "b")


# ---- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "no such file"),
        ("absent/*.csv", None, "no table matches"),
        ("items.xlsx", b"x", "got suffix '.xlsx', need one of .parquet, .csv, .tsv, .jsonl, .ndjson, .arrow"),
        ("items.parquet.gz", b"x", "got suffix '.gz'"),
        ("items.parquet", b"not parquet at all", "not readable as parquet"),
        ("items.csv", b"a,b\n1,\xff\xfe", "not readable as csv"),
        ("items.csv", b"a,b\n1,2,3\n", "not readable as csv: found more fields"),
        ("items.jsonl", b"{'a': 1}", "not readable as jsonl"),
        ("items.arrow", b"not arrow at all", "not readable as arrow"),
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


def test_a_folder_that_is_there_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "read.me").write_text("x")
    with pytest.raises(InputError, match=r"shop: a folder without a table \(1 other files\)"):
        read_table(tmp_path / "shop")


def test_a_missing_column_names_those_there_are() -> None:
    problems = Problems()
    assert column(FRAME, "id", table="items", problems=problems) is None
    assert problems.messages == ["items: no column 'id'; it has item_id, price"]
    table = read_table(FRAME, ["price"])
    assert table.column("id", problems=problems) is None
    assert problems.messages[1] == "frame: no column 'id'; it has item_id, price"
    assert column(FRAME, "price", table="items", problems=problems) is not None


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl", "arrow"])
def test_a_name_that_is_not_utf8_is_refused(ending: str, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9." + ending.encode())
    path.write_bytes(b"item_id\na\n")
    with pytest.raises(InputError, match=r"caf\\udce9.*: the name is not UTF-8; rename the file"):
        read_table(path)


@pytest.mark.parametrize(
    ("ending", "separator"), [("csv", ";"), ("csv", "\t"), ("csv", "|"), ("tsv", ","), ("tsv", ";")]
)
def test_the_header_says_what_separates_its_columns(tmp_path: Path, ending: str, separator: str) -> None:
    rows = [["id", "title", "price"], ["007", "lamp, oak", "1,10"], ["008", "", "2"]]
    if separator == ",":
        rows = [[value.replace(",", ".") for value in row] for row in rows]
    path = tmp_path / f"items.{ending}"
    path.write_text("\ufeff" + "\n".join(separator.join(row) for row in rows) + "\n", encoding="utf-8")
    table = read_table(path, ["id", rows[0][1], "price"])
    assert table.names == rows[0]
    assert table.frame.rows() == [tuple(rows[1]), ("008", None, "2")]


def test_one_column_stays_one(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("id\n1;2\n")
    assert read_table(tmp_path / "ids.csv").frame["id"].to_list() == ["1;2"]
