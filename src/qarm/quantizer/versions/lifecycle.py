"""Lifecycle of a run's codes: append, refit, rollback, drift."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from qarm.config import Config, saved_config
from qarm.core.atomic_io import digest, read_model, write_json
from qarm.core.consistent_read import read_consistently
from qarm.core.paths import as_path
from qarm.core.run_folder import (
    MANIFEST,
    clear_partial,
    finish_swap,
    run_lock,
    seal_stage,
    working_folder,
)
from qarm.core.stage_timing import TIMING, later_than, read_timing, version_start
from qarm.core.tables.parquet import read_parquet, write_parquet
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.run_inputs import Run
from qarm.encoder.embed import embed
from qarm.errors import InputError
from qarm.quantizer.coder import STAGES, Coder, finished_codes, new_items
from qarm.quantizer.evaluation.quality import code_quality
from qarm.quantizer.factory import all_codes
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.versions import archive
from qarm.quantizer.versions.drift import THRESHOLDS, fit_profile, monitor
from qarm.quantizer.versions.refit import append, churn, match_centroids, refit, remap_table
from qarm.schemas.base import Figure, Manifest, Timing
from qarm.schemas.codes import Appended, Churn, Drift, Profile, Refitted, RolledBack

__all__ = ["append_items", "drift", "refit_codes", "roll_back"]

CODES, CHURN, PROFILE = "codes.parquet", "churn.json", "profile.json"
Rows = dict[str, Figure]


def append_items(run: Path, table: Path, *, allow_unreadable: bool = False) -> Appended:
    """Codes of new items by the frozen encoder and codebooks, added to the run; no published code moves.

    The same call again appends nothing, and returns the same figures: a request is known by its items.

    Args:
        run: a run folder whose `quantize` stage has finished.
        table: items, as in `qarm encode`.
        allow_unreadable: as of `encode`.

    Raises:
        InputError: the table is wrong.
        ArtifactError: the run has not got so far, is damaged or in use.
    """
    run = as_path(run)
    with run_lock(run):
        manifest, codes = _finished(run), run / "codes"
        catalog = new_items(table, manifest, allow_unreadable=allow_unreadable)
        texts = catalog.frame.select(pl.exclude(pl.Binary)).sort("item_id").rows()
        request = digest({"append": texts})
        published = Codes.read(codes / CODES)
        known = set(published.item_ids)
        fresh = [item for item in catalog.item_ids if item not in known]
        if not fresh:
            asked = archive.requests(codes)
            again = sum(asked.get(item) == request for item in catalog.item_ids)
            return Appended(items=len(published), appended=again, repeated=True)
        coder = Coder.read(run)
        vectors = embed(coder.encoder, catalog.only(fresh))
        with _reworked(run, manifest, request=request) as (work, rows):
            after = append(published, vectors, coder.books, nearest=coder.nearest)
            asked = archive.requests(work) | dict.fromkeys(fresh, request)
            archive.write_appended(work, archive.joined(archive.appended(work), vectors), asked)
            after.write(work / CODES)
            result = Appended(items=len(after), appended=len(fresh))
            rows.update(items=result.items, appended=result.appended)
        return result


def refit_codes(run: Path, *, config: Config | None = None) -> Refitted:
    """A new version of all codes: codebooks fitted from the old centroids on all known and appended items.

    It comes with `churn.json` and `remap.parquet`; the one before goes to `codes/versions/`. Pool ids stay,
    and appended items join the pool. Where nothing was appended since the last refit, that is the result.

    Args:
        run: a run folder whose `quantize` stage has finished.
        config: of the run; needed only where an earlier qarm coded it with a limited pool.

    Raises:
        InputError: the codebooks are not of k-means, or the run does not say which items it knows.
        ArtifactError: the run has not got so far, is damaged or in use.
    """
    run = as_path(run)
    with run_lock(run):
        manifest, codes = _finished(run), run / "codes"
        coder = Coder.read(run)
        if not isinstance(coder.books, ResidualKMeans):
            raise InputError(
                f"got a {type(coder.books).__name__}, only k-means levels can be fitted again from old "
                "centroids; set quantizer.last to kmeans"
            )
        everything, known = _known(run, manifest, config)
        request = _refit_request(known, manifest)
        old = Codes.read(codes / CODES)
        done = _refitted(codes, request, items=len(old))
        if done is not None:
            return done
        with _reworked(run, manifest) as (work, rows):
            vectors = Embeddings(old.item_ids, everything.rows(old.item_ids))
            changes = _refit(work, run, old, coder, vectors=vectors, known=known, request=request)
            result = Refitted(version=changes.new, items=len(old), changed=changes.full_codes)
            rows.update(version=result.version, items=result.items, changed=result.changed)
        return result


def roll_back(run: Path, version: int) -> RolledBack:
    """An earlier version of the codes as the current one; nothing is lost, so it can be undone.

    Items that were appended after that version have no code in it; `without_codes` counts them.

    Raises:
        InputError: there is no such version.
        ArtifactError: the run has no finished codes, is damaged or in use.
    """
    run = as_path(run)
    with run_lock(run):
        _finished(run)
        codes = run / "codes"
        before = Codes.read(codes / CODES).item_ids
        archive.rollback(codes, version)
        result = RolledBack(version=version, versions=archive.versions(codes))
        if lost := len(set(before) - set(Codes.read(codes / CODES).item_ids)):
            result.without_codes = lost
        return result


def drift(run: Path, table: Path, *, thresholds: Mapping[str, float] = THRESHOLDS) -> Drift:
    """Drift of new items since the codebooks were fitted.

    Args:
        run: a run folder whose `quantize` stage has finished.
        table: items, as in `qarm encode`; whether they were appended to the run makes no difference.
        thresholds: as in `monitor`.

    Raises:
        InputError: the table is wrong.
        ArtifactError: the run has no finished codes.
    """
    run = as_path(run)

    def read() -> tuple[Manifest, Coder, Profile]:
        manifest = finished_codes(run)
        return manifest, Coder.read(run).loaded(), read_model(run / "codes" / PROFILE, Profile)

    manifest, coder, then = read_consistently(run, STAGES, read)
    vectors, codes = coder.code(new_items(table, manifest, allow_unreadable=True))
    return monitor(then, fit_profile(vectors, codes, coder.books), thresholds=thresholds)


def _finished(run: Path) -> Manifest:
    """The manifest of the codes, whose files are as they were left; a swap cut short is completed."""
    for stage in STAGES:
        finish_swap(run / stage)
    return finished_codes(run)


@contextmanager
def _reworked(run: Path, manifest: Manifest, *, request: str | None = None) -> Iterator[tuple[Path, Rows]]:
    """A copy of `codes/`, to be filled, that takes its place when the block ends without an error.

    Args:
        manifest: of the codes, with their inputs and settings.
        request: id of the request whose items are appended; the others stay valid since when they were.
            None: a new version.
    """
    codes, inputs, config = run / "codes", manifest.inputs, manifest.config
    work = working_folder(run, codes.name, inputs=inputs, config=config)
    clear_partial(codes)
    started, clock = time.time(), time.perf_counter()
    for path in codes.iterdir():
        if path.name not in (MANIFEST, TIMING):
            archive.link_tree(path, work / path.name)
    rows: Rows = dict(manifest.rows)
    yield work, rows
    seconds = time.perf_counter() - clock
    moment = later_than(codes, started + seconds)
    if request is None:
        timing = Timing(started=started, seconds=seconds, valid_from=moment)
    else:
        before = read_timing(codes)
        timing = before.model_copy(
            update={
                "valid_from": version_start(before),
                "appended": {**(before.appended or {}), request: moment},
            }
        )
    seal_stage(work, codes.name, rows=rows, timing=timing, inputs=inputs, config=config)
    finish_swap(codes)


def _known(run: Path, manifest: Manifest, config: Config | None) -> tuple[Embeddings, Embeddings]:
    """Vectors of all items, and of those to fit on: those of the last fit, and what was appended."""
    codes = run / "codes"
    new = archive.appended(codes)
    everything = archive.joined(Embeddings.read(run / "embeddings" / "embeddings.parquet"), new)
    ids = archive.fitted(codes)
    if ids is None:  # an earlier qarm did not note them
        ids = _known_to_earlier(run, manifest, config)
    known = sorted({*ids, *new.item_ids})
    return everything, Embeddings(known, everything.rows(known))


def _known_to_earlier(run: Path, manifest: Manifest, config: Config | None) -> list[str]:
    if saved_config(manifest.config).quantizer.pool is None:
        names: list[str] = read_parquet(run / "codes" / "pool.parquet")["item_id"].to_list()
        return names
    if config is None:
        raise InputError(
            f"{run}: an earlier qarm did not note which items the codebooks were fitted on; "
            f"give the config too, whose tables say so: qarm quantize CONFIG --out {run} --refit"
        )
    tables = Run(config, run)
    if tables.hash_of("interactions") != manifest.inputs["interactions"]:
        raise InputError(
            f"{config.interactions_path} is not the table that the codes were made from; "
            "give that one, or quantize anew in another folder"
        )
    return tables.known.item_ids


def _refit_request(known: Embeddings, manifest: Manifest) -> str:
    vectors = hashlib.sha256(np.ascontiguousarray(known.vectors).tobytes()).hexdigest()
    settings = {name: manifest.config[name] for name in ("seed", "quantizer")}
    return digest({"refit": known.item_ids, "vectors": vectors, "settings": settings})


def _refitted(codes: Path, request: str, *, items: int) -> Refitted | None:
    """The result of the refit that made the current version, where it is that of the same request."""
    if not (codes / CHURN).is_file():
        return None
    changes = read_model(codes / CHURN, Churn)
    if changes.request != request:
        return None
    return Refitted(version=changes.new, items=items, changed=changes.full_codes, repeated=True)


def _refit(
    work: Path,
    run: Path,
    old: Codes,
    coder: Coder,
    *,
    vectors: Embeddings,
    known: Embeddings,
    request: str,
) -> Churn:
    """The new version in `work`, a copy of the folder of the old one, and what it changed."""
    assert isinstance(coder.books, ResidualKMeans)  # noqa: S101 - checked by the caller
    manifest = finished_codes(run)
    number = archive.archive(run / "codes", work)
    books, nearest = refit(coder.books, known), coder.nearest
    new_to_pool = archive.appended(work)
    if len(new_to_pool):
        nearest.extend(new_to_pool, version=number)
    policy = saved_config(manifest.config).quantizer.collisions
    codes = all_codes(vectors, known.item_ids, books, nearest, collisions=policy, version=number)
    archive.write_codes(work, codes, books, nearest, known=known)
    pairs = read_parquet(run / "pairs" / "pairs.parquet")
    write_json(
        work / "quality.json", code_quality(vectors, codes, books, pairs=pairs, seed=books.chosen_seed)
    )
    matches = [match_centroids(a, b) for a, b in zip(coder.books.codebooks_, books.codebooks_, strict=True)]
    changes = churn(old, codes, matches)
    changes.request = request
    write_json(work / CHURN, changes)
    write_parquet(work / "remap.parquet", remap_table(old, codes, matches))
    return changes
