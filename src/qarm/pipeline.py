"""Pipeline: check, mine, align, embed, quantize, train and report, in this order.

Each stage reads what earlier stages wrote, works in a folder that nobody sees until it is finished,
and is skipped when its inputs and settings are those of the last time.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qarm.config import Config
from qarm.core.atomic_io import read_model, write_json
from qarm.core.parallel.engine import EngineName
from qarm.core.parallel.ranks import launched
from qarm.core.run_folder import (
    Purpose,
    clear_partial,
    is_fresh,
    read_manifest,
    run_lock,
    stage_folder,
    working_folder,
)
from qarm.core.scratch import Scratch, sweep_scratch
from qarm.core.tables.parquet import read_parquet, write_parquet
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.run_inputs import Run
from qarm.errors import InputError, MissingExtraError
from qarm.schemas.base import Check, Figure
from qarm.schemas.results import Results

if TYPE_CHECKING:
    from qarm.core.parallel.torchrun import Processes

__all__ = ["STAGES", "VECTORS", "Done", "check_input", "run_stages"]


RAW, VECTORS = "embeddings/raw.parquet", "embeddings/embeddings.parquet"


@dataclass(frozen=True)
class Done:
    """One finished stage: where its artefact lies, its row counts and figures, and the time taken."""

    stage: str
    path: Path
    rows: Mapping[str, Figure]
    fresh: bool
    seconds: float


# ---- stages: each fills `work` and tells its row counts and the figures that matter -------------


def _check(run: Run, work: Path) -> Mapping[str, Figure]:
    from qarm.data.media import check_media

    catalog, log = run.tables
    media = check_media(catalog)
    report = Check(
        items=len(catalog),
        users=len(log.users),
        interactions=len(log),
        unknown_interactions=log.unknown,
        bad_images=media.images,
        bad_sounds=media.sounds,
    )
    write_json(work / "check.json", report)
    counts = {"bad_images": len(report.bad_images), "bad_sounds": len(report.bad_sounds)}
    return report.model_dump(exclude={"bad_images", "bad_sounds"}) | counts


def _mine(run: Run, work: Path) -> Mapping[str, Figure]:
    from qarm.pairs.mining import mine_pairs
    from qarm.pairs.quality import pair_quality

    train, valid, rejected = run.split.train, run.split.valid, work / "rejected.parquet"
    pairs = mine_pairs(train, run.config.pairs, seed=run.config.seed, rejected=rejected, engine=run.engine)
    quality = pair_quality(
        pairs,
        train,
        future=valid if len(valid) else None,
        rejected=read_parquet(rejected),
        seed=run.config.seed,
    )
    write_parquet(work / "pairs.parquet", pairs)
    write_json(work / "quality.json", quality)
    return {"pairs": pairs.height} | {name: source.pairs for name, source in quality.sources.items()}


def _align(run: Run, work: Path) -> Mapping[str, Figure]:
    from qarm.encoder.alignment.align import align

    encoder = align(
        run.known,
        _filtered_pairs(run, work),
        **run.config.encoder.model_dump(exclude={"cache"}),
        seed=run.config.seed,
        cache=run.cache,
        metrics_path=work / "metrics.jsonl",
    )
    encoder.save_pretrained(work)
    return {} if encoder.summary is None else encoder.summary.model_dump(by_alias=True)


def _filtered_pairs(run: Run, work: Path) -> Any:
    """The mined pairs' file, or where a pair filter is set, what that lets pass."""
    from qarm.encoder.alignment.llm_pair_filter import LanguageModelPairScorer, filter_pairs

    path, chosen = run.folder / "pairs" / "pairs.parquet", run.config.encoder.filter
    if chosen.model is None:
        return path
    scorer = LanguageModelPairScorer(chosen.model, prompt=chosen.prompt, batch=chosen.batch)
    rejected = work / "rejected_pairs.parquet"
    return filter_pairs(
        read_parquet(path), run.catalog, scorer, threshold=chosen.threshold, rejected=rejected
    )


def _embed(run: Run, work: Path) -> Mapping[str, Figure]:
    from qarm.encoder.embed import embed
    from qarm.encoder.encoder import Encoder
    from qarm.encoder.evaluation.modality_ablation import ablated_versions
    from qarm.encoder.evaluation.neighbour_examples import neighbours
    from qarm.encoder.evaluation.quality import embedding_quality

    encoder = Encoder.from_pretrained(run.folder / "encoder")
    vectors = embed(encoder, run.catalog, cache=run.cache, engine=run.engine)
    raw = embed(encoder, run.catalog, cache=run.cache, engine=run.engine, version="raw")
    vectors.write(work / "embeddings.parquet")
    raw.write(work / "raw.parquet")
    versions = {"raw": raw, "aligned": vectors} | dict(
        ablated_versions(encoder, run.catalog, cache=run.cache)
    )
    pairs = read_parquet(run.folder / "pairs" / "pairs.parquet")
    quality = embedding_quality(versions, run.split, pairs, run.catalog.item_ids, seed=run.config.seed)
    write_json(work / "quality.json", quality)
    write_json(work / "neighbours.json", neighbours(run.catalog, raw, vectors, seed=run.config.seed))
    rates = {row.method: row.hit_rate["50"] for row in quality.hit_rates if row.slice == "all"}
    return {
        "items": len(vectors),
        "dim": vectors.vectors.shape[1],
        "raw_dim": raw.vectors.shape[1],
        "hit_rate@50": rates["aligned"],
        "raw_hit_rate@50": rates["raw"],
    }


def _quantize(run: Run, work: Path) -> Mapping[str, Figure]:
    from qarm.quantizer.evaluation.quality import code_quality
    from qarm.quantizer.factory import all_codes, new_quantizer
    from qarm.quantizer.knn_codes import NearestCodes
    from qarm.quantizer.versions.archive import archive, write_codes

    settings = run.config.quantizer
    vectors = Embeddings.read(run.folder / "embeddings" / "embeddings.parquet")
    known_ids = run.known.item_ids
    known = Embeddings(known_ids, vectors.rows(known_ids))
    books = new_quantizer(settings, len(known), seed=run.config.seed).fit(known)
    nearest = NearestCodes(
        settings.nearest, pool=settings.pool, index=settings.index, seed=run.config.seed
    ).fit(known)
    earlier = (run.folder / "codes" / "codes.parquet").is_file()
    version = archive(run.folder / "codes", work) if earlier else 1
    codes = all_codes(vectors, known_ids, books, nearest, collisions=settings.collisions, version=version)
    write_codes(work, codes, books, nearest, known=known)
    pairs = read_parquet(run.folder / "pairs" / "pairs.parquet")
    quality = code_quality(vectors, codes, books, pairs=pairs, seed=run.config.seed)
    write_json(work / "quality.json", quality)
    shared = quality.full_codes.collision_rate
    return {"items": len(codes), "width": books.widths_, "collision_rate": shared}


def _train(run: Run, work: Path) -> Mapping[str, Figure]:
    from qarm.recommender.code_embedding import read_codebooks, read_pool
    from qarm.recommender.ranking.variants import run_variants

    settings, codes = run.config.ranker, run.folder / "codes"
    books = near = None
    if settings.start == "codebooks":
        books = read_codebooks(codes / "quantizer" / "model.safetensors", run.config.quantizer.levels)
    if settings.start == "pool":
        near = read_pool(codes / "nearest" / "model.safetensors")
    return run_variants(
        run.split,
        run.catalog.item_ids,
        codes=Codes.read(codes / "codes.parquet"),
        aligned=Embeddings.read(run.folder / "embeddings" / "embeddings.parquet"),
        raw=Embeddings.read(run.folder / "embeddings" / "raw.parquet"),
        config=settings,
        folder=work,
        codebooks=books,
        pool=read_parquet(codes / "pool.parquet")["item_id"].to_list(),
        pool_vectors=near,
        seed=run.config.seed,
    )


def _report(run: Run, work: Path) -> Mapping[str, Figure]:
    from qarm.quantizer.code_tree import CodeTree
    from qarm.report.item_data import explorer_items
    from qarm.report.render import render_report
    from qarm.report.seed_summary import summarize
    from qarm.report.tree import tree_content

    codes = Codes.read(run.folder / "codes" / "codes.parquet")
    tree = CodeTree(codes)
    raw, aligned = (Embeddings.read(run.folder / name) for name in (RAW, VECTORS))
    summary = summarize(read_model(run.folder / "recommender" / "results.json", Results).rows)
    write_json(work / "summary.json", summary)
    write_json(work / "tree.json", tree_content(tree, run.catalog))
    write_json(work / "explorer.json", explorer_items(tree, codes, run.catalog, raw=raw, aligned=aligned))
    render_report(run.folder, work)
    return {"variants": len({mean.variant for mean in summary.means})}


@dataclass(frozen=True)
class Stage:
    """A stage's name, folder and main file, what its result depends on, and its function."""

    name: str
    main: str
    inputs: tuple[str, ...]
    sections: tuple[str, ...]
    work: Callable[[Run, Path], Mapping[str, Figure]]

    @property
    def folder(self) -> str:
        """Name of the stage's folder in the run folder."""
        return self.main.partition("/")[0]


SHARED = ("train", "report")  # among torchrun's processes; the first one alone writes the report
STAGES = (
    Stage("check", "check/check.json", ("items", "interactions", "media"), ("data",), _check),
    Stage(
        "mine", "pairs/pairs.parquet", ("items", "interactions"), ("seed", "data", "split", "pairs"), _mine
    ),
    Stage(
        "align",
        "encoder/model.safetensors",
        ("items", "interactions", "media", "check/check.json", "pairs/pairs.parquet"),
        ("seed", "data", "split", "encoder"),
        _align,
    ),
    Stage(
        "embed",
        VECTORS,
        ("items", "interactions", "media", "check/check.json", "pairs/pairs.parquet", "encoder/"),
        ("seed", "data", "split"),
        _embed,
    ),
    Stage(
        "quantize",
        "codes/codes.parquet",
        ("interactions", "pairs/pairs.parquet", VECTORS),
        ("seed", "data", "split", "quantizer"),
        _quantize,
    ),
    Stage(
        "train",
        "recommender/results.json",
        ("interactions", "users", "codes/codes.parquet", VECTORS, RAW),
        ("seed", "data", "split", "ranker"),
        _train,
    ),
    Stage(
        "report",
        "report/index.html",
        (
            "items",
            "media",
            "check/",
            "pairs/",
            "encoder/",
            "embeddings/",
            "codes/",
            "recommender/",
            "compare/results.json",
        ),
        ("seed", "data", "split", "pairs", "encoder", "quantizer", "ranker"),
        _report,
    ),
)


def run_stages(
    config: Config, folder: Path, *, last: str = "report", engine: EngineName = "local"
) -> Iterator[Done]:
    """Run every stage up to `last`, skipping what is fresh; yields each stage as it finishes.

    The engine decides where the work is done, not what comes out, so it is no part of the config. Under
    torchrun the processes share the train stage; those before it have to be finished.

    Raises:
        InputError: the input is wrong; what earlier runs left in the folder is untouched.
        ArtifactError: the folder is in use, or a finished file in it was changed by hand.
    """
    _require_extras(last)
    names, here = [stage.name for stage in STAGES], _torchrun_processes()
    sweep_scratch()
    with run_lock(folder) if here is None or here.rank == 0 else nullcontext():
        run = Run(config, folder, engine=engine)
        run.tables  # noqa: B018 - bad tables are refused before anything is hashed or written
        if here is not None:
            here.agree("the run", {"last stage": last, **run.given()})
        for stage in STAGES[: names.index(last) + 1]:
            yield _run_stage(run, stage) if here is None else _share_stage(run, stage, here)


def _run_stage(run: Run, stage: Stage) -> Done:
    started = time.perf_counter()
    fresh = is_fresh(run.folder / stage.folder, **_purpose(run, stage))
    if fresh:
        clear_partial(run.folder / stage.folder)
    else:
        _work(run, stage)
    return _done(run, stage, fresh, started)


def _purpose(run: Run, stage: Stage) -> Purpose:
    names = [name for name in stage.inputs if name != "users" or run.has_users]
    inputs = {name: run.hash_of(name) for name in names}
    return Purpose(inputs=inputs, config=run.settings(stage.sections))


def _work(run: Run, stage: Stage) -> None:
    with stage_folder(run.folder, stage.folder, **_purpose(run, stage)) as (work, rows):
        rows.update(stage.work(run, work))


def _done(run: Run, stage: Stage, fresh: bool, started: float) -> Done:
    manifest = read_manifest(run.folder / stage.folder)
    rows = {} if manifest is None else manifest.rows
    return Done(stage.name, run.folder / stage.main, rows, fresh, time.perf_counter() - started)


# ---- torchrun ---------------------------------------------------------------------------------


def _torchrun_processes() -> "Processes | None":
    """This process among torchrun's; None where it is alone, and torch need not be imported."""
    if not launched():
        return None
    from torch.cuda import is_available

    from qarm.core.parallel.torchrun import processes

    return processes("cuda" if is_available() else "cpu")


def _share_stage(run: Run, stage: Stage, here: "Processes") -> Done:
    """As `_run_stage`, by all processes; the first one alone looks whether it is fresh, and writes."""
    started = time.perf_counter()
    first = here.rank == 0
    fresh = first and is_fresh(run.folder / stage.folder, **_purpose(run, stage))
    fresh = bool(here.largest(float(fresh)))
    if not fresh and stage.name not in SHARED:
        raise InputError(
            f"stage {stage.name} is not finished, and torchrun's processes share train only; "
            f"run it first, without torchrun: qarm {stage.name} CONFIG --out {run.folder}"
        )
    if not fresh and first:
        _work(run, stage)
    elif not fresh and stage.name == "train":
        stage.work(run, working_folder(run.folder, stage.folder, **_purpose(run, stage)))
    here.wait()
    if first:  # the others may have made the working folder anew
        clear_partial(run.folder / stage.folder, keep=None)
    return _done(run, stage, fresh, started)


def _require_extras(last: str) -> None:
    if last == "report":
        for package in ("jinja2", "plotly"):
            if find_spec(package) is None:
                raise MissingExtraError(package, "report")


def check_input(config: Config) -> Check:
    """Report on the tables and the media, without a run folder; the content of `check.json`.

    Raises:
        InputError: every problem of both tables.
    """
    with Scratch() as scratch:
        _check(Run(config, scratch.path), scratch.path)
        return read_model(scratch.path / "check.json", Check)
