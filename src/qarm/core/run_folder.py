"""Run folder: its lock, and stage folders that are complete or absent, with a manifest of hashes."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

from pydantic import JsonValue

from qarm.core.atomic_io import digest, make_folder, read_json, sha256_file, write_json
from qarm.core.disk_errors import explained
from qarm.core.folder_swap import flush_tree, swap_folder
from qarm.core.formats import upgraded
from qarm.core.locks import folder_lock, locked
from qarm.core.scratch import remove, sweep_scratch
from qarm.core.stage_timing import TIMING, last_change, later_than, read_timing, version_start, write_timing
from qarm.errors import ArtifactError, shown
from qarm.schemas.base import FORMAT, Figure, Manifest, Settings, Timing

__all__ = [
    "MANIFEST",
    "PARTIAL",
    "VERSIONS",
    "Purpose",
    "changed_files",
    "clear_partial",
    "finish_swap",
    "is_fresh",
    "read_manifest",
    "run_lock",
    "run_of",
    "seal_stage",
    "stage_folder",
    "verify",
    "working_folder",
]

MANIFEST, PARTIAL = "manifest.json", ".partial"
VERSIONS = "versions"  # in a stage's folder: earlier versions, each in a folder of its own
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
            make_folder(run)
            busy = f"{run} is in use by another qarm process; wait for it"
            stack.enter_context(locked(run / ".lock", busy=busy))
        _require_folder(run / PARTIAL)
        sweep_scratch()
        sweep_scratch(run, below=True)
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


def run_of(folder: Path) -> Path:
    """The run folder of a stage's folder, or of an earlier version of its codes."""
    return folder.parents[2] if folder.parent.name == VERSIONS else folder.parent


def _changed(folder: Path, names: list[str]) -> ArtifactError:
    return ArtifactError(
        f"{folder}: {shown(names)} changed since the stage wrote it; restore it from a copy; "
        f"qarm verify {run_of(folder)} lists all that is damaged"
    )


def changed_files(folder: Path, manifest: Manifest, *, below: str = "") -> list[str]:
    """Names of a finished stage's files that are missing or not as the stage left them.

    Earlier versions are left out: each has a manifest of its own, and is checked when it is read.

    Args:
        below: beginning of the names that count; the times of the stage count among all of them.
    """
    changed = [
        name
        for name, expected in manifest.outputs.items()
        if name.startswith(below)
        and not name.startswith(f"{VERSIONS}/")
        and (not (folder / name).is_file() or sha256_file(folder / name) != expected)
    ]
    return changed if below or _has_times(folder) else [*changed, TIMING]


def _has_times(folder: Path) -> bool:
    try:
        read_timing(folder)
    except ArtifactError:
        return False
    return True


def verify(path: Path) -> None:
    """Compare a folder's files with the manifest, where the folder is a stage's or lies in one.

    Raises:
        ArtifactError: a file was changed or removed by hand.
    """
    for folder in (path, path.parent, path.parent.parent):
        manifest = read_manifest(folder) if _is_stage(folder) else None
        if manifest is not None:
            below = "" if folder == path else f"{path.relative_to(folder).as_posix()}/"
            changed = changed_files(folder, manifest, below=below)
            if changed:
                raise _changed(folder, changed)
            return


def _is_stage(folder: Path) -> bool:
    """Whether the manifest is a stage's; the times or the manifest may be damaged, not both."""
    if not (folder / MANIFEST).is_file():
        return False
    if (folder / TIMING).is_file():
        return True
    try:
        content = read_json(folder / MANIFEST)
    except ArtifactError:
        return False
    return isinstance(content, dict) and {"stage", "outputs"} <= content.keys()


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
    changed = changed_files(folder, manifest)
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
    work = working_folder(run, stage, inputs=inputs, config=config)
    clear_partial(run / stage, keep=work)
    _require_folder(work)
    make_folder(work)
    for path in sorted(work.rglob("*")):
        if path.name.startswith(".") or path.is_symlink() or not (path.is_file() or path.is_dir()):
            remove(path)  # unfinished, also what libraries leave; or links and pipes, which no stage writes
    rows: dict[str, Figure] = {}
    started, clock = time.time(), time.perf_counter()
    yield work, rows
    timing = Timing(started=started, seconds=time.perf_counter() - clock)
    ended, earliest = version_start(timing), later_than(run / stage, version_start(timing))
    if earliest > ended:
        timing = timing.model_copy(update={"valid_from": earliest})
    seal_stage(work, stage, rows=rows, timing=timing, inputs=inputs, config=config)
    finish_swap(run / stage)


def seal_stage(
    work: Path,
    stage: str,
    *,
    rows: Mapping[str, Figure],
    timing: Timing,
    inputs: Mapping[str, str],
    config: Mapping[str, JsonValue],
) -> None:
    """Times and manifest of a complete working folder; all of it is on the disk before the manifest is."""
    write_timing(work, timing)
    outputs = {
        path.relative_to(work).as_posix(): sha256_file(path)
        for path in sorted(work.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, TIMING) and work / VERSIONS not in path.parents
    }
    flush_tree(work)
    content = {"format": FORMAT, "stage": stage, "rows": rows, "outputs": outputs, **_purpose(inputs, config)}
    sealed = json.loads(json.dumps(content))
    write_json(work / MANIFEST, Manifest.model_validate(sealed | {SEAL: digest(sealed)}))


def _require_folder(folder: Path) -> None:
    """Refusal of a link or a file at the name of a working folder: it would be written through, or removed.

    Raises:
        ArtifactError: there is one.
    """
    if folder.is_symlink():
        raise ArtifactError(f"{folder} is a symbolic link, need a folder; remove the link")
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder} is a file, need a folder; move it away")


def clear_partial(folder: Path, *, keep: Path | None = None) -> None:
    """Remove the working folders that killed processes left of a stage; `keep` stays."""
    partial = folder.parent / PARTIAL
    _require_folder(partial)
    for stale in (*partial.glob(f"{folder.name}-*"), partial / f"old.{folder.name}"):
        if stale != keep:
            remove(stale)
    if partial.is_dir() and not any(partial.iterdir()):
        partial.rmdir()


def finish_swap(folder: Path) -> None:
    """Move a finished working folder into place; also completes a swap that a kill cut short.

    After a kill between the exchange of the two and the removal of what was replaced, the latter lies in the
    working folder; it is known by its time, which is before that of its successor.
    """
    partial = folder.parent / PARTIAL
    _require_folder(partial)
    for work in partial.glob(f"{folder.name}-*"):
        if work.is_symlink() or not (work / MANIFEST).is_file():
            continue
        if not folder.exists() or last_change(work) > last_change(folder):
            with folder_lock(folder.parent, shared=False):
                swap_folder(work, folder, aside=partial / f"old.{folder.name}")
        clear_partial(folder)
