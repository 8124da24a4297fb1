"""Embedding a catalogue: the same vectors from torchrun's processes, from workers, and after a kill."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from qarm.data.catalog import Catalog
from qarm.encoder import embed as embed_module
from qarm.encoder.alignment.align import align
from qarm.encoder.embed import embed
from qarm.encoder.encoder import Encoder

FEW: dict[str, Any] = {
    "image": None,
    "audio": None,
    "dim": 8,
    "hidden": 8,
    "batch": 8,
    "epochs": 1,
    "min_steps": 1,
}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Encoder, Catalog]:
    nothing = pl.Series([None] * 30, dtype=pl.String)
    texts = ["thing " * (n % 5) + f"number {n}" for n in range(30)]
    frame = pl.DataFrame(
        {"item_id": [f"i{n}" for n in range(30)], "text": texts, "image": nothing, "audio": nothing}
    )
    pairs = pl.DataFrame(
        {"trigger_id": [f"i{n}" for n in range(20)], "target_id": [f"i{n + 1}" for n in range(20)]}
    )
    catalog = Catalog(frame, tmp_path)
    return align(catalog, pairs, **FEW), catalog


def test_workers_come_to_the_same_vectors(
    made: tuple[Encoder, Catalog], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encoder, catalog = made
    opened: list[Any] = []
    read = Encoder.from_pretrained
    monkeypatch.setattr(Encoder, "from_pretrained", lambda folder: opened.append(folder) or read(folder))

    def run(function: Callable[..., Any], buckets: Any, *, shared: Any, workers: int) -> Any:
        return map(partial(function, shared), buckets)

    monkeypatch.setattr(embed_module, "SHARE", 7)
    monkeypatch.setattr(embed_module, "engine_of", lambda name: run)
    embed_module._opened.cache_clear()
    for version, expected in (("aligned", encoder.embed(catalog)), ("raw", encoder.raw(catalog))):
        found = embed(encoder, catalog, engine="ray", version=version)  # type: ignore[arg-type]
        assert found.item_ids == catalog.item_ids
        assert found.vectors.tobytes() == expected.vectors.tobytes()
    assert len(opened) == 1
    embed_module._opened.cache_clear()


SCRIPT = """
import sys
from pathlib import Path
import polars as pl
from qarm.encoder import embed as module
from qarm.data.catalog import Catalog
from qarm.encoder.encoder import Encoder
module.SHARE = 7
encoder = Encoder.from_pretrained(sys.argv[1])
catalog = Catalog(pl.read_parquet(sys.argv[2]), Path("."))
found = module.embed(encoder, catalog)
import torch.distributed as dist
module.np.save(f"{sys.argv[3]}-{dist.get_rank()}.npy", found.vectors)
"""


def test_processes_of_torchrun_share_the_items(
    made: tuple[Encoder, Catalog], torchrun: Callable[..., Any], tmp_path: Path
) -> None:
    encoder, catalog = made
    encoder.save_pretrained(tmp_path / "encoder")
    catalog.frame.write_parquet(tmp_path / "items.parquet")
    (tmp_path / "run.py").write_text(SCRIPT)
    arguments = [tmp_path / name for name in ("run.py", "encoder", "items.parquet", "found")]
    torchrun(*arguments)
    expected = encoder.embed(catalog).vectors
    for rank in range(2):
        assert np.load(tmp_path / f"found-{rank}.npy").tobytes() == expected.tobytes()


def test_a_call_that_was_cut_short_goes_on(
    made: tuple[Encoder, Catalog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, catalog = made
    monkeypatch.setattr("qarm.encoder.feature_cache.SHARD", 8)
    tower: Any = encoder.towers["text"]
    encode, calls = type(tower).encode, iter(range(100))

    def dies(self: Any, inputs: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, inputs)

    seen: list[int] = []

    def counted(self: Any, inputs: Any) -> Any:
        seen.append(len(inputs))
        return encode(self, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(type(tower), "encode", dies)
        with pytest.raises(KeyboardInterrupt):
            embed(encoder, catalog, cache=tmp_path / "cache")
    monkeypatch.setattr(type(tower), "encode", counted)
    found = embed(encoder, catalog, cache=tmp_path / "cache")
    assert seen == [8, 6]
    monkeypatch.setattr(type(tower), "encode", encode)
    assert found.vectors.tobytes() == embed(encoder, catalog).vectors.tobytes()
