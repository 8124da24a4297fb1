"""Paths: text is as good as `Path`, and no folder called `~` is ever made."""

from pathlib import Path

import numpy as np
import pytest

from qarm.config import load_config
from qarm.core.paths import as_path
from qarm.data.catalog import read_catalog
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import read_log
from qarm.errors import ArtifactError, ConfigError, InputError
from qarm.quantizer.coder import encode
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.versions.lifecycle import append_items, drift
from qarm.serving.bundle import Bundle


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [("~", "{}"), ("~/a b/c", "{}/a b/c"), (Path("~/c"), "{}/c"), ("a/~/c", "a/~/c"), ("/x/~", "/x/~")],
)
def test_home_at_the_beginning_alone(given: Path | str, expected: str, home: Path) -> None:
    assert as_path(given) == Path(expected.format(home))


def test_a_file_that_is_called_so_is_meant_by_a_point_before_it() -> None:
    assert as_path("./~notes") == Path.cwd() / "~notes"
    with pytest.raises(InputError, match=r"~nobody-here/x: ~nobody-here stands for no home folder"):
        as_path("~nobody-here/x")


def test_paths_of_a_config(home: Path) -> None:
    flags = {"data.root": "~/shop", "encoder.cache": "~/cache", "data.items.path": "~/items.csv"}
    config = load_config(flags=flags, environment={})
    assert config.data.root == home / "shop"
    assert config.encoder.cache == home / "cache"
    assert config.items_path == home / "items.csv"
    with pytest.raises(ConfigError, match="data.root.*~nobody-here stands for no home folder"):
        load_config(flags={"data.root": "~nobody-here"}, environment={})
    (home / "shop.yaml").write_text("seed: 7")
    assert load_config("~/shop.yaml", environment={}).seed == 7


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_of_python_calls(home: Path, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables, codes, vectors and models; the working folder gets no folder of that name."""
    (home / "work").mkdir()
    monkeypatch.chdir(home / "work")
    (home / "items.csv").write_text("item_id,title,image_path\na,red lamp,\nb,blue lamp,\n")
    (home / "log.csv").write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\n")
    assert read_catalog(kind("~/items.csv"), text=["title"], audio=None).item_ids == ["a", "b"]
    assert read_catalog(home / "items.csv", text=["title"], audio=None, folder=kind("~")).folder == home
    assert len(read_log(kind("~/log.csv"))) == 2
    vectors = Embeddings(["a", "b"], np.eye(2, dtype=np.float32))
    vectors.write(kind("~/vectors.parquet"))
    assert Embeddings.read(kind("~/vectors.parquet")).item_ids == ["a", "b"]
    books = ResidualKMeans(1, 2).fit(vectors)
    books.save_pretrained(kind("~/books"))
    assert ResidualKMeans.from_pretrained(kind("~/books")).levels == 1
    books.codes(vectors).write(kind("~/codes.csv"))
    for call in (encode, append_items, drift):
        with pytest.raises(ArtifactError, match=f"{home / 'run'} has no finished codes"):
            call(kind("~/run"), kind("~/items.csv"))
    with pytest.raises(InputError, match=f"{home / 'bundle'}: no manifest.json"):
        Bundle.load(kind("~/bundle"))
    assert sorted(path.name for path in home.iterdir()) == [
        "books",
        "codes.csv",
        "items.csv",
        "log.csv",
        "run",
        "vectors.parquet",
        "work",
    ]
    assert not list((home / "work").iterdir())
