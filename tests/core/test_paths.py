"""Paths: text is as good as `Path`, and no folder called `~` is ever made."""

from pathlib import Path

import pytest

from qarm.config import load_config
from qarm.core.paths import as_path
from qarm.errors import ConfigError, InputError


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
