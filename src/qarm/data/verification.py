"""Verification of a run, a bundle or exported codes: every file against the hash that was written with it."""

from collections.abc import Iterator
from pathlib import Path

from qarm.core.atomic_io import read_json
from qarm.core.run_folder import MANIFEST, VERSIONS, changed_files, read_manifest
from qarm.core.sealed_folder import opened_seal
from qarm.core.stage_timing import TIMING
from qarm.errors import ArtifactError, InputError

__all__ = ["damaged_files"]


def damaged_files(folder: Path) -> list[str]:
    """Files that are missing or not as they were written, by path, or a sentence where a manifest is damaged.

    Nothing is changed. Earlier versions of the codes count as what they are: folders of their own.

    Args:
        folder: a run folder, or what `qarm export` or `qarm export-codes` wrote.

    Raises:
        InputError: it is none of these.
    """
    if (folder / MANIFEST).is_file():
        return _of_sealed(folder)
    stages = sorted(_stages(folder)) if folder.is_dir() else []
    if not stages:
        raise InputError(f"{folder}: no finished stage and no {MANIFEST}; give a run folder or a bundle")
    return [problem for stage in stages for problem in _of_stage(stage)]


def _stages(run: Path) -> Iterator[Path]:
    for path in run.iterdir():
        if path.name.startswith(".") or not path.is_dir():
            continue
        versions = path / VERSIONS
        for folder in (path, *(versions.iterdir() if versions.is_dir() else ())):
            numbered = folder != path  # an earlier version has a manifest, or has lost it
            if numbered or (folder / MANIFEST).is_file() or (folder / TIMING).is_file():
                yield folder


def _of_stage(folder: Path) -> list[str]:
    if folder.name == "compare" and not (folder / MANIFEST).is_file():
        return []  # a comparison has no manifest
    try:
        manifest = read_manifest(folder)
    except ArtifactError as error:
        return [str(error)]
    if manifest is None:
        return [f"{folder / MANIFEST} is missing"]
    return [str(folder / name) for name in changed_files(folder, manifest)]


def _of_sealed(folder: Path) -> list[str]:
    try:
        content = read_json(folder / MANIFEST)
        opened_seal(folder, kind=str(content.get("kind")) if isinstance(content, dict) else "")
    except ArtifactError as error:
        return [str(error)]
    return []
