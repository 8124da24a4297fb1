"""Bundles whose files have the right hashes, but were not made for each other, are not served."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from qarm.core.atomic_io import read_json, write_json
from qarm.core.sealed_folder import MANIFEST, seal
from qarm.errors import ArtifactError
from qarm.serving.bundle import Bundle


def table(name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        change(pl.read_parquet(folder / name)).write_parquet(folder / name)

    return changed


def content(**values: object) -> Callable[[Path], None]:
    return lambda folder: write_json(folder / "bundle.json", {**read_json(folder / "bundle.json"), **values})


def other_ranker(folder: Path) -> None:
    path = folder / "recommender" / "id+rq+vq" / "model.safetensors"
    tensors = load_file(path)
    tensors["item.codes"] = np.roll(tensors["item.codes"], 1, axis=0)
    save_file(tensors, path)


def codes(column: str, dtype: pl.DataType, value: int) -> Callable[[Path], None]:
    def change(frame: pl.DataFrame) -> pl.DataFrame:
        values = frame[column].to_numpy().copy()
        values[3, 1] = value
        return frame.with_columns(pl.Series(column, values, dtype=pl.Array(dtype, values.shape[1])))

    return table("codes/codes.parquet", change)


CODES, VECTORS = "codes/codes.parquet", "embeddings/embeddings.parquet"
CHANGES = {
    "says 41 items, codes.parquet has 40": content(items=41),
    "says codes of version 9, they are 1": content(codes_version=9),
    "embeddings.parquet and codes.parquet are of other items": table(VECTORS, lambda frame: frame.reverse()),
    "items.parquet and codes.parquet are of other items": table(
        "items.parquet", lambda frame: frame.head(39)
    ),
    "holds an item twice": table(CODES, lambda frame: pl.concat([frame.head(39), frame.head(1)])),
    "codes of level 2 leave 0 .. 3": codes("rq", pl.Int32, 4),
    "VQ codes leave 0 .. 35": codes("vq", pl.Int32, 40),
    "the ranker was trained on other codes": other_ranker,
}


@pytest.mark.parametrize("message", CHANGES)
def test_parts_of_two_bundles_are_refused(exported: Path, tmp_path: Path, message: str) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "bundle"))
    kind = read_json(folder / MANIFEST)["kind"]
    CHANGES[message](folder)
    (folder / MANIFEST).unlink()
    seal(folder, kind=kind)
    with pytest.raises(ArtifactError) as caught:
        Bundle.load(folder)
    assert "parts do not belong together" in str(caught.value)
    assert message in str(caught.value)
