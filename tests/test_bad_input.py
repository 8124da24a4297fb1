"""Wrong input, as a user meets it: exit code 2, one message with every problem, nothing touched."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from qarm.cli import main

Change = Callable[[pl.DataFrame], pl.DataFrame]


def items() -> pl.DataFrame:
    return pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["one", "two", "three"]})


def events() -> pl.DataFrame:
    rows = [("u", "a", 1), ("u", "b", 2), ("v", "b", 1), ("v", "c", 3), ("w", "a", 5)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def call(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    config = folder / "c.yaml"
    config.write_text(
        "data:\n  items: {path: items.parquet, text: [title], image: null, audio: null}\n"
        "encoder: {image: null, audio: null}\nquantizer: {width: 2, nearest: 1}\n"
    )
    try:
        main([arguments[0], str(config), "--data.root", str(folder), *arguments[1:]])
    except SystemExit as stop:
        return int(stop.code or 0), capsys.readouterr().err
    return 0, capsys.readouterr().err


def keep(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


CASES: dict[str, tuple[Change, Change, list[str]]] = {
    "missing column": (lambda t: t.drop("title"), keep, ["title"]),
    "wrong type": (lambda t: t.with_columns(title=pl.lit(b"\xff")), keep, ["title", "Binary"]),
    "empty items": (lambda t: t.clear(), keep, ["items.parquet", "no rows"]),
    "empty log": (keep, lambda t: t.clear(), ["interactions.parquet", "no rows"]),
    "duplicate ids": (lambda t: pl.concat([t, t.head(1)]), keep, ["duplicate", "a"]),
    "null ids": (
        lambda t: t.with_columns(item_id=pl.when(pl.col("item_id") != "b").then("item_id")),
        keep,
        ["item_id", "row"],
    ),
    "null users": (
        keep,
        lambda t: t.with_columns(user_id=pl.when(pl.col("user_id") != "v").then("user_id")),
        ["user_id", "2", "3"],
    ),
    "time as text": (
        keep,
        lambda t: t.with_columns(timestamp=pl.lit("yesterday")),
        ["timestamp"],
    ),
    "unknown items": (
        keep,
        lambda t: t.with_columns(item_id=pl.col("item_id").str.replace("c", "z")),
        ["1 of 5", "z", "5.0%"],
    ),
    "no modality": (
        lambda t: t.with_columns(title=pl.when(pl.col("item_id") != "b").then("title")),
        keep,
        ["b"],
    ),
    "both tables": (lambda t: t.drop("title"), lambda t: t.drop("timestamp"), ["title", "timestamp"]),
}


@pytest.mark.parametrize("name", CASES)
def test_tables(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_items, change_events, expected = CASES[name]
    change_items(items()).write_parquet(tmp_path / "items.parquet")
    change_events(events()).write_parquet(tmp_path / "interactions.parquet")
    for arguments in (["check"], ["run", "--out", str(tmp_path / "run")]):
        code, message = call(tmp_path, capsys, *arguments)
        assert code == 2, message
        assert message.startswith("qarm: ")
        assert "Traceback" not in message
        for part in expected:
            assert part in message
    left = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left <= {".lock"}


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events().write_parquet(tmp_path / "interactions.parquet")
    code, message = call(tmp_path, capsys, "check")
    assert code == 2
    assert "items.parquet: no such file" in message


def test_unknown_keys_and_wrong_values_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong: list[Any] = ["--quantizer.widht", "8", "--split.test", "2", "--ranker.variants", "[id+magic]"]
    code, message = call(tmp_path, capsys, "check", *wrong)
    assert code == 2
    assert "did you mean quantizer.width?" in message
    assert "split.test = 2" in message
    assert "ranker.variants.0 = 'id+magic'" in message


def test_good_tables_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items().write_parquet(tmp_path / "items.parquet")
    events().write_parquet(tmp_path / "interactions.parquet")
    assert call(tmp_path, capsys, "check") == (0, "")


def test_users_are_checked_with_the_other_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items().write_parquet(tmp_path / "items.parquet")
    events().drop("item_id").write_parquet(tmp_path / "interactions.parquet")
    asked = ["--data.users.features", "[town]", "--data.interactions.labels", "{like: liked}"]
    code, message = call(tmp_path, capsys, "check", *asked)
    assert code == 2
    assert "no column 'item_id'" in message
    assert "no column 'liked'" in message
    events().write_parquet(tmp_path / "interactions.parquet")
    code, message = call(tmp_path, capsys, "check", *asked[:2])
    assert code == 2
    assert "users.parquet: no such file" in message
    pl.DataFrame({"user_id": ["x"], "town": ["a"]}).write_parquet(tmp_path / "users.parquet")
    code, message = call(tmp_path, capsys, "check", *asked[:2])
    assert code == 2
    assert "the table of users has none of the log's: u, v, w" in message
    pl.DataFrame({"user_id": ["u"], "town": ["a"]}).write_parquet(tmp_path / "users.parquet")
    assert call(tmp_path, capsys, "check", *asked[:2]) == (0, "")
