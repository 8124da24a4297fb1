"""An embeddings Parquet is read like an array, in pieces, and its faults are named."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qarm.data.embeddings import Embeddings
from qarm.errors import InputError
from qarm.quantizer import vectors as parquet
from qarm.quantizer.residual_kmeans import ResidualKMeans

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 12)).astype(np.float32)
ITEMS = [f"i{n}" for n in RNG.permutation(400)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Embeddings(ITEMS, X).write(tmp_path / "embeddings.parquet")
    return tmp_path / "embeddings.parquet"


@pytest.mark.parametrize("as_text", [False, True])
def test_a_parquet_is_read_like_an_array(path: Path, as_text: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_VALUES", 12 * 37)  # several pieces, the last one short
    source = str(path) if as_text else path
    model, expected = ResidualKMeans(2, 8).fit(source), ResidualKMeans(2, 8).fit(X)
    assert all(np.array_equal(a, b) for a, b in zip(model.codebooks_, expected.codebooks_, strict=True))
    assert np.array_equal(model.transform(source), expected.transform(X))
    codes = model.codes(source)
    assert codes.item_ids == ITEMS
    assert np.array_equal(codes.rq, expected.transform(X))


def test_no_piece_holds_more_than_it_may(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_VALUES", 12 * 50)
    heights = []
    collect = pl.LazyFrame.collect

    def counted(frame: pl.LazyFrame) -> pl.DataFrame:
        found = collect(frame)
        heights.append(found.height)
        return found

    monkeypatch.setattr(pl.LazyFrame, "collect", counted)
    rows = parquet.parquet_rows(path)
    assert isinstance(rows, np.memmap)
    assert heights == [1, *[50] * 8]
    assert np.array_equal(rows, X)


def test_the_temporary_file_is_gone_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(path.parent))
    rows = parquet.parquet_rows(path)
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    assert np.array_equal(rows, X)


def test_integer_ids_become_text(tmp_path: Path) -> None:
    vectors = pl.Series("embedding", X, dtype=pl.Array(pl.Float32, 12))
    pl.DataFrame({"item_id": range(400), "embedding": vectors}).write_parquet(tmp_path / "e.parquet")
    codes = ResidualKMeans(1, 4).fit(tmp_path / "e.parquet").codes(tmp_path / "e.parquet")
    assert codes.item_ids[:2] == ["0", "1"]


def frame(ids: list[object], vectors: list[object] | None = None, **columns: object) -> pl.DataFrame:
    values = pl.Series("embedding", vectors or [[1.0, 2.0]] * len(ids), dtype=pl.Array(pl.Float32, 2))
    return pl.DataFrame({"item_id": ids, "embedding": values, **columns})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (frame([1.5, 2.5]), "item_id: ids are Float64, need text or integers; cast them"),
        (frame([[1], [2]]), "item_id: ids are List(Int64), need text or integers"),
        (frame(["a", None]), "item_id: null or empty ids in rows 1; remove them"),
        (frame(["a", "b", "a"]), "item ids occur more than once: a; keep one row per item"),
        (frame(["a", "b"], [[1.0, 2.0], None]), "rows 1 have no whole embedding; embed or remove them"),
        (frame(["a", "b"], [[1.0, 2.0], [None, 1.0]]), "rows 1 have no whole embedding"),
        (frame(["a", "b"], [[1.0, 2.0], [np.nan, 1.0]]), "vectors hold NaN or infinity in rows 1"),
        (frame(["a"]).drop("item_id"), "no column item_id; it has embedding"),
        (frame(["a"]).cast({"embedding": pl.List(pl.Float32)}), "need a fixed-size list of f32"),
        (frame(["a"]).cast({"embedding": pl.Array(pl.Int32, 2)}), "need a fixed-size list of f32"),
        (frame([]).cast({"item_id": pl.String}), "Found array with 0 sample(s)"),
    ],
)
def test_bad_tables(table: pl.DataFrame, message: str, tmp_path: Path) -> None:
    table.write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(InputError) as caught:
        ResidualKMeans(1, 1).fit(tmp_path / "bad.parquet")
    assert message in str(caught.value)


def test_truncated_missing_and_without_ids(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not readable as Parquet"):
        ResidualKMeans(1, 4).fit(path)
    path.unlink()
    with pytest.raises(InputError, match="not readable as Parquet"):
        ResidualKMeans(1, 4).fit(path)
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(InputError, match="vectors come without item ids; give embeddings or"):
        ResidualKMeans(1, 4).fit(X).codes(tmp_path / "x.npy")
