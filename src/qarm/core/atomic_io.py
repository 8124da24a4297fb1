"""Atomic files: a scratch folder beside them, fsync, rename; JSON files, and the hashes of files."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from qarm.core.disk_errors import explained
from qarm.core.scratch import Scratch
from qarm.errors import ArtifactError
from qarm.schemas.base import Schema

__all__ = [
    "atomic",
    "digest",
    "flush",
    "json_text",
    "make_folder",
    "read_json",
    "read_model",
    "sha256_file",
    "write_json",
    "write_text",
]

Model = TypeVar("Model", bound=BaseModel)
WINDOWS = os.name == "nt"


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


def make_folder(path: Path) -> None:
    """Folder and those above it, each flushed to the disk with its name; an existing one stays.

    Raises:
        ArtifactError: the disk is full or read-only, or a file is in the way.
    """
    with explained(path):
        str(path).encode()  # a name that is not UTF-8, which polars and JSON cannot hold, is refused here
        _make_folder(path)


def _make_folder(path: Path) -> None:
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    flush(path.parent)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Name in a scratch folder to write to; on success the file is flushed to disk and renamed to `path`.

    Whatever a library writes beside it goes with the scratch folder, after a kill too. A link at `path` is
    replaced; what it leads to stays.

    Raises:
        ArtifactError: the disk is full, read-only or broken, or a folder is in the way; `path` is as it was.
    """
    with explained(path):
        str(path).encode()
        _make_folder(path.parent)
        with Scratch(path.parent) as scratch:
            temporary = scratch.path / path.name
            yield temporary
            flush(temporary)
            temporary.replace(path)
            flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Atomic write of a UTF-8 text file."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(content: object) -> str:
    """JSON of plain content, or of a schema's object, as it is written."""
    if isinstance(content, Schema):
        content = content.content()
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def write_json(path: Path, content: object) -> None:
    """Write JSON, or the content of a schema's object."""
    write_text(path, json_text(content))


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
        raise ArtifactError(f"{path} is not JSON ({error}); restore it from a copy") from None


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
        raise ArtifactError(f"{path}: {place}: {first['msg']}; restore it from a copy") from None


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(content: object) -> str:
    """SHA-256 of the canonical JSON of `content`."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
