"""Verification of what qarm wrote, file by file against its hash, and removal of what can be made again."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from qarm.comparison import file_hashes
from qarm.core.atomic_io import flush, read_json
from qarm.core.run_folder import MANIFEST, VERSIONS, changed_files, read_manifest, run_lock
from qarm.core.sealed_folder import opened_seal
from qarm.core.stage_timing import TIMING
from qarm.encoder.feature_cache import FeatureCache
from qarm.errors import ArtifactError, InputError
from qarm.serving import code_store

__all__ = ["Damage", "find_damage", "repair"]

COMPARE = "compare"
PARTS = tuple(f"{place}part-*.safetensors" for place in ("", "*/", "cache/*/"))
AGAIN = ("recommender", "report")  # stages that no codes depend on


@dataclass(frozen=True)
class Damage:
    """What is damaged.

    text: a path, or a sentence with one; remove: file or folder without which the next run makes it again,
    None where nothing can.
    """

    text: str
    remove: Path | None = None


def find_damage(folder: Path) -> list[Damage]:
    """Files that are missing or not as they were written.

    Nothing is changed. Earlier versions of the codes count as what they are: folders of their own.

    Args:
        folder: a run folder, its `compare/` or `cache/`, a service's store, or what `qarm export` or
            `qarm export-codes` wrote.

    Raises:
        InputError: it is none of these.
    """
    if (folder / code_store.FILE).is_file():
        return [Damage(text) for text in code_store.damaged_rows(folder)]
    if (folder / file_hashes.HASHES).is_file():
        return _of_comparison(folder)
    if (folder / MANIFEST).is_file():
        return _of_sealed(folder)
    features = [*_of_features(folder)]
    stages = sorted(_stages(folder)) if folder.is_dir() else []
    if stages or features or any(_parts(folder)):
        found = [damage for stage in stages for damage in _of_stage(stage)]
        return [*found, *features, *_of_comparison(folder / COMPARE)]
    raise InputError(
        f"{folder}: no finished stage, no {MANIFEST} and no {code_store.FILE}; give a run folder, a bundle, "
        "a store, a comparison or a cache of features"
    )


def repair(folder: Path, damaged: Iterable[Damage]) -> list[Path]:
    """What was removed, so that the next run makes it again: caches, comparisons, rankers, reports.

    Args:
        folder: that `find_damage` was given.

    Raises:
        ArtifactError: another process works in the run folder.
    """
    removed = [path for path in dict.fromkeys(one.remove for one in damaged) if path is not None]
    if not removed:
        return []
    runs = [run for run in (folder, folder.parent) if (run / ".lock").is_file()]
    with run_lock(runs[0]) if runs else nullcontext():
        for path in removed:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            if path.parent.is_dir():
                flush(path.parent)
    return removed


def _stages(run: Path) -> Iterator[Path]:
    for path in run.iterdir():
        if path.name.startswith(".") or not path.is_dir():
            continue
        versions = path / VERSIONS
        for folder in (path, *(versions.iterdir() if versions.is_dir() else ())):
            numbered = folder != path  # an earlier version has a manifest, or has lost it
            if numbered or (folder / MANIFEST).is_file() or (folder / TIMING).is_file():
                yield folder


def _of_stage(folder: Path) -> list[Damage]:
    if folder.name == COMPARE and not (folder / MANIFEST).is_file():
        return []  # a comparison has hashes of its own
    remove = folder if folder.name in AGAIN and not folder.is_symlink() else None
    try:
        manifest = read_manifest(folder)
    except ArtifactError as error:
        return [Damage(str(error), remove)]
    if manifest is None:
        return [Damage(f"{folder / MANIFEST} is missing", remove)]
    return [Damage(str(folder / name), remove) for name in changed_files(folder, manifest)]


def _of_sealed(folder: Path) -> list[Damage]:
    try:
        content = read_json(folder / MANIFEST)
        opened_seal(folder, kind=str(content.get("kind")) if isinstance(content, dict) else "")
    except ArtifactError as error:
        return [Damage(str(error))]
    return []


def _of_comparison(folder: Path) -> list[Damage]:
    return [Damage(str(folder / name), folder / name) for name in file_hashes.damaged_files(folder)]


def _of_features(folder: Path) -> Iterator[Damage]:
    for path in _parts(folder):
        try:
            FeatureCache.check(path)
        except ArtifactError as error:
            yield Damage(str(error), path)


def _parts(folder: Path) -> list[Path]:
    """Files of cached features of a run, or of a cache."""
    return sorted(path for pattern in PARTS for path in folder.glob(pattern)) if folder.is_dir() else []
