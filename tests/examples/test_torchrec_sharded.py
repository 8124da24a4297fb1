"""examples/torchrec_sharded.py: rows by key, a logit by hand, learning with whole and with divided tables."""

import re
import sys
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.recommender.batches import batches
from qarm.recommender.examples import Examples

Toy = tuple[Log, Codes, Embeddings]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "torchrec_sharded.py"
    spec = spec_from_file_location("torchrec_sharded", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_by_key(example: ModuleType, make_examples: Callable[..., Examples]) -> None:
    codes = Codes(["i02", "i00", "i01"], np.array([[5, 0], [3, 1], [4, 0]], dtype=np.int32))
    tables = example.item_tables(codes)
    assert {name: column.tolist() for name, column in tables.items()} == {
        "item": [0, 1, 2],
        "level_0": [3, 4, 5],
        "level_1": [1, 0, 0],
    }
    batch = next(batches(make_examples([([1], [1], []), ([2, 0], [1, 0], [0, 1])], items=3), 10))
    rows, lengths = example.keyed(batch, tables)
    assert {name: part.tolist() for name, part in rows.items()} == {
        "item": [1, 2, 0],
        "item_history": [1, 0],  # newest first
        "level_0": [4, 5, 3],
        "level_0_history": [4, 3],
        "level_1": [0, 0, 1],
        "level_1_history": [0, 1],
    }
    assert lengths["item"].tolist() == lengths["level_1"].tolist() == [1, 2]
    assert lengths["item_history"].tolist() == [0, 2]


@torch.no_grad()
def test_a_logit_by_hand(example: ModuleType, make_examples: Callable[..., Examples]) -> None:
    torch.manual_seed(0)
    model = example.Scorer(example.PlainTables({"item": 3, "level_0": 2}))
    model.closeness.fill_(0.5)
    model.bias.fill_(-1.0)
    tables = {"item": torch.arange(3), "level_0": torch.tensor([1, 0, 1])}
    batch = next(batches(make_examples([([1], [1], []), ([2, 0], [1, 0], [0, 1])], items=3), 10))
    found = model(batch, *example.keyed(batch, tables))
    item, level = (model.tables.tables[name].weight for name in tables)
    vector = [item[n] + level[tables["level_0"][n]] for n in range(3)]
    assert found[0].tolist() == [-1.0, 0.0]  # no history; padded
    for place, candidate in enumerate((2, 0)):
        scores = [float(torch.exp(0.5 * vector[candidate] @ vector[n])) for n in (1, 0)]
        attended = (scores[0] * vector[1] + scores[1] * vector[0]) / sum(scores)
        assert float(found[1, place]) == pytest.approx(float(vector[candidate] @ attended) - 1, abs=1e-4)


def test_it_learns_with_whole_tables(example: ModuleType, toy: Toy, tmp_path: Path) -> None:
    log, codes, _ = toy
    (tmp_path / "codes").mkdir()
    codes.write(tmp_path / "codes" / "codes.parquet")
    frame = log.frame.select("user_id", "item_id", timestamp="time")
    frame.write_parquet(tmp_path / "log.parquet")
    losses = example.main([str(tmp_path), str(tmp_path / "log.parquet"), "--plain", "--epochs", "6"])
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0]


def test_it_learns_with_tables_that_two_processes_divide(
    toy: Toy, torchrun: Callable[..., Any], tmp_path: Path
) -> None:
    if find_spec("torchrec") is None or find_spec("fbgemm_gpu") is None:
        pytest.skip("torchrec and fbgemm_gpu are not installed")
    log, codes, _ = toy
    (tmp_path / "codes").mkdir()
    codes.write(tmp_path / "codes" / "codes.parquet")
    log.frame.select("user_id", "item_id", timestamp="time").write_parquet(tmp_path / "log.parquet")
    script = Path(__file__).parents[2] / "examples" / "torchrec_sharded.py"
    printed = torchrun(script, tmp_path, tmp_path / "log.parquet", "--epochs", "6").stdout
    losses = re.findall(r"epoch (\d)  loss (\d\.\d{4})", printed)  # of both, in any order
    first, last = ([float(loss) for epoch, loss in losses if epoch == one] for one in "05")
    assert len(first) == len(last) == 2
    assert max(last) < 0.8 * min(first)


def test_without_torchrec_it_says_what_to_do(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchrec", None)
    monkeypatch.setattr(example, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install torchrec fbgemm-gpu; torchrun .* or --plain"):
        example.main([str(tmp_path), "log.parquet"])
