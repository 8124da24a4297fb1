"""Lifecycle of a run's codes: append, refit, rollback, drift."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qarm.config import saved_config
from qarm.core.atomic_io import read_model, write_json
from qarm.core.run_folder import is_fresh, read_manifest, run_lock, stage_folder
from qarm.core.tables.parquet import read_parquet, write_parquet
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError
from qarm.quantizer.base import Quantizer
from qarm.quantizer.coder import new_vectors
from qarm.quantizer.evaluation.quality import code_quality
from qarm.quantizer.factory import all_codes, load_quantizer
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.versions import archive
from qarm.quantizer.versions.drift import fit_profile, monitor
from qarm.quantizer.versions.refit import append, churn, match_centroids, refit, remap_table
from qarm.schemas.base import Figure, Manifest
from qarm.schemas.codes import Appended, Drift, Profile, Refitted, RolledBack

__all__ = ["append_items", "drift", "refit_codes", "roll_back"]

PROFILE = "profile.json"


def append_items(run: Path, table: Path) -> Appended:
    """Codes of new items by the frozen encoder and codebooks, added to the run; no published code moves.

    Args:
        run: a run folder whose `quantize` stage has finished; table: items, as in `qarm encode`.

    Raises:
        InputError: the table is wrong.
        ArtifactError: the run has not got so far, is damaged or in use.
    """
    with _reworked(run) as (work, rows):
        published = Codes.read(work / "codes.parquet")
        vectors = new_vectors(run, table)
        books, nearest = _loaded(work)
        codes = append(published, vectors, books, nearest=nearest)
        fresh = codes.item_ids[len(published) :]
        if fresh:
            added = archive.joined(archive.appended(work), Embeddings(fresh, vectors.rows(fresh)))
            added.write(work / archive.APPENDED)
            codes.write(work / "codes.parquet")
        result = Appended(items=len(codes), appended=len(fresh))
        rows.update(result)
    return result


def refit_codes(run: Path) -> Refitted:
    """A new version of all codes: codebooks fitted from the old centroids on training and appended items.

    It comes with `churn.json` and `remap.parquet`; the one before goes to
    `codes/versions/`. Pool ids stay, and appended items join the pool.

    Raises:
        ArtifactError: the run has not got so far, is damaged or in use.
    """
    with _reworked(run) as (work, rows):
        manifest = _finished(run)
        old = Codes.read(work / "codes.parquet")
        old_books, nearest = _loaded(work)
        if not isinstance(old_books, ResidualKMeans):
            raise InputError(
                f"got a {type(old_books).__name__}, only k-means levels can be fitted again from old "
                "centroids; set quantizer.last to kmeans"
            )
        number = archive.archive(run / "codes", work)
        new_items = archive.appended(work)
        everything = archive.joined(Embeddings.read(run / "embeddings" / "embeddings.parquet"), new_items)
        known_ids = sorted({*nearest.pool_ids_, *new_items.item_ids})
        known = Embeddings(known_ids, everything.rows(known_ids))
        books = refit(old_books, known)
        if len(new_items):
            nearest.extend(new_items, version=number)
        vectors = Embeddings(old.item_ids, everything.rows(old.item_ids))
        policy = saved_config(manifest.config).quantizer.collisions
        codes = all_codes(vectors, known_ids, books, nearest, collisions=policy, version=number)
        archive.write_codes(work, codes, books, nearest, known=known)
        pairs = read_parquet(run / "pairs" / "pairs.parquet")
        quality = code_quality(vectors, codes, books, pairs=pairs, seed=books.seed)
        write_json(work / "quality.json", quality)
        matches = [match_centroids(a, b) for a, b in zip(old_books.codebooks_, books.codebooks_, strict=True)]
        changes = churn(old, codes, matches)
        write_json(work / "churn.json", changes)
        write_parquet(work / "remap.parquet", remap_table(old, codes, matches))
        result = Refitted(version=number, items=len(codes), changed=changes.full_codes)
        rows.update(result)
    return result


def roll_back(run: Path, version: int) -> RolledBack:
    """An earlier version of the codes as the current one; nothing is lost, so it can be undone.

    Raises:
        InputError: there is no such version.
        ArtifactError: the run has no finished codes, is damaged or in use.
    """
    with run_lock(run):
        _finished(run)
        archive.rollback(run / "codes", version)
        return RolledBack(version=version, versions=archive.versions(run / "codes"))


def drift(run: Path, table: Path) -> Drift:
    """Drift of new items since the codebooks were fitted.

    Raises:
        InputError: the table is wrong.
        ArtifactError: the run has no finished codes.
    """
    _finished(run)
    books, _ = _loaded(run / "codes")
    vectors = new_vectors(run, table)
    profile = fit_profile(vectors, Codes(vectors.item_ids, books.transform(vectors)), books)
    return monitor(read_model(run / "codes" / PROFILE, Profile), profile)


def _finished(run: Path) -> Manifest:
    """The manifest of the codes, whose files are as they were left."""
    manifest = read_manifest(run / "codes")
    if manifest is None:
        raise ArtifactError(f"{run} has no finished codes; run: qarm quantize CONFIG --out {run}")
    is_fresh(run / "codes", inputs=manifest.inputs, config=manifest.config)
    return read_manifest(run / "codes") or manifest


@contextmanager
def _reworked(run: Path) -> Iterator[tuple[Path, dict[str, Figure]]]:
    """A copy of `codes/` that takes its place when the block ends without an error."""
    with run_lock(run):
        manifest = _finished(run)
        with stage_folder(run, "codes", inputs=manifest.inputs, config=manifest.config) as (work, rows):
            shutil.rmtree(work)
            # files are replaced, never written into, so that a link is as good as a copy
            ignored = _stage_records(run / "codes")
            shutil.copytree(run / "codes", work, copy_function=_link, ignore=ignored)
            rows.update(manifest.rows)
            yield work, rows


def _stage_records(codes: Path) -> Callable[[str, list[str]], set[str]]:
    """What `copytree` leaves out: the stage's manifest and times, but not those of its earlier versions."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        return {"manifest.json", "timing.json"}.intersection(names) if Path(folder) == codes else set()

    return ignored


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


def _loaded(codes: Path) -> tuple[Quantizer, NearestCodes]:
    return load_quantizer(codes / "quantizer"), NearestCodes.from_pretrained(codes / "nearest")
