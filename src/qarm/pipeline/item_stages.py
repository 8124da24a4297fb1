"""Stages that make something of the items: pairs, encoder, embeddings, codes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qarm.core.atomic_io import write_json
from qarm.core.tables.parquet import read_parquet, write_parquet
from qarm.data.run_inputs import Run
from qarm.schemas.base import Figure

__all__ = ["align_encoder", "embed_items", "mine", "quantize"]


def mine(run: Run, work: Path) -> Mapping[str, Figure]:
    """Pairs of items that behave alike, and their quality."""
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


def align_encoder(run: Run, work: Path) -> Mapping[str, Figure]:
    """Encoder fine-tuned on the pairs."""
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


def embed_items(run: Run, work: Path) -> Mapping[str, Figure]:
    """Vectors of every item before and after alignment, and their quality."""
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


def quantize(run: Run, work: Path) -> Mapping[str, Figure]:
    """RQ and VQ codes of every item, and their quality."""
    from qarm.quantizer.versions.fit import fit_codes

    return fit_codes(run, work)
