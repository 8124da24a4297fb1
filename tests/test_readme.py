"""What the README shows is run: its Python, its config, its commands."""

import re
from pathlib import Path
from typing import Any

import pytest

import qarm
from qarm.cli import app
from qarm.demo import WorldSpec, build_world
from qarm.quantizer.versions.archive import write_codes

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The names that the ten-line story leaves behind, and the folder it ran in."""
    (story,) = [block for block in blocks("python") if "mine_pairs" in block]
    folder = tmp_path_factory.mktemp("story")
    build_world(folder, seed=1, spec=WorldSpec(items=320, users=400, events_per_user=40))
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(story, "README.md", "exec"), names)  # noqa: S102 - our own page
    return names, folder


def test_the_story_ends_with_a_comparison(
    told: tuple[dict[str, Any], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    names, _ = told
    assert len(names["known"]) < len(names["catalog"]) == len(names["codes"]) == 320
    frame = qarm.compare(names["ranker"], names["future"]).frame
    assert frame["slice"].to_list() == ["all", "warm", "cold"]
    assert frame["auc"][0] > 0.5


def test_alignment_alone(told: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    names, folder = told
    names["pairs"].write_parquet(folder / "pairs.parquet")
    monkeypatch.chdir(folder)
    (snippet,) = [block for block in blocks("python") if "from_pretrained" in block]
    assert len([line for line in snippet.splitlines() if line]) <= 5
    shown: dict[str, Any] = {}
    exec(compile(snippet, "README.md", "exec"), shown)  # noqa: S102
    vectors = shown["vectors"]
    assert vectors.item_ids == shown["catalog"].item_ids
    lengths = (vectors.vectors**2).sum(axis=1)
    assert abs(lengths - 1).max() < 1e-5


def test_codes_enter_a_pytorch_model(
    told: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names, folder = told
    known = qarm.embed(names["encoder"], names["known"])
    everything = qarm.embed(names["encoder"], names["catalog"])
    nearest = qarm.NearestCodes(25).fit(known)
    books = names["books"]
    codes = qarm.Codes(everything.item_ids, books.transform(everything), nearest.codes(everything))
    write_codes(folder / "runs" / "demo" / "codes", codes, books, nearest, known=known)
    monkeypatch.chdir(folder)
    (snippet,) = [block for block in blocks("python") if "CodeEmbedding" in block]
    shown: dict[str, Any] = {}
    exec(compile(snippet, "README.md", "exec"), shown)  # noqa: S102
    assert shown["vectors"].shape == (2, shown["codes"].out_dim) == (2, 4 * 32)
    shown["model"](shown["ids"]).sum().backward()
    assert all(table.weight.grad is not None for table in shown["codes"].levels)


def test_the_config_for_ones_own_data_is_valid(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "shop.yaml").write_text(text)
    config = qarm.load_config(tmp_path / "shop.yaml", environment={})
    assert config.items_path == Path("/data/shop/items.parquet")
    assert len([line for line in text.splitlines() if not line.startswith("#")]) <= 12


@pytest.mark.parametrize("name", ["movielens", "vgc", "office", "beauty", "paper"])
def test_the_examples_are_valid(name: str) -> None:
    path = Path(__file__).parent.parent / "examples" / f"{name}.yaml"
    assert qarm.load_config(path, environment={}).data.items.path == Path("items.parquet")


def test_every_command_has_a_line() -> None:
    listed = set(re.findall(r"^\| `qarm (\S+)`", README, flags=re.M))
    assert listed == {name for name in app if not name.startswith("-")}
