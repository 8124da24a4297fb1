"""What a run leaves on disk: atomic files, stage folders with a manifest, arrays with item ids."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.core.atomic_io import explained, flush, sweep_temporaries, temporary_name
from qarm.errors import ArtifactError, InputError, shown

__all__ = [
    "Codes",
    "Embeddings",
    "atomic",
    "clear_partial",
    "digest",
    "is_fresh",
    "read_json",
    "read_manifest",
    "run_lock",
    "sha256_file",
    "stage_folder",
    "verify",
    "working_folder",
    "write_json",
    "write_parquet",
    "write_text",
]

MANIFEST, TIMING, PARTIAL = "manifest.json", "timing.json", ".partial"
SEAL = "sha256"  # of the rest of the manifest


# ---- files ------------------------------------------------------------------------------------


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary neighbour of `path`, flushed to disk and renamed to it on success.

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
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; run the stage that writes it again") from None
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error}); delete its folder and rerun") from None


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    with atomic(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", statistics=False)


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(content: object) -> str:
    """SHA-256 of the canonical JSON of `content`."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


# ---- stage folders ----------------------------------------------------------------------------


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold the run folder for this process; a second process is refused, not queued."""
    import fcntl

    with explained(run):
        run.mkdir(parents=True, exist_ok=True)
        stream = (run / ".lock").open("w")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(f"{run} is in use by another qarm process; wait for it") from None
        sweep_temporaries(run)
        yield


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished stage, or None when the stage has not finished.

    Raises:
        ArtifactError: it was changed by hand.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest = read_json(path)
    sealed = dict(manifest) if isinstance(manifest, dict) else {}
    if sealed.pop(SEAL, None) != digest(sealed):
        raise _changed(folder, [MANIFEST])
    return sealed


def _changed(folder: Path, names: list[str]) -> ArtifactError:
    return ArtifactError(
        f"{folder}: {shown(names)} changed since the stage wrote it; "
        f"restore it, or delete {folder} to make it again"
    )


def _changed_files(folder: Path, manifest: Mapping[str, Any], *, below: str = "") -> list[str]:
    return [
        name
        for name, expected in manifest["outputs"].items()
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


def _purpose(inputs: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, Any]:
    return {"inputs": dict(inputs), "config": dict(config), "version": version("qarm")}


def is_fresh(folder: Path, *, inputs: Mapping[str, str], config: Mapping[str, Any]) -> bool:
    """True when the stage ran on these inputs and settings and its files are as it left them.

    Raises:
        ArtifactError: a file of a finished stage was changed or removed by hand.
    """
    _finish_swap(folder)
    manifest = read_manifest(folder)
    if manifest is None or any(manifest.get(k) != v for k, v in _purpose(inputs, config).items()):
        return False
    changed = _changed_files(folder, manifest)
    if changed:
        raise _changed(folder, changed)
    return True


def working_folder(run: Path, stage: str, *, inputs: Mapping[str, str], config: Mapping[str, Any]) -> Path:
    """Where a stage works until it is finished."""
    return run / PARTIAL / f"{stage}-{digest(_purpose(inputs, config))[:16]}"


@contextmanager
def stage_folder(
    run: Path, stage: str, *, inputs: Mapping[str, str], config: Mapping[str, Any]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A working folder that becomes `run/stage` only when the block ends without an error.

    Yields the folder and a dict for row counts. The folder's name holds the fingerprint of inputs
    and config, so that a rerun after a kill finds what the stage had finished, and only then.
    """
    purpose, work = _purpose(inputs, config), working_folder(run, stage, inputs=inputs, config=config)
    clear_partial(run / stage, keep=work)
    with explained(work):
        work.mkdir(parents=True, exist_ok=True)
    sweep_temporaries(work, all_of_them=True)
    rows: dict[str, Any] = {}
    started, clock = time.time(), time.perf_counter()
    yield work, rows
    write_json(work / TIMING, {"started": started, "seconds": time.perf_counter() - clock})
    outputs = {
        path.relative_to(work).as_posix(): sha256_file(path)
        for path in sorted(work.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, TIMING)
    }
    manifest = {"stage": stage, "rows": rows, "outputs": outputs, **purpose}
    write_json(work / MANIFEST, manifest | {SEAL: digest(json.loads(json.dumps(manifest)))})
    _finish_swap(run / stage)


def clear_partial(folder: Path, *, keep: Path | None = None) -> None:
    """Remove what killed processes left of a stage that is at work no more; `keep` stays."""
    partial = folder.parent / PARTIAL
    for stale in (*partial.glob(f"{folder.name}-*"), partial / f"old.{folder.name}"):
        if stale != keep:
            shutil.rmtree(stale, ignore_errors=True)
    if partial.is_dir() and not any(partial.iterdir()):
        partial.rmdir()


def _finish_swap(folder: Path) -> None:
    """Move a finished working folder into place; also completes a swap that a kill cut short."""
    partial = folder.parent / PARTIAL
    for work in partial.glob(f"{folder.name}-*"):
        if not (work / MANIFEST).is_file():
            continue
        old = partial / f"old.{folder.name}"
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        work.rename(folder)
        flush(folder.parent)
        clear_partial(folder)


# ---- arrays with item ids ---------------------------------------------------------------------


@dataclass(frozen=True)
class Embeddings:
    """Vectors with the ids of their items.

    item_ids: n distinct strings; vectors: float32 [n, d], row i belongs to item_ids[i].
    """

    item_ids: list[str]
    vectors: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.item_ids)

    def rows(self, item_ids: list[str]) -> npt.NDArray[np.float32]:
        """Vectors of the given items, in the given order, float32 [len(item_ids), d]."""
        return self.vectors[_positions(self.item_ids, item_ids)]

    def write(self, path: Path) -> None:
        vectors = pl.Series("embedding", self.vectors, dtype=pl.Array(pl.Float32, self.vectors.shape[1]))
        write_parquet(path, pl.DataFrame({"item_id": self.item_ids, "embedding": vectors}))

    @classmethod
    def read(cls, path: Path) -> "Embeddings":
        frame = pl.read_parquet(path, columns=["item_id", "embedding"])
        vectors = frame["embedding"].to_numpy()
        return cls(frame["item_id"].to_list(), np.ascontiguousarray(vectors, dtype=np.float32))


@dataclass(frozen=True)
class Codes:
    """Codes with the ids of their items.

    item_ids: n distinct strings; rq: int32 [n, levels]; vq: int32 [n, nearest], pool ids, or None;
    version: number of the codebooks that made them; suffix: int32 [n], tells items with one full code
    apart, or None.
    """

    item_ids: list[str]
    rq: npt.NDArray[np.int32]
    vq: npt.NDArray[np.int32] | None = None
    version: int = 1
    suffix: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    def frame(self) -> pl.DataFrame:
        """Columns item_id, rq, vq, version and suffix, vq and suffix where there are any."""
        columns: dict[str, Any] = {"item_id": self.item_ids, "rq": _fixed(self.rq)}
        if self.vq is not None:
            columns["vq"] = _fixed(self.vq)
        versions = pl.repeat(self.version, len(self), dtype=pl.Int32, eager=True)
        frame = pl.DataFrame(columns).with_columns(versions.alias("version"))
        return frame if self.suffix is None else frame.with_columns(pl.Series("suffix", self.suffix))

    def write(self, path: Path) -> None:
        write_parquet(path, self.frame())

    @classmethod
    def read(cls, path: Path) -> "Codes":
        frame = pl.read_parquet(path)
        vq = frame["vq"].to_numpy().astype(np.int32) if "vq" in frame.columns else None
        rq = frame["rq"].to_numpy().astype(np.int32)
        suffix = frame["suffix"].to_numpy().astype(np.int32) if "suffix" in frame.columns else None
        return cls(frame["item_id"].to_list(), rq, vq, int(frame["version"][0]), suffix)


def _fixed(codes: npt.NDArray[np.int32]) -> pl.Series:
    return pl.Series(codes, dtype=pl.Array(pl.Int32, codes.shape[1]))


def _positions(known: list[str], wanted: list[str]) -> npt.NDArray[np.int64]:
    index = {item: i for i, item in enumerate(known)}
    missing = [item for item in wanted if item not in index]
    if missing:
        raise InputError(f"no vector for items {shown(missing)}; embed them first")
    return np.fromiter((index[item] for item in wanted), dtype=np.int64, count=len(wanted))
