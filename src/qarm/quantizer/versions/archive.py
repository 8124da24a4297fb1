"""Archive of code versions: the current one in `codes/`, earlier ones in `codes/versions/<n>/`."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from qarm.core.atomic_io import flush, write_json
from qarm.core.folder_swap import flush_tree
from qarm.core.run_folder import MANIFEST, PARTIAL, VERSIONS, finish_swap, verify
from qarm.core.stage_timing import TIMING, later_than, read_timing, version_start, write_timing
from qarm.core.tables.parquet import parquet_schema, read_parquet, write_parquet
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError, shown
from qarm.quantizer.base import Quantizer
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.versions.drift import fit_profile

__all__ = [
    "CODES",
    "VERSIONS",
    "appended",
    "appended_ids",
    "archive",
    "current_version",
    "fitted",
    "joined",
    "link_tree",
    "next_version",
    "requests",
    "rollback",
    "valid_since",
    "versions",
    "write_appended",
    "write_codes",
]

CODES = "codes.parquet"
APPENDED = "appended.parquet"  # vectors of items that were coded after the run, and who asked for it
FITTED = "fitted.parquet"  # items that the codebooks were fitted on


def current_version(folder: Path) -> int:
    """Version of the codes in `folder/codes.parquet`.

    Raises:
        ArtifactError: there are none, or they cannot be read.
    """
    path = folder / CODES
    try:
        version = read_parquet(path, columns=["version"])["version"]
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(
            f"{path}: not readable ({reason}); restore it from a copy, or go back to an earlier version"
        ) from error
    if version.n_unique() != 1:
        raise ArtifactError(f"{path}: rows are of versions {shown(version.unique().sort())}, need one")
    return int(version[0])


def versions(folder: Path) -> list[int]:
    """All versions that `folder` holds, the current one among them, in order."""
    earlier = folder / VERSIONS
    names = [path.name for path in earlier.iterdir()] if earlier.is_dir() else []
    return sorted({current_version(folder), *(int(name) for name in names if name.isdigit())})


def next_version(folder: Path) -> int:
    """The number after the highest ever given; after a rollback too, so that no number means two things."""
    return versions(folder)[-1] + 1


def archive(folder: Path, work: Path) -> int:
    """Put all versions that `folder` holds into `work/versions`, for a new one to be written beside them.

    Nothing in `folder` changes; `work` then replaces it in one step, as `stage_folder` does.

    Returns:
        The number of the new version.
    """
    number = next_version(folder)
    if (folder / VERSIONS).is_dir():
        link_tree(folder / VERSIONS, work / VERSIONS)
    _link_current(folder, work / VERSIONS / str(current_version(folder)))
    return number


def write_codes(
    folder: Path, codes: Codes, books: Quantizer, nearest: NearestCodes, *, known: Embeddings
) -> None:
    """What a version consists of; known: vectors of the items that the codebooks were fitted on."""
    codes.write(folder / CODES)
    write_parquet(folder / FITTED, pl.DataFrame({"item_id": known.item_ids}))
    write_parquet(folder / "pool.parquet", nearest.pool_frame())
    books.save_pretrained(folder / "quantizer")
    nearest.save_pretrained(folder / "nearest")
    fitted = Codes(known.item_ids, books.transform(known))
    write_json(folder / "profile.json", fit_profile(known, fitted, books))


def appended(folder: Path) -> Embeddings:
    """Vectors of the items that were appended to the codes in `folder`; none where nothing was."""
    path = folder / APPENDED
    return Embeddings.read(path) if path.is_file() else Embeddings([], np.empty((0, 0), dtype=np.float32))


def appended_ids(folder: Path) -> list[str]:
    """Items that were appended to the codes in `folder`."""
    path = folder / APPENDED
    return read_parquet(path, columns=["item_id"])["item_id"].to_list() if path.is_file() else []


def requests(folder: Path) -> dict[str, str]:
    """Ids of the requests that appended items, by item; earlier versions of qarm noted none."""
    path = folder / APPENDED
    if not path.is_file() or "request" not in parquet_schema(path):
        return {}
    return dict(read_parquet(path, columns=["item_id", "request"]).iter_rows())


def write_appended(folder: Path, vectors: Embeddings, requested: Mapping[str, str]) -> None:
    """Vectors of all appended items, each with the id of its request where that is known."""
    names = [requested.get(item) for item in vectors.item_ids]
    frame = vectors.frame().with_columns(pl.Series("request", names, dtype=pl.String))
    write_parquet(folder / APPENDED, frame)


def fitted(folder: Path) -> list[str] | None:
    """Items that the codebooks in `folder` were fitted on; None where an earlier qarm did not note them."""
    path = folder / FITTED
    return read_parquet(path)["item_id"].to_list() if path.is_file() else None


def valid_since(folder: Path, item_ids: list[str]) -> list[float]:
    """Unix time since when each item has the code that it has in `folder`."""
    timing = read_timing(folder)
    start, later, asked = version_start(timing), timing.appended or {}, requests(folder)
    return [later.get(asked.get(item, ""), start) for item in item_ids]


def joined(one: Embeddings, other: Embeddings) -> Embeddings:
    """Both, without items of the second that the first has too."""
    if not len(one) or not len(other):
        return one if len(one) else other
    seen = set(one.item_ids)
    ids = [item for item in other.item_ids if item not in seen]
    return Embeddings([*one.item_ids, *ids], np.concatenate([one.vectors, other.rows(ids)]))


def rollback(folder: Path, version: int) -> None:
    """Make an earlier version the current one; the one that it replaces goes to `versions/`.

    A rollback that is cut short leaves the folder as it was, or is completed by the next run. The version is
    valid anew from now on.

    Raises:
        InputError: there is no such version.
    """
    current, known = current_version(folder), versions(folder)
    if version == current:
        return
    if version not in known:
        raise InputError(f"got version {version}, need one of {shown(known)} in {folder / VERSIONS}")
    source = folder / VERSIONS / str(version)
    if not (source / MANIFEST).is_file():
        raise ArtifactError(f"{source} has no {MANIFEST}, so that its files cannot be checked; restore it")
    verify(source)
    work = folder.parent / PARTIAL / f"{folder.name}-rollback"
    shutil.rmtree(work, ignore_errors=True)
    link_tree(folder / VERSIONS, work / VERSIONS)
    shutil.rmtree(work / VERSIONS / str(version))
    _link_current(folder, work / VERSIONS / str(current))
    for path in source.iterdir():
        if path.name not in (MANIFEST, TIMING):
            link_tree(path, work / path.name)
    timing = read_timing(source)
    times = {"valid_from": later_than(folder, time.time()), "appended": None}
    write_timing(work, timing.model_copy(update=times))
    # the manifest, which says that the folder is finished, comes last
    flush_tree(work)
    link_tree(source / MANIFEST, work / MANIFEST)
    flush(work)
    finish_swap(folder)


def _link_current(folder: Path, target: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.name != VERSIONS:
            link_tree(path, target / path.name)


def link_tree(source: Path, target: Path) -> None:
    """Hard links of files, which are only ever replaced, never written into; versions share what they can."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(source.iterdir()):
            link_tree(path, target / path.name)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
