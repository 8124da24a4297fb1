"""Export of codes for feature stores and other rankers: Parquet, JSON Lines or Redis commands."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import polars as pl

from qarm.core.atomic_io import atomic, write_json
from qarm.core.paths import as_path
from qarm.core.run_folder import is_fresh, read_manifest, run_lock, verify
from qarm.core.sealed_folder import building, seal
from qarm.core.stage_timing import last_change
from qarm.core.tables.parquet import read_parquet, write_json_lines, write_parquet
from qarm.data.codes import Codes
from qarm.errors import ArtifactError, InputError, shown
from qarm.quantizer.factory import load_quantizer
from qarm.quantizer.versions.archive import (
    VERSIONS,
    appended,
    current_version,
    valid_since,
    versions,
)
from qarm.schemas.bundle import CodeLayout, ExportedCodes, Level
from qarm.serving.export.code_tables import changed_codes, changed_items, code_items, item_codes, offsets
from qarm.serving.export.redis import commands

__all__ = ["Format", "export_codes"]

KIND = "qarm-codes-1"
Format = Literal["parquet", "jsonl", "redis"]
Writer = Callable[[Path, pl.DataFrame, pl.DataFrame, int], None]


def export_codes(
    run: Path, out: Path, *, to: Format, since: int | None = None, valid_from: str | None = None
) -> ExportedCodes:
    """Write the current codes of a run, item to codes and code to items, into a new folder.

    `item_codes` and `code_items` as .parquet or .jsonl, or `commands.resp`; `layout.json`; `manifest.json`
    with the hash of each. docs/export.md has the columns.

    Args:
        run: a run folder whose `quantize` stage has finished.
        out: the folder to make; the same content may be there already, other content is not replaced.
        to: the format.
        since: only what is not as it was when this version was made; of the current version, that is what was
            appended to it.
        valid_from: ISO 8601, of all rows; None: since when each item has its code, by the run's times.

    Returns:
        version, since, items and codes written, removed, and the folder's own version as `seal`.

    Raises:
        InputError: an unknown format or version, a time that is none, or `out` is taken.
        ArtifactError: the run has no finished codes, is damaged or in use.
    """
    if to not in get_args(Format):
        raise InputError(f"got {to!r}, need one of {', '.join(get_args(Format))}")
    run, out = as_path(run), as_path(out)
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; give a finished run")
    with run_lock(run), building(out) as work:
        folder = _checked(run)
        moment = _parsed(valid_from) if valid_from else None
        items, widths = _table(folder, moment)
        codes = code_items(items)
        version = current_version(folder)
        if since is not None:
            before, same_pool = _before(run, since, moment)
            codes = changed_codes(code_items(before), codes)
            items = changed_items(before, items, same_pool=same_pool)
        WRITERS[to](work, items, codes, version)
        latest = moment or datetime.fromtimestamp(last_change(folder), UTC)
        write_json(work / "layout.json", _layout(folder, widths, version, since, latest))
        content = seal(work, kind=KIND)
    return ExportedCodes(
        version=version,
        since=since,
        items=items.height,
        codes=codes.height,
        removed=int(items["removed"].sum()),
        content=content,
    )


def _checked(run: Path) -> Path:
    """The folder of the codes, whose files are as they were left."""
    manifest = read_manifest(run / "codes")
    if manifest is None:
        raise ArtifactError(f"{run} has no finished codes; run: qarm quantize CONFIG --out {run}")
    is_fresh(run / "codes", inputs=manifest.inputs, config=manifest.config)
    return run / "codes"


def _parsed(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"got valid_from={text!r}, need a time such as 2026-01-31T12:00:00+00:00") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _table(folder: Path, moment: datetime | None) -> tuple[pl.DataFrame, list[int]]:
    """The codes of a version as a table, and the widths of its levels."""
    widths = list(load_quantizer(folder / "quantizer").widths_)
    codes = Codes.read(folder / "codes.parquet")
    if moment is not None:
        return item_codes(codes, widths, valid_from=[moment] * len(codes)), widths
    times = [datetime.fromtimestamp(second, UTC) for second in valid_since(folder, codes.item_ids)]
    return item_codes(codes, widths, valid_from=times), widths


def _before(run: Path, since: int, moment: datetime | None) -> tuple[pl.DataFrame, bool]:
    """The table of a version as it was made, and whether pool ids mean now what they meant then.

    Items that were appended to it later are left out: an export of before the append does not have them.
    """
    folder = run / "codes"
    known = versions(folder)
    if since not in known:
        raise InputError(f"got since={since}, need one of the versions {shown(known)}")
    old = folder if since == current_version(folder) else folder / VERSIONS / str(since)
    verify(old)
    pools = [read_parquet(path / "pool.parquet") for path in (old, folder)]
    there = set(pools[0]["item_id"])  # a refit puts what was appended before it into the pool
    later = [item for item in appended(old).item_ids if item not in there]
    table = _table(old, moment)[0].filter(~pl.col("item_id").is_in(later))
    return table, pools[0].equals(pools[1].head(pools[0].height))


def _layout(folder: Path, widths: list[int], version: int, since: int | None, moment: datetime) -> CodeLayout:
    """What a reader must know to size its tables."""
    first = offsets(widths).tolist()
    levels = [
        Level(level=level, width=width, offset=offset)
        for level, (width, offset) in enumerate(zip(widths, first, strict=True), start=1)
    ]
    pool = read_parquet(folder / "pool.parquet").height
    return CodeLayout(
        version=version,
        since=since,
        valid_from=moment.isoformat(),
        levels=levels,
        ids=sum(widths),
        pool=pool,
    )


# ---- formats ------------------------------------------------------------------------------------


def _parquet(folder: Path, items: pl.DataFrame, codes: pl.DataFrame, version: int) -> None:
    write_parquet(folder / "item_codes.parquet", items)
    write_parquet(folder / "code_items.parquet", codes)


def _json_lines(folder: Path, items: pl.DataFrame, codes: pl.DataFrame, version: int) -> None:
    for name, frame in (("item_codes", items), ("code_items", codes)):
        lists = [pl.col(n).arr.to_list() for n, kind in frame.schema.items() if isinstance(kind, pl.Array)]
        moment = pl.col("valid_from").dt.to_string("iso:strict")
        write_json_lines(folder / f"{name}.jsonl", frame.with_columns(moment, *lists))


def _redis(folder: Path, items: pl.DataFrame, codes: pl.DataFrame, version: int) -> None:
    with atomic(folder / "commands.resp") as temporary, temporary.open("wb") as stream:
        stream.writelines(commands(items, codes, version=version))


WRITERS: dict[Format, Writer] = {"parquet": _parquet, "jsonl": _json_lines, "redis": _redis}
