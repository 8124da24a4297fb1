"""Location of a table: a file, a folder of part files, a pattern, or an address such as s3://bucket/folder."""

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

import polars as pl

from qarm.core.paths import as_path
from qarm.errors import InputError, shown

__all__ = ["Part", "address", "escaped", "is_table", "located_parts", "media_folder"]

Kind = Literal["parquet", "csv", "tsv", "jsonl", "arrow"]
KINDS: dict[str, Kind] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
}
PACKED = (".gz", ".zst")  # of text files
SUFFIXES = f"{', '.join(KINDS)} (text files also with .gz or .zst)"
REMOTE = re.compile(r"(s3|gs|az|abfss?|hf):/{1,2}(?!/)")
WILD = re.compile(r"[*?]")  # brackets are never a pattern: shops have folders such as `run[1]`
PARTITION = re.compile(r"([^=/]+)=([^/]*)")
MAX_REASON = 300  # characters of a message from a store
MISSING = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Part:
    """One file of a table: its path or address, its kind, and the values of its hive partitions by key."""

    place: str
    kind: Kind
    keys: dict[str, str | None]

    @property
    def remote(self) -> bool:
        """Whether the file is on another machine."""
        return address(self.place) is not None


def address(place: Path | str) -> str | None:
    """Address of a remote place, None for a path; a `Path` keeps only one of its two slashes."""
    text = Path(place).as_posix() if isinstance(place, Path) else place
    match = REMOTE.match(text)
    return None if match is None else f"{match[1]}://{text[match.end() :]}"


def media_folder(place: Path | str) -> Path | None:
    """Folder of a table's media paths: the folder of its file, or of its parts; None for a remote table."""
    if address(place) is not None:
        return None
    path = as_path(place)
    return path if os.path.isdir(path) else path.parent  # noqa: PTH112 - never raises


def located_parts(place: Path | str) -> list[Part]:
    """Files of a table, in the order of their names.

    Args:
        place: a file; a folder, whose files of a table's kind count, at any depth, but for names that begin
            with `_` or `.`; a pattern with `*` or `?`; or an address of any of these.

    Raises:
        InputError: nothing is there, or files of an unknown kind or of several kinds.
    """
    remote = address(place)
    parts = _local(as_path(place)) if remote is None else _remote(remote)
    kinds = sorted({part.kind for part in parts})
    if len(kinds) > 1:
        examples = [next(part.place for part in parts if part.kind == kind) for kind in kinds]
        raise InputError(
            f"{place}: holds tables of several kinds: {shown(examples)}; give one of them, or a pattern such "
            f"as {place}/*.{kinds[0]}"
        )
    return parts


def escaped(place: str) -> str:
    """A path, or an address but for its stars, as a pattern of polars that stands for itself."""
    return glob.escape(place) if address(place) is None else place.replace("[", r"\[")


def is_table(place: Path | str) -> bool:
    """Whether a table is there; a remote one is not looked for."""
    if address(place) is not None:
        return True
    try:
        return bool(located_parts(place))
    except InputError:
        return False


def _kind(name: str) -> Kind | None:
    path = PurePosixPath(name.lower())
    kind = KINDS.get(path.suffix)
    if kind is None and path.suffix in PACKED:
        kind = KINDS.get(path.with_suffix("").suffix)
        return kind if kind in ("csv", "tsv", "jsonl") else None
    return kind


def _part(place: str, below: str) -> Part | None:
    """A file of a table, None where it is of no such kind; `below`: its path in the table's folder."""
    kind = _kind(place)
    keys = {
        match[1]: None if match[2] == MISSING else unquote(match[2])
        for step in PurePosixPath(below).parts[:-1]
        if (match := PARTITION.fullmatch(step))
    }
    return None if kind is None else Part(place, kind, keys)


def _local(path: Path) -> list[Part]:
    if os.path.isfile(path):  # noqa: PTH113 - never raises, whatever the name
        part = _part(str(path), path.name)
        if part is None:
            raise InputError(f"{path}: got suffix {path.suffix!r}, need one of {SUFFIXES}")
        return [part]
    if os.path.isdir(path):  # noqa: PTH112
        return _in_folder(path)
    if WILD.search(str(path)):
        return _matching(path)
    if os.path.exists(path):  # noqa: PTH110
        raise InputError(f"{path}: neither a file nor a folder; give a table")
    raise InputError(f"{path}: no such file; check data.root and the table's path")


def _in_folder(folder: Path) -> list[Part]:
    names = []
    for home, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] not in "_."]
        names += [Path(home, name).relative_to(folder).as_posix() for name in files if name[0] not in "_."]
    parts = [part for name in sorted(names) if (part := _part(str(folder / name), name))]
    if not parts:
        raise InputError(
            f"{folder}: a folder without a table ({len(names):,} other files); it needs files with one of "
            f"{SUFFIXES}"
        )
    return parts


def _matching(pattern: Path) -> list[Part]:
    """Files of a pattern, in which brackets stand for themselves."""
    steps = pattern.parts
    first = next(number for number, step in enumerate(steps) if WILD.search(step))
    home = Path(*steps[:first])
    wanted = os.path.join(*(step.replace("[", "[[]") for step in steps[first:]))  # noqa: PTH118
    names = sorted(glob.glob(wanted, root_dir=home, recursive=True))  # noqa: PTH207 - `**` also for files
    files = [name for name in names if (home / name).is_file()]
    parts = [part for name in files if (part := _part(str(home / name), Path(name).as_posix()))]
    if not parts:
        raise InputError(
            f"{pattern}: no table matches ({len(files):,} files do); it needs files with one of {SUFFIXES}"
        )
    return parts


def _remote(place: str) -> list[Part]:
    """Files of an address, as polars lists them; credentials come from the environment."""
    if match := WILD.search(place):
        home, names = place[: place.rindex("/", 0, match.start())], _listed(place)
    else:
        home = place.rstrip("/")
        names = _listed(f"{home}/**/*")
        whole = _part(place, PurePosixPath(place).name)
        if not names and whole is not None:
            return [whole]
    below = {name: name.removeprefix(home).lstrip("/") for name in names}
    seen = [name for name in names if not any(step[0] in "_." for step in below[name].split("/") if step)]
    parts = [part for name in seen if (part := _part(name, below[name]))]
    if not parts:
        raise InputError(
            f"{place}: no table there ({len(names):,} other files); it needs files with one of {SUFFIXES}"
        )
    return parts


def _listed(pattern: str) -> list[str]:
    """Addresses that a pattern matches; brackets stand for themselves."""
    found = pl.scan_lines(escaped(pattern), include_file_paths="place")
    try:
        return sorted(found.select(pl.col("place").unique()).collect()["place"])
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise InputError(
            f"{pattern}: not readable ({reason}); check the address and the credentials"
        ) from error
