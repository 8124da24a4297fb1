"""The blocks that the pages mark with `run` are run, page after page, in one folder."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from qarm.cli import main
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.encoder.encoder import Encoder
from qarm.quantizer.residual_kmeans import ResidualKMeans

DOCS = Path(__file__).parent.parent.parent / "docs"
BLOCK = re.compile(r"^<!-- run(?:: (\S+))? -->\n```(\w+)\n(.*?)^```", flags=re.M | re.S)
QUICK = {
    "QARM_PAIRS__USER2ITEM__EPOCHS": "1",
    "QARM_ENCODER__EPOCHS": "1",
    "QARM_ENCODER__MIN_STEPS": "1",
    "QARM_QUANTIZER__WIDTH": "8",
    "QARM_RANKER__EPOCHS": "1",
    "QARM_RANKER__SEEDS": "[0]",
    "QARM_RANKER__NEGATIVES__EVAL": "5",
}


def follow(page: str, *, commands: list[tuple[str, int]] | None = None) -> dict[str, Any]:
    """Run a page's blocks in the current folder; the names that its Python leaves behind.

    A block with a name is written to that file first. Each command and its exit code goes to `commands`.
    """
    names: dict[str, Any] = {}
    for file, language, body in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if file:
            Path(file).write_text(body, encoding="utf-8")
        if language == "python":
            exec(compile(body, page, "exec"), names)  # noqa: S102 - our own page
        elif language == "console":
            for line in body.splitlines():
                assert commands is not None
                commands.append((line, run(line)))
    return names


def run(line: str) -> int:
    program, *arguments = shlex.split(line)
    assert program == "qarm"
    try:
        main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, int]]]:
    """The folder in which `your-data.md` was followed, and its commands."""
    folder = tmp_path_factory.mktemp("shop")
    commands: list[tuple[str, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in QUICK.items():
            patch.setenv(name, value)
        follow("your-data.md", commands=commands)
    return folder, commands


def test_ones_own_data_become_results(shop: tuple[Path, list[tuple[str, int]]]) -> None:
    folder, commands = shop
    assert [line.split()[1] for line, _ in commands] == [
        "check",
        "run",
        "encode",
        "quantize",
        "quantize",
        "monitor",
    ]
    assert [code for _, code in commands] == [0, 0, 0, 0, 0, 3]  # the page says why monitor complains
    run = folder / "runs" / "shop"
    assert (run / "report" / "index.html").is_file()
    codes = Codes.read(run / "codes" / "codes.parquet")
    assert (len(codes), codes.version) == (241, 2)
    new = pl.read_parquet(folder / "new_codes.parquet")
    assert new["item_id"].to_list() == ["lamp-new"]
    first = Codes.read(run / "codes" / "versions" / "1" / "codes.parquet")
    assert first.rq[first.item_ids.index("lamp-new")].tolist() == new["rq"][0].to_list()


def test_codes_enter_a_model_by_each_way(
    shop: tuple[Path, list[tuple[str, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop[0])
    with torch.random.fork_rng(devices=[]):
        names = follow("pytorch.md")
    model, bag = names["model"], names["bag"]
    assert names["logits"].shape == (2,)
    assert all(weight.grad is not None for weight in model.parameters())
    assert names["vectors"].shape == (2, 32)
    # one table with offsets holds what the tables of CodeEmbedding hold
    widths, row = names["widths"], names["row_of"]["lamp-00"]
    lists = names["vq"][row]
    levels = [bag.weight[sum(widths[:n]) + code] for n, code in enumerate(names["table"]["rq"][row])]
    expected = torch.stack(levels).sum(0) + bag.weight[lists].mean(0)
    assert torch.allclose(names["vectors"][0], expected, atol=1e-6)
    assert int(names["ids"].max()) < bag.num_embeddings
    assert int(names["vq"].min()) >= sum(widths)
    assert (names["warm"].shape, names["warm"].dtype) == ((8, 32), np.float32)


def test_the_script_for_torchrun_runs_alone_too(
    shop: tuple[Path, list[tuple[str, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop[0])
    follow("scale.md")
    vectors = Embeddings.read(Path("spread/embeddings.parquet"))
    books = ResidualKMeans.from_pretrained("spread/books")
    assert len(vectors) == 240
    assert Codes.read(Path("spread/codes.parquet")).rq.tolist() == books.transform(vectors).tolist()
    assert Encoder.from_pretrained("spread/encoder").dim == vectors.vectors.shape[1]


def test_every_page_with_marked_blocks_is_followed() -> None:
    """A page whose blocks nobody runs would only look tested."""
    marked = {path.name for path in DOCS.glob("*.md") if "<!-- run" in path.read_text(encoding="utf-8")}
    followed = set(re.findall(r'follow\("(\S+\.md)"', Path(__file__).read_text(encoding="utf-8")))
    assert marked == followed
    for name in sorted(marked):
        text = (DOCS / name).read_text(encoding="utf-8")
        assert len(BLOCK.findall(text)) == text.count("<!-- run"), name
