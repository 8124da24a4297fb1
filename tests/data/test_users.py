"""Reading a table of users: features as text, and every fault named."""

from pathlib import Path

import polars as pl
import pytest

from qarm.data.users import read_users
from qarm.errors import InputError


def test_features_are_text_whatever_they_were(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"u": [1, 2, 3], "age": [30, None, 40], "new": [True, False, None], "x": ["a", "", "b"]}
    )
    frame.write_parquet(tmp_path / "users.parquet")
    users = read_users(tmp_path / "users.parquet", id="u", features=["age", "new"])
    assert users.frame.to_dict(as_series=False) == {
        "user_id": ["1", "2", "3"],
        "age": ["30", None, "40"],
        "new": ["true", "false", None],
    }
    assert users.features == ["age", "new"]
    assert users.of(["3", "nobody"]).rows() == [("40", None), (None, None)]


def test_numbers_of_a_csv_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id,zip\n007,0123\n8,99\n")
    users = read_users(tmp_path / "users.csv", features=["zip"])
    assert users.frame.rows() == [("007", "0123"), ("8", "99")]


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["a", "b", "a"], "height": [1.5, 1.6, 1.7], "tags": [["x"], [], []]})
    frame.write_parquet(tmp_path / "users.parquet")
    with pytest.raises(InputError) as caught:
        read_users(tmp_path / "users.parquet", features=["height", "tags", "town"])
    assert len(caught.value.problems) == 4
    text = str(caught.value)
    assert "users.parquet.user_id: duplicate ids: a; keep one row per user" in text
    assert "users.parquet.height: got Float64, a user feature is text" in text
    assert "users.parquet.tags: got List" in text
    assert "no column 'town'" in text


@pytest.mark.parametrize("features", [[], ["age", "age"], ["user_id"]])
def test_features_are_distinct_columns(tmp_path: Path, features: list[str]) -> None:
    pl.DataFrame({"user_id": ["a"], "age": ["x"]}).write_parquet(tmp_path / "users.parquet")
    with pytest.raises(InputError, match="need distinct columns other than 'user_id'"):
        read_users(tmp_path / "users.parquet", features=features)
