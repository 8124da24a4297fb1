"""Atomic files: a temporary name, fsync, rename; JSON files, and the hashes of files."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from qarm.core.disk_errors import explained
from qarm.errors import ArtifactError
from qarm.schemas.base import Schema

__all__ = [
    "atomic",
    "digest",
    "flush",
    "read_json",
    "read_model",
    "sha256_file",
    "sweep_temporaries",
    "temporary_name",
    "write_json",
    "write_text",
]

Model = TypeVar("Model", bound=BaseModel)
TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")
WINDOWS = os.name == "nt"
ABANDONED = 24 * 3600  # seconds without a change after which, on Windows, a file's writer counts as gone


def flush(path: Path) -> None:
    """Flush of a file's content, or of a folder's list of names, to the disk.

    Windows opens no folder and keeps its list of names itself; there nothing is done for a folder.
    """
    if WINDOWS and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)  # Windows flushes what may be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Temporary file beside `path`; on success it is flushed to disk and renamed to `path`.

    Raises:
        ArtifactError: the disk is full, read-only or broken; `path` is as it was.
    """
    with explained(path), _replaced(path) as temporary:
        yield temporary


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Atomic write of a UTF-8 text file."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write JSON, or the content of a schema's object."""
    if isinstance(content, Schema):
        content = content.content()
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        ArtifactError: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; run the stage that writes it again") from None
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error}); delete its folder and rerun") from None


def read_model(path: Path, schema: type[Model]) -> Model:
    """Object of a JSON file by its schema.

    Raises:
        ArtifactError: it is missing, no JSON, or has other fields than its schema.
    """
    content = read_json(path)
    try:
        return schema.model_validate(content, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{path}: {place}: {first['msg']}; delete its folder and rerun") from None


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(content: object) -> str:
    """SHA-256 of the canonical JSON of `content`."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


# ---- temporary names ----------------------------------------------------------------------------


def temporary_name(path: Path) -> Path:
    """Hidden file name beside `path` that holds the number of the process that writes it."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def sweep_temporaries(folder: Path, *, all_of_them: bool = False) -> None:
    """Removal of unfinished files under `folder` whose writer is gone; the caller itself writes none there.

    Args:
        all_of_them: also the files of living writers.
    """
    for path in folder.rglob(".*.tmp"):
        match = TEMPORARY.fullmatch(path.name)
        if match and (all_of_them or not _is_written(path, int(match[1]))):
            path.unlink(missing_ok=True)


def _is_written(path: Path, process: int) -> bool:
    if process == os.getpid():  # in a container, the number of the one that was killed
        return False
    if WINDOWS:  # `os.kill` ends the process there, whatever the signal
        return time.time() - path.stat().st_mtime < ABANDONED
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
