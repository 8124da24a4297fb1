"""Files of a comparison: a changed bit of one that is read back is named; what is missing is made again."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.comparison.conftest import config_of, seed_of

from qarm.comparison.file_hashes import HASHES, checked, damaged_files, enter
from qarm.errors import ArtifactError


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_changed_scores_are_named_and_made_again(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "compare"
    seed = seed_of(config_of(world), out)
    calls = []

    def scorer() -> object:
        calls.append(len(calls))
        return lambda rows: np.zeros(len(rows), dtype=np.float32)

    seed._score_once("id", scorer, print)
    before = {path: path.read_bytes() for path in out.rglob("*.npy")}
    assert len(before) == 3
    assert set(json.loads((out / HASHES).read_text())["files"]) == {
        f"seed-0/scores/id-{kind}.npy" for kind in ("uniform", "popular", "catalogue")
    }
    seed.scores("id")
    for path in before:
        flip(path)
        with pytest.raises(ArtifactError, match=rf"{path.name} changed since qarm compare wrote it"):
            seed.scores("id"), seed.catalogue_figures("id")
        assert damaged_files(out) == [path.relative_to(out).as_posix()]
        path.unlink()
        seed._score_once("id", scorer, print)
    assert {path: path.read_bytes() for path in out.rglob("*.npy")} == before
    assert damaged_files(out) == []
    seed._score_once("id", scorer, print)
    assert len(calls) == 4


def test_a_changed_list_of_hashes_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    enter(tmp_path, tmp_path / "a")
    flip(tmp_path / HASHES, (tmp_path / HASHES).read_bytes().index(b'"a"') + 1)
    with pytest.raises(ArtifactError, match=r"hashes\.json was changed"):
        checked(tmp_path, tmp_path / "a")
    assert damaged_files(tmp_path) == [HASHES]


def test_files_of_an_earlier_qarm_are_read_and_entered(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    assert damaged_files(tmp_path) == []
    assert checked(tmp_path, tmp_path / "a").read_text() == "a"
    first = (tmp_path / HASHES).read_bytes()
    checked(tmp_path, tmp_path / "a")
    assert (tmp_path / HASHES).read_bytes() == first
