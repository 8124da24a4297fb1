"""Verification: every damaged file of a run, its earlier versions and a sealed folder, by name."""

import json
from pathlib import Path

import numpy as np
import pytest

from qarm.cli import main
from qarm.comparison import file_hashes
from qarm.core.run_folder import stage_folder
from qarm.core.sealed_folder import seal
from qarm.encoder.feature_cache import FeatureCache
from qarm.errors import ArtifactError, InputError
from qarm.pipeline.verification import find_damage, repair
from qarm.serving.code_store import Store


def damaged_files(folder: Path) -> list[str]:
    return [damage.text for damage in find_damage(folder)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    for stage in ("pairs", "codes"):
        with stage_folder(run, stage, inputs={}, config={}) as (work, _):
            (work / "a.txt").write_text("some text")
    with stage_folder(run / "other", "1", inputs={}, config={}) as (work, _):
        (work / "a.txt").write_text("an earlier one")
    (run / "codes" / "versions").mkdir()
    (run / "other" / "1").rename(run / "codes" / "versions" / "1")
    (run / "other").rmdir()
    (run / "cache").mkdir()
    return run


def test_each_file_changed_cut_off_or_removed_is_named(run: Path) -> None:
    assert damaged_files(run) == []
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) >= 9
    for path in files:
        content = path.read_bytes()
        flipped = bytes([content[0] ^ 1]) + content[1:]
        for changed in (flipped, content[: len(content) // 2], None):
            path.unlink() if changed is None else path.write_bytes(changed)
            found = damaged_files(run)
            assert len(found) == 1, path
            assert str(path.parent) in found[0]
            assert path.name in found[0]
            path.write_bytes(content)
    assert damaged_files(run) == []


def test_a_sealed_folder(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "x").write_text("x")
    seal(folder, kind="qarm-bundle-1")
    assert damaged_files(folder) == []
    (folder / "x").write_text("y")
    assert "changed: x" in damaged_files(folder)[0]
    with pytest.raises(InputError, match="no finished stage, no manifest"):
        damaged_files(tmp_path / "none")


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", str(run)])
    assert "every file is as it was written" in capsys.readouterr().out
    (run / "codes" / "versions" / "1" / "a.txt").unlink()
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(run), "--json"])
    assert stopped.value.code == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["damaged"] == [str(run / "codes" / "versions" / "1" / "a.txt")]
    assert "damaged or missing" in shown.err


# ---- what is no stage -----------------------------------------------------------------------------


def changed(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.fixture
def full(run: Path) -> Path:
    """A run with a comparison, cached features, a ranker and a report."""
    for name in ("key.json", "seed-0/scores/id-catalogue.npy", "results.json"):
        file = run / "compare" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
        file_hashes.enter(run / "compare", file)
    FeatureCache(run / "cache" / "text-1").add([b"a" * 32], np.ones((1, 4), dtype=np.float32))
    for stage in ("recommender", "report"):
        with stage_folder(run, stage, inputs={}, config={}) as (work, _):
            (work / "a.txt").write_text("some text")
    return run


def test_comparisons_and_cached_features_are_verified_in_a_run_and_alone(full: Path) -> None:
    compare, cache = full / "compare", full / "cache"
    (part,) = cache.rglob("part-*")
    scores = compare / "seed-0" / "scores" / "id-catalogue.npy"
    for folder in (full, compare, cache):
        assert damaged_files(folder) == []
    changed(scores)
    changed(part)
    assert damaged_files(compare) == [str(scores)]
    (said,) = damaged_files(cache)
    assert said.startswith(f"{part}: damaged cache file")
    assert damaged_files(full) == [said, str(scores)]
    with pytest.raises(ArtifactError, match="id-catalogue.npy changed since qarm compare wrote it"):
        file_hashes.checked(compare, scores)


def test_a_damaged_list_of_hashes_is_named(full: Path) -> None:
    hashes = full / "compare" / "hashes.json"
    content = hashes.read_text()
    for place in range(0, len(content), 7):
        hashes.write_text(content[:place] + chr(ord(content[place]) ^ 1) + content[place + 1 :])
        found = damaged_files(full)
        assert found in ([str(hashes)], []), place  # or the space between two values
    hashes.write_text(content)


def test_a_file_without_a_hash_is_entered(full: Path) -> None:
    file = full / "compare" / "search.json"
    file.write_text("{}")
    assert file_hashes.checked(full / "compare", file) == file
    changed(file)
    with pytest.raises(ArtifactError, match=r"search\.json changed"):
        file_hashes.checked(full / "compare", file)


def test_repair_removes_what_can_be_made_again_and_nothing_else(
    full: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (part,) = (full / "cache").rglob("part-*")
    scores = full / "compare" / "seed-0" / "scores" / "id-catalogue.npy"
    lost = [full / name / "a.txt" for name in ("codes", "codes/versions/1", "pairs")]
    for path in (part, scores, full / "recommender" / "a.txt", *lost):
        changed(path)
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(full)])
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "qarm verify --repair removes 3 that the next run makes again" in said
    assert "3 of them cannot be made again: restore from a copy, and remove nothing" in said
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(full), "--repair"])
    assert stopped.value.code == 1
    shown = capsys.readouterr()
    removed = [part, scores, full / "recommender"]
    assert not any(path.exists() for path in removed)
    assert all(str(path) in shown.out for path in removed)
    assert all(path.is_file() and str(path) in shown.err for path in lost)
    assert (full / "report" / "a.txt").is_file()
    assert sorted(damaged_files(full)) == sorted([*map(str, lost), str(scores)])  # missing until it is made
    for path in lost:
        changed(path)


def test_a_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a run folder, a bundle, a store, a comparison or a cache"):
        find_damage(tmp_path)
    store = Store(tmp_path)
    store.close()
    assert find_damage(tmp_path) == []
    (tmp_path / "codes.sqlite").write_bytes(b"no database" * 100)
    (damage,) = find_damage(tmp_path)
    assert (damage.remove, "not readable" in damage.text) == (None, True)
    assert repair(tmp_path, [damage]) == []
    assert (tmp_path / "codes.sqlite").is_file()
