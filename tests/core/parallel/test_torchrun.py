"""Rows divided among processes: one, two and three come to the same bytes; disagreement is an error."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qarm.core.parallel.torchrun import Processes, alone, current, sharded
from qarm.quantizer.residual_kmeans import ResidualKMeans

SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np
import torch.distributed as dist
from qarm.errors import InputError
from qarm.quantizer.residual_kmeans import ResidualKMeans

folder, rank = Path(sys.argv[1]), os.environ["RANK"]
x = np.load(folder / "x.npy")
far = [np.concatenate([x[:1], np.full((15, x.shape[1]), 1e3)]), x[:16]]  # codes without rows
if os.environ["WORLD_SIZE"] == "3":
    dist.init_process_group("gloo")  # one that is there is used; two processes leave it to fit
models = {
    "path": ResidualKMeans(2, 16, iterations=6).fit(folder / "x.npy"),
    "array": ResidualKMeans(2, 16, iterations=6).fit(x),
    "reseeded": ResidualKMeans(2, 16, iterations=6, init=far).fit(x),
    "near": ResidualKMeans(2, 16, iterations=3, balance="all-approximate").fit(x),
    "exact": ResidualKMeans(2, 16, iterations=3, balance="last").fit(x),
}
for name, model in models.items():
    model.save_pretrained(folder / f"{name}-{os.environ['WORLD_SIZE']}-{rank}")
try:
    ResidualKMeans(2, 16).fit(x[: 100 + int(rank)])
except InputError as error:
    (folder / f"error-{os.environ['WORLD_SIZE']}-{rank}").write_text(str(error))
others = {
    "content": (x + int(rank), {}),
    "init": (x, {"init": [far[1] + int(rank), far[1]]}),
    "seed": (x, {"seed": int(rank)}),
}
for name, (rows, given) in others.items():
    try:
        ResidualKMeans(2, 16, **given).fit(rows)
    except InputError as error:
        (folder / f"{name}-error-{os.environ['WORLD_SIZE']}-{rank}").write_text(str(error))
if os.environ["WORLD_SIZE"] == "3":
    dist.destroy_process_group()
"""


def spread(folder: Path, processes: int) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
    ]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen([*command, str(folder / "fit.py"), str(folder)], env=settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 6))[rng.integers(9, size=1001)] * 3 + rng.normal(size=(1001, 6))
    np.save(place / "x.npy", x.astype(np.float32))
    (place / "fit.py").write_text(SCRIPT)
    running = [spread(place, processes) for processes in (2, 3)]
    try:
        assert [process.wait(timeout=250) for process in running] == [0, 0]
    finally:
        for process in running:
            process.terminate()
            process.wait()
    return place


def settings(name: str, x: np.ndarray) -> dict[str, object]:
    far = [np.concatenate([x[:1], np.full((15, x.shape[1]), 1e3)]), x[:16]]
    return {
        "near": {"balance": "all-approximate", "iterations": 3},
        "exact": {"balance": "last", "iterations": 3},
        "reseeded": {"init": far, "iterations": 6},
    }.get(name, {"iterations": 6})


@pytest.mark.parametrize("name", ["path", "array", "reseeded", "near", "exact"])
def test_one_two_and_three_processes_give_the_same_bytes(folder: Path, name: str, tmp_path: Path) -> None:
    x = np.load(folder / "x.npy")
    ResidualKMeans(2, 16, **settings(name, x)).fit(x).save_pretrained(tmp_path)  # type: ignore[arg-type]
    for file in ("model.safetensors", "config.json"):
        expected = (tmp_path / file).read_bytes()
        for world in (2, 3):
            for rank in range(world):
                assert (folder / f"{name}-{world}-{rank}" / file).read_bytes() == expected


def test_processes_with_other_rows_are_told(folder: Path) -> None:
    for world in (2, 3):
        for rank in range(world):
            message = (folder / f"error-{world}-{rank}").read_text()
            assert message.startswith("processes disagree on rows and settings: rows is ")
            assert "shape is [100, 6] on rank 0 and [101, 6] on rank 1; give all of them the same" in message


@pytest.mark.parametrize(("what", "reported"), [("content", "rows"), ("init", "init"), ("seed", "seed")])
def test_processes_with_other_content_or_settings_are_told(folder: Path, what: str, reported: str) -> None:
    for world in (2, 3):
        for rank in range(world):
            message = (folder / f"{what}-error-{world}-{rank}").read_text()
            assert message.startswith(f"processes disagree on rows and settings: {reported} is ")
            assert message.count(" on rank 0 and ") == 1


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 5, 1001])
def test_stretches_cover_all_rows_once(world: int, n: int) -> None:
    rows = [row for rank in range(world) for row in range(*Processes(rank, world).stretch(n))]
    assert rows == list(range(n))


def test_alone_nothing_is_sent() -> None:
    with sharded() as shard, alone():
        assert shard.size == 1
        assert current().size == 1
        values = np.arange(3)
        shard.add_up(values)
        shard.fill(values)
        shard.agree("numbers", {"seven": 7})
        assert values.tolist() == [0, 1, 2]
        assert shard.largest(2.5) == 2.5
