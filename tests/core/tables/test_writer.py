"""Tables for a user: the ending decides, or is refused, and a file is whole or not there."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qarm.core.tables import read_table
from qarm.core.tables.writer import checked_ending, write_table
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError

CODES = Codes(["007", "b"], np.array([[1, 2], [3, 4]], dtype=np.int32))
LISTS = [("007", [1, 2], 1), ("b", [3, 4], 1)]


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "ndjson", "arrow", "feather", "PARQUET"])
def test_the_ending_decides(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"codes[1].{ending}"
    CODES.write(path)
    frame = read_table(path, ["item_id", "rq", "version"]).frame
    assert [(item, list(rq), version) for item, rq, version in frame.iter_rows()] == LISTS


def test_lists_are_columns_of_a_csv(tmp_path: Path) -> None:
    CODES.write(tmp_path / "codes.csv")
    assert (tmp_path / "codes.csv").read_text() == "item_id,rq_1,rq_2,version\n007,1,2,1\nb,3,4,1\n"
    CODES.write(tmp_path / "codes.tsv")
    assert (tmp_path / "codes.tsv").read_text().splitlines()[1] == "007\t1\t2\t1"
    Embeddings(["a"], np.array([[0.5, 1.0]], dtype=np.float32)).write(tmp_path / "v.csv")
    assert (tmp_path / "v.csv").read_text() == "item_id,embedding_1,embedding_2\na,0.5,1.0\n"


@pytest.mark.parametrize("name", ["codes", "codes.xlsx", "codes.json"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    for refused in (checked_ending, CODES.write, lambda path: write_table(path, pl.DataFrame())):
        with pytest.raises(InputError, match="need one of .parquet, .csv, .tsv, .jsonl"):
            refused(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
