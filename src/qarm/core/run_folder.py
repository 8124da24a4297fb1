"""Run folder: its lock, and stage folders that are complete or absent, with a manifest of hashes."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

from pydantic import JsonValue

from qarm.core.atomic_io import digest, read_json, sha256_file, sweep_temporaries, write_json
from qarm.core.disk_errors import explained
from qarm.core.folder_swap import swap_folder
from qarm.core.formats import upgraded
from qarm.core.locks import locked
from qarm.errors import ArtifactError, shown
from qarm.schemas.base import FORMAT, Figure, Manifest, Settings

__all__ = [
    "PARTIAL",
    "Purpose",
    "clear_partial",
    "finish_swap",
    "is_fresh",
    "read_manifest",
    "run_lock",
    "stage_folder",
    "verify",
    "working_folder",
]

MANIFEST, TIMING, PARTIAL = "manifest.json", "timing.json", ".partial"
SEAL = "sha256"  # of the rest of the manifest
PURPOSE = {"inputs", "config", "version"}  # what a stage was made from


class Purpose(TypedDict):
    """What a stage is made from: the hash of each input, and the settings that it reads."""

    inputs: dict[str, str]
    config: Settings


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Lock of the run folder for this process; a second process is refused, it does not wait.

    Raises:
        ArtifactError: another process holds the lock, the folder is not writable, or its lock is a link.
    """
    with ExitStack() as stack:
        with explained(run):
            run.mkdir(parents=True, exist_ok=True)
            busy = f"{run} is in use by another qarm process; wait for it"
            stack.enter_context(locked(run / ".lock", busy=busy))
        sweep_temporaries(run)
        yield


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished stage in today's format, or None when the stage has not finished.

    Raises:
        ArtifactError: it was changed by hand, or a later version of qarm wrote it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content = read_json(path)
    rest = dict(content) if isinstance(content, dict) else {}
    if rest.pop(SEAL, None) != digest(rest):
        raise _changed(folder, [MANIFEST])
    try:
        return Manifest.model_validate(upgraded(content))
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None


def _changed(folder: Path, names: list[str]) -> ArtifactError:
    return ArtifactError(
        f"{folder}: {shown(names)} changed since the stage wrote it; "
        f"restore it, or delete {folder} to make it again"
    )


def _changed_files(folder: Path, manifest: Manifest, *, below: str = "") -> list[str]:
    return [
        name
        for name, expected in manifest.outputs.items()
        if name.startswith(below)
        and (not (folder / name).is_file() or sha256_file(folder / name) != expected)
    ]


def verify(path: Path) -> None:
    """Compare a folder's files with the manifest, where the folder is a stage's or lies in one.

    Raises:
        ArtifactError: a file was changed or removed by hand.
    """
    for folder in (path, path.parent, path.parent.parent):
        manifest = read_manifest(folder) if _is_stage(folder) else None
        if manifest is not None:
            below = "" if folder == path else f"{path.relative_to(folder).as_posix()}/"
            changed = _changed_files(folder, manifest, below=below)
            if changed:
                raise _changed(folder, changed)
            return


def _is_stage(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and (folder / TIMING).is_file()


def _purpose(inputs: Mapping[str, str], config: Mapping[str, JsonValue]) -> Settings:
    """The part of a manifest that decides whether a stage is fresh."""
    return {"inputs": dict(inputs), "config": dict(config), "version": version("qarm")}


def is_fresh(folder: Path, *, inputs: Mapping[str, str], config: Mapping[str, JsonValue]) -> bool:
    """True when the stage ran on these inputs and settings and its files are as it left them.

    Raises:
        ArtifactError: a file of a finished stage was changed or removed by hand.
    """
    finish_swap(folder)
    manifest = read_manifest(folder)
    if manifest is None or manifest.model_dump(include=PURPOSE) != _purpose(inputs, config):
        return False
    changed = _changed_files(folder, manifest)
    if changed:
        raise _changed(folder, changed)
    return True


def working_folder(
    run: Path, stage: str, *, inputs: Mapping[str, str], config: Mapping[str, JsonValue]
) -> Path:
    """Where a stage works until it is finished."""
    return run / PARTIAL / f"{stage}-{digest(_purpose(inputs, config))[:16]}"


@contextmanager
def stage_folder(
    run: Path, stage: str, *, inputs: Mapping[str, str], config: Mapping[str, JsonValue]
) -> Iterator[tuple[Path, dict[str, Figure]]]:
    """A working folder that becomes `run/stage` only when the block ends without an error.

    Yields the folder and a dict for row counts. The folder's name holds the fingerprint of inputs
    and config, so that a rerun after a kill finds what the stage had finished, and only then.
    """
    purpose, work = _purpose(inputs, config), working_folder(run, stage, inputs=inputs, config=config)
    clear_partial(run / stage, keep=work)
    with explained(work):
        work.mkdir(parents=True, exist_ok=True)
    sweep_temporaries(work, all_of_them=True)
    rows: dict[str, Figure] = {}
    started, clock = time.time(), time.perf_counter()
    yield work, rows
    write_json(work / TIMING, {"started": started, "seconds": time.perf_counter() - clock})
    outputs = {
        path.relative_to(work).as_posix(): sha256_file(path)
        for path in sorted(work.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, TIMING)
    }
    content = {"format": FORMAT, "stage": stage, "rows": rows, "outputs": outputs, **purpose}
    sealed = json.loads(json.dumps(content))
    write_json(work / MANIFEST, Manifest.model_validate(sealed | {SEAL: digest(sealed)}))
    finish_swap(run / stage)


def clear_partial(folder: Path, *, keep: Path | None = None) -> None:
    """Remove the working folders that killed processes left of a stage; `keep` stays."""
    partial = folder.parent / PARTIAL
    for stale in (*partial.glob(f"{folder.name}-*"), partial / f"old.{folder.name}"):
        if stale != keep:
            shutil.rmtree(stale, ignore_errors=True)
    if partial.is_dir() and not any(partial.iterdir()):
        partial.rmdir()


def finish_swap(folder: Path) -> None:
    """Move a finished working folder into place; also completes a swap that a kill cut short."""
    partial = folder.parent / PARTIAL
    for work in partial.glob(f"{folder.name}-*"):
        if (work / MANIFEST).is_file():
            swap_folder(work, folder, aside=partial / f"old.{folder.name}")
            clear_partial(folder)
