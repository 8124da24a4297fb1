"""Codes of given vectors, without a run."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from qarm.cli.entry import main
from qarm.config import QuantizerConfig
from qarm.core.sealed_folder import opened_seal
from qarm.errors import InputError
from qarm.quantizer.versions.vector_codes import KIND, quantize_vectors, read_vectors

SETTINGS = QuantizerConfig(levels=2, width=4, nearest=3)


def vectors(count: int = 30) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32)


def test_an_array_and_a_table_give_the_same_codes(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", vectors())
    names = [f"i{n}" for n in range(30)]
    pl.DataFrame({"item_id": names, "title": names, "v": vectors().tolist()}).write_parquet(
        tmp_path / "v.parquet"
    )
    for name in ("v.npy", "v.parquet"):
        figures = quantize_vectors(tmp_path / name, tmp_path / f"codes-{name}", SETTINGS, seed=0)
        assert figures["items"] == 30
        opened_seal(tmp_path / f"codes-{name}", kind=KIND)
    one, other = (
        pl.read_parquet(tmp_path / f"codes-{name}" / "codes.parquet") for name in ("v.npy", "v.parquet")
    )
    assert one["item_id"].to_list() == [str(n) for n in range(30)]
    assert other["item_id"].to_list() == names
    assert one.drop("item_id", "vq", strict=False).equals(other.drop("item_id", "vq", strict=False))


def test_vectors_that_are_none_are_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item_id": ["a", "a", "b"], "v": [[1.0], None, [2.0]]})
    frame.write_parquet(tmp_path / "v.parquet")
    with pytest.raises(InputError) as refused:
        read_vectors(tmp_path / "v.parquet")
    assert [
        "duplicate ids: a" in line or "items a have no vector" in line for line in refused.value.problems
    ] == [True] * 2
    frame.drop("v").write_parquet(tmp_path / "v.parquet")
    with pytest.raises(InputError, match="it has item_id, need item_id and one list column"):
        read_vectors(tmp_path / "v.parquet")
    np.save(tmp_path / "v.npy", np.array([[np.nan], [1.0]]))
    with pytest.raises(InputError, match="rows 0 hold no finite numbers"):
        read_vectors(tmp_path / "v.npy")
    (tmp_path / "v.npy").write_bytes(b"junk")
    with pytest.raises(InputError, match="not readable"):
        read_vectors(tmp_path / "v.npy")


def test_the_command_writes_a_new_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "v.npy", vectors())
    given = ["--vectors", str(tmp_path / "v.npy"), "--quantizer.width", "4", "--quantizer.nearest", "3"]
    with pytest.raises(SystemExit) as done:
        raise SystemExit(main(["quantize", *given, "--out", str(tmp_path / "codes")]))
    assert done.value.code in (0, None), capsys.readouterr().err
    assert (tmp_path / "codes" / "codes.parquet").is_file()
    with pytest.raises(SystemExit) as done:
        raise SystemExit(main(["quantize", *given, "--refit", "--out", str(tmp_path / "codes")]))
    assert done.value.code == 2
