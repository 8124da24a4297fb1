"""Hashes of tables: of their files, or of rows that were read."""

import hashlib
import io
import os
from pathlib import Path

import polars as pl

from qarm.core.atomic_io import digest, sha256_file
from qarm.core.paths import as_path
from qarm.core.tables.location import address, located_parts, media_folder

__all__ = ["files_hash", "rows_hash"]


def files_hash(place: Path | str) -> str | None:
    """SHA-256 of a table's file, or over the names and hashes of its files; None for a remote table.

    Raises:
        InputError: nothing is there.
    """
    if address(place) is not None:
        return None
    path = as_path(place)
    if path.is_file():
        return sha256_file(path)
    files = [part.place for part in located_parts(path)]
    home = media_folder(path) or path
    return digest([[os.path.relpath(file, home), sha256_file(Path(file))] for file in files])


def rows_hash(frame: pl.DataFrame) -> str:
    """SHA-256 of the names, types and values of a frame, in their order.

    A store's etags and times are not read by polars, and the rows are, so that a remote table counts as
    changed where its rows are others.
    """
    stream = io.BytesIO()
    frame.rechunk().write_ipc(stream, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    return hashlib.sha256(stream.getbuffer()).hexdigest()
