"""Sealed folders: complete or absent, known by the hashes of their files."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qarm.core.atomic_io import digest, flush, make_folder, read_json, sha256_file, write_json
from qarm.core.disk_errors import explained
from qarm.core.folder_swap import swap_folder
from qarm.core.locks import locked
from qarm.core.scratch import Scratch
from qarm.errors import ArtifactError, InputError, shown

__all__ = ["MANIFEST", "building", "opened_seal", "seal"]

MANIFEST = "manifest.json"


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Working folder to fill and to `seal`; it is renamed to `folder` when the block ends without an error.

    An existing folder stays: equal content is left as it is, other content is never replaced. What a
    killed process left of a working folder is removed first.

    Raises:
        InputError: `folder` exists and is no sealed folder, or one with other content.
        ArtifactError: another process is building it.
    """
    folder = folder.absolute()
    if not folder.name:
        raise InputError(f"{folder} is no name of a new folder; give one")
    make_folder(folder.parent)
    with explained(folder), _locked(folder), Scratch(folder.parent) as scratch:
        present, work = _version_of(folder), scratch.path
        yield work
        made = read_json(work / MANIFEST)["version"]
        if present is None:
            _flush_all(work)
            swap_folder(work, folder)
        elif present != made:
            raise InputError(
                f"{folder} holds version {present[:12]}, this is {made[:12]}; a sealed folder is never "
                "replaced: give a new one, or remove it first"
            )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock beside the folder, removed again: the neighbour itself is renamed while it is held."""
    path = folder.with_name(f".{folder.name}.lock")
    if path.exists() and not (path.is_file() and path.stat().st_size == 0):
        raise ArtifactError(f"{path} is no lock of qarm, and would be removed; move it away")
    with locked(path, busy=f"{folder} is being written by another qarm process; wait for it"):
        try:
            yield
        finally:
            with suppress(OSError):  # on Windows filelock removes the file, after it was closed
                path.unlink()


def _version_of(folder: Path) -> str | None:
    """Version of an existing sealed folder; None where there is no folder."""
    if not folder.exists():
        return None
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} exists and is nothing that qarm exported; give a new folder")
    manifest = read_json(folder / MANIFEST)
    return str(manifest.get("version")) if isinstance(manifest, dict) else ""


def _flush_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def seal(folder: Path, *, kind: str) -> str:
    """Version of a folder that is complete now: the SHA-256 over the names and hashes of its files.

    `manifest.json` is written: kind, version, and the SHA-256 of every other file. The same content has the
    same version.
    """
    files = {name: sha256_file(folder / name) for name in _names(folder)}
    version = digest(files)
    write_json(folder / MANIFEST, {"kind": kind, "version": version, "files": files})
    return version


def opened_seal(folder: Path, *, kind: str) -> str:
    """Version of a sealed folder, after every file was read and compared with the manifest.

    Raises:
        InputError: the folder holds no manifest of that kind.
        ArtifactError: files that are missing, changed or not of it, by name; a changed manifest.
    """
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}: no {MANIFEST}; give a folder that qarm export wrote")
    content = read_json(folder / MANIFEST)
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise InputError(f"{folder}: {MANIFEST} is not of kind {kind!r}; export the run with this version")
    files = _files_of(content, folder)
    present = _names(folder)
    faults = {
        "missing": [name for name in files if name not in present],
        "not part of it": [name for name in present if name not in files],
        "changed": [name for name in present if name in files and not _matches(folder / name, files[name])],
    }
    differences = "; ".join(f"{what}: {shown(names)}" for what, names in faults.items() if names)
    if differences:
        raise ArtifactError(f"{folder} is not as it was written ({differences}); restore it or export again")
    return str(content["version"])


def _matches(path: Path, expected: str) -> bool:
    return path.is_file() and sha256_file(path) == expected


def _files_of(content: dict[str, object], folder: Path) -> dict[str, str]:
    files = content.get("files")
    if not isinstance(files, dict) or content.get("version") != digest(files):
        raise ArtifactError(f"{folder / MANIFEST} was changed; restore it or export again")
    return files


def _names(folder: Path) -> list[str]:
    """All files but the manifest, links among them, by their path in the folder."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(name for path in paths if (name := path.relative_to(folder).as_posix()) != MANIFEST)
