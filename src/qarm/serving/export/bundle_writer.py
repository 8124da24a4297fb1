"""Bundle writer: one folder with what a service needs of a run, each file under its hash."""

import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl

from qarm.config import Config, ItemsTable, saved_config
from qarm.core.atomic_io import write_json
from qarm.core.paths import as_path
from qarm.core.run_folder import is_fresh, read_manifest, run_lock
from qarm.core.sealed_folder import building, seal
from qarm.core.tables.parquet import write_parquet
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError, shown
from qarm.quantizer.coder import Coder, outdated_stages
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.versions.archive import VERSIONS, appended, joined
from qarm.recommender.ranking.item_scorer import ItemScorer
from qarm.recommender.ranking.model import Ranker
from qarm.recommender.retrieval.storage import HISTORIES
from qarm.schemas.base import FORMAT, Manifest, Settings
from qarm.schemas.bundle import BundleContent, ExportedBundle, PortableReport
from qarm.serving.bundle_checks import read_recommender
from qarm.serving.export.item_metadata import item_facts, run_catalog

__all__ = ["KIND", "export_bundle"]

KIND = "qarm-bundle-1"
STAGES = ("check", "pairs", "encoder", "embeddings", "codes", "retriever", "recommender")
OWN = ("manifest.json", "timing.json")  # of a stage; the bundle has its own
NEIGHBOURS = 10


def export_bundle(
    run: Path,
    out: Path,
    *,
    variant: str | None = None,
    items: tuple[Path, ...] = (),
    media: bool = False,
    histories: bool = True,
    portable: bool = False,
) -> ExportedBundle:
    """Write a bundle, the folder that `Bundle.load` reads; nothing in the run changes.

    Args:
        run: a run folder whose `quantize` stage has finished.
        out: the folder to make. If it holds this very bundle, nothing happens; another one is not replaced.
        variant: whose ranker to take; None: the last of `ranker.variants` that is there, or no ranker.
        items: the run's table of items, and any of appended items; by default where
            it was when the run was made, in the demo's folder or in the current one.
        media: copy pictures and sounds, under the hash of their content.
        histories: copy the users' histories, so that the service recommends to users by their ids.
        portable: add `portable/`, the fusion head and the RQ codes as torch.export programs.

    Returns:
        version: the bundle's; items; files; bytes; variant; users and bytes of their histories; with
        `portable`, the share of items whose full code differs by precision.

    Raises:
        InputError: `out` is taken, no such variant, or a table that is not the run's.
        ArtifactError: the run has not got so far, is damaged, in use, or its parts do not belong together.
    """
    run, out = as_path(run), as_path(out)
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; give a finished run")
    with run_lock(run), building(out) as work:
        manifests = _finished(run)
        settings: Settings = {}
        for manifest in manifests.values():
            settings |= manifest.config
        config = saved_config(settings)
        codes, vectors = _copy_learned(run, work)
        chosen = _chosen(run, config, variant, finished="recommender" in manifests)
        if chosen is not None:
            _copy_ranker(run, work, chosen, codes, vectors)
        users = _copy_retriever(run, work, codes, vectors, histories=histories)
        columns = config.data.items
        facts = item_facts(run, codes.item_ids, columns=columns, tables=items, media=work if media else None)
        write_parquet(work / "items.parquet", facts)
        content = BundleContent(
            format=FORMAT,
            qarm=version("qarm"),
            items=len(codes),
            codes_version=codes.version,
            variant=chosen,
            media=media,
            config=settings,
            retriever=(work / "retriever").is_dir(),
            users=users,
        )
        write_json(work / "bundle.json", content)
        report = _write_portable(run, work, columns, items) if portable else None
        made = seal(work, kind=KIND)
        files = [path for path in work.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        listed = None if users is None else (work / "retriever" / HISTORIES).stat().st_size
    precisions = {} if report is None else report.precisions
    return ExportedBundle(
        version=made,
        items=len(codes),
        files=len(files),
        bytes=size,
        variant=chosen,
        users=users,
        histories_bytes=listed,
        **{f"{name}_differs": shares.full_codes for name, shares in precisions.items()},
    )


def _finished(run: Path) -> dict[str, Manifest]:
    """Manifests of the finished stages, whose files are as they were left and made from each other."""
    found = {stage: read_manifest(run / stage) for stage in STAGES}
    manifests = {stage: manifest for stage, manifest in found.items() if manifest is not None}
    needed = ("encoder", "embeddings", "codes")
    if missing := [stage for stage in needed if stage not in manifests]:
        raise ArtifactError(f"{run} has no finished {shown(missing)}; run: qarm quantize CONFIG --out {run}")
    for stage, manifest in manifests.items():
        is_fresh(run / stage, inputs=manifest.inputs, config=manifest.config)
    if stale := outdated_stages(manifests):
        raise ArtifactError(f"{run}: {shown(stale)} were made from earlier files; run the stages again")
    return manifests


def _copy_learned(run: Path, work: Path) -> tuple[Codes, Embeddings]:
    """Encoder, codes and vectors; the vectors in the order of the codes, appended items among them."""
    shutil.copytree(run / "encoder", work / "encoder", ignore=shutil.ignore_patterns(*OWN, "metrics.jsonl"))
    (work / "codes").mkdir()
    for path in sorted((run / "codes").iterdir()):
        if path.is_dir() and path.name != VERSIONS:
            shutil.copytree(path, work / "codes" / path.name)
        elif path.name in ("codes.parquet", "pool.parquet", "profile.json"):
            shutil.copy2(path, work / "codes" / path.name)
    codes = Codes.read(work / "codes" / "codes.parquet")
    everything = joined(Embeddings.read(run / "embeddings" / "embeddings.parquet"), appended(run / "codes"))
    vectors = Embeddings(codes.item_ids, everything.rows(codes.item_ids))
    vectors.write(work / "embeddings" / "embeddings.parquet")
    _write_raw_neighbours(run, work / "embeddings")
    return codes, vectors


def _write_raw_neighbours(run: Path, folder: Path) -> None:
    """The nearest items before alignment: lists instead of vectors, which may be many times as long."""
    raw = Embeddings.read(run / "embeddings" / "raw.parquet")
    count = min(NEIGHBOURS, len(raw) - 1)
    if count < 1:
        return
    search = NearestCodes(count).fit(raw)
    names = np.array(search.pool_items_, dtype=object)[search.codes(raw)]
    frame = pl.DataFrame({"item_id": raw.item_ids, "nearest": names.tolist()})
    write_parquet(folder / "raw_neighbours.parquet", frame)
    shutil.copy2(run / "embeddings" / "neighbours.json", folder)


def _chosen(run: Path, config: Config, variant: str | None, *, finished: bool) -> str | None:
    """The variant whose ranker goes into the bundle."""
    names = config.ranker.variants if finished else []
    there = [name for name in names if (run / "recommender" / name / "model.safetensors").is_file()]
    if variant is None:
        return there[-1] if there else None
    if variant not in there:
        known = shown(there) if there else f"none; run: qarm train CONFIG --out {run}"
        raise InputError(f"got variant {variant!r}, the run's rankers are {known}")
    return variant


def _copy_ranker(run: Path, work: Path, variant: str, codes: Codes, vectors: Embeddings) -> None:
    """The ranker, if it was trained on the codes that the bundle holds."""
    target = work / "recommender" / variant
    shutil.copytree(run / "recommender" / variant, target)
    ranker = Ranker.from_pretrained(target)
    if not ItemScorer(ranker, variant, codes=codes, vectors=vectors).fits_codes():
        raise ArtifactError(
            f"{run / 'recommender' / variant} was trained on other codes than {run / 'codes'} holds; "
            f"run: qarm train CONFIG --out {run}, or roll the codes back"
        )


def _copy_retriever(
    run: Path, work: Path, codes: Codes, vectors: Embeddings, *, histories: bool
) -> int | None:
    """The retriever, if the run has one that was trained on these codes; number of users with a history."""
    source, target = run / "retriever", work / "retriever"
    if not (source / "manifest.json").is_file():
        return None
    left = (*OWN, "results.json", *([] if histories else [HISTORIES]))
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*left))
    recommender = read_recommender(work, codes, vectors)
    return len(recommender.users) if histories else None


def _write_portable(run: Path, work: Path, columns: ItemsTable, tables: tuple[Path, ...]) -> PortableReport:
    from qarm.serving.export.torch_export import write_portable

    coder = Coder.read(work)
    catalog = run_catalog(run, columns=columns, tables=tables)
    cache = run / "cache"
    return write_portable(
        work / "portable", coder.encoder, coder.books, catalog, cache=cache if cache.is_dir() else None
    )
