"""Files of the package itself: a path is a name; no other module calls the IO of polars."""

import re
from pathlib import Path

import polars as pl
import pytest

from qarm.core.tables.parquet import (
    parquet_schema,
    read_parquet,
    scan_parquet,
    write_json_lines,
    write_parquet,
)

ROOT = Path(__file__).parent.parent.parent.parent
READS = r"\bpl\.(read|scan)_(?!excel)\w+\("
WRITES = r"\.(write|sink)_(parquet|csv|ndjson|json|ipc|ipc_stream|avro|delta)\("


@pytest.mark.parametrize("name", ["run[1]", "run*", "run?", "year=2024", "~run"])
def test_a_path_is_a_name_and_no_pattern(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place, value in ((Path("run1"), 0), (Path(name), 7)):
        write_parquet(place / "x.parquet", pl.DataFrame({"a": [value], "b": ["t"]}))
        write_json_lines(place / "x.jsonl", pl.DataFrame({"a": [value]}))
    path = Path(name) / "x.parquet"
    assert read_parquet(path).to_dict(as_series=False) == {"a": [7], "b": ["t"]}
    assert read_parquet(path, columns=["b"]).columns == ["b"]
    assert scan_parquet(path).select("a").collect().item() == 7
    assert parquet_schema(path) == {"a": pl.Int64, "b": pl.String}
    assert (Path(name) / "x.jsonl").read_text() == '{"a":7}\n'
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["run1", name])


def test_tables_are_read_and_written_behind_one_door() -> None:
    outside = [
        f"{path.relative_to(ROOT).as_posix()}:{number}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        if "core/tables" not in path.as_posix()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(f"{READS}|{WRITES}", line)
    ]
    assert outside == []
