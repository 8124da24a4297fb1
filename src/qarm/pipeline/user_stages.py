"""Stages that use the codes for users: retrievers, rankers, and the report of the run."""

from collections.abc import Mapping
from pathlib import Path

from qarm.core.atomic_io import read_model, write_json
from qarm.core.tables.parquet import read_parquet
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.run_inputs import Run
from qarm.schemas.base import Figure
from qarm.schemas.results import Results

__all__ = ["RAW", "VECTORS", "report", "retrieve", "train"]

RAW, VECTORS = "embeddings/raw.parquet", "embeddings/embeddings.parquet"


def retrieve(run: Run, work: Path) -> Mapping[str, Figure]:
    """Retrievers over the whole catalogue, and their figures on the test part."""
    from qarm.recommender.retrieval.retrieve import retrieve as fit_and_write

    return fit_and_write(
        run.split,
        run.catalog.item_ids,
        codes=Codes.read(run.folder / "codes" / "codes.parquet"),
        vectors=Embeddings.read(run.folder / VECTORS),
        config=run.config.retriever,
        folder=work,
        seed=run.config.seed,
    )


def train(run: Run, work: Path) -> Mapping[str, Figure]:
    """Rankers with and without the codes, and their figures on the test part."""
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


def report(run: Run, work: Path) -> Mapping[str, Figure]:
    """Page of the results, and the data of the explorer."""
    from qarm.quantizer.code_tree import CodeTree
    from qarm.recommender.retrieval.recommender import Recommender
    from qarm.report.item_data import explorer_items
    from qarm.report.recommendations import EXAMPLES, recommendation_examples
    from qarm.report.render import render_report
    from qarm.report.seed_summary import summarize
    from qarm.report.tree import tree_content
    from qarm.report.verdict import verdict_of
    from qarm.report.verdict_figures import read_figures

    codes = Codes.read(run.folder / "codes" / "codes.parquet")
    tree = CodeTree(codes)
    raw, aligned = (Embeddings.read(run.folder / name) for name in (RAW, VECTORS))
    summary = summarize(read_model(run.folder / "recommender" / "results.json", Results).rows)
    summary.verdict = verdict_of(read_figures(run.folder))
    write_json(work / "summary.json", summary)
    write_json(work / "tree.json", tree_content(tree, run.catalog))
    write_json(work / "explorer.json", explorer_items(tree, codes, run.catalog, raw=raw, aligned=aligned))
    lists = recommendation_examples(Recommender.from_run(run.folder), run.catalog, seed=run.config.seed)
    write_json(work / EXAMPLES, lists)
    render_report(run.folder, work)
    return {"variants": len({mean.variant for mean in summary.means})}
