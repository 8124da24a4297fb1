"""Parts of a bundle that is opened: ranker, recommender, and checks that all belong together."""

from pathlib import Path

import numpy as np
import polars as pl

from qarm.config import saved_config
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError, shown
from qarm.quantizer.base import checked_codes
from qarm.quantizer.coder import Coder
from qarm.recommender.ranking.item_scorer import ItemScorer
from qarm.recommender.ranking.model import Ranker
from qarm.recommender.retrieval.recommender import Recommender
from qarm.recommender.retrieval.storage import read_retriever
from qarm.schemas.bundle import BundleContent

__all__ = ["check_bundle", "read_ranker", "read_recommender"]


def read_ranker(folder: Path, content: BundleContent) -> Ranker | None:
    """The bundle's ranker; one of an earlier qarm has its long history from the run's config."""
    if content.variant is None:
        return None
    ranker = Ranker.from_pretrained(folder / "recommender" / content.variant)
    if ranker.shape.long_history is None:
        long = saved_config(content.config).ranker.long_history
        ranker.shape = ranker.shape.model_copy(update={"long_history": long})
    return ranker


def read_recommender(folder: Path, codes: Codes, vectors: Embeddings) -> Recommender:
    """The recommender of a bundle or run with all published items.

    Raises:
        ArtifactError: it has none, a damaged one, or one that does not belong to these codes.
    """
    try:
        return Recommender(read_retriever(folder / "retriever")).with_codes(codes, vectors)
    except InputError as error:
        raise ArtifactError(f"{folder}: its parts do not belong together: {error}; export again") from None


def check_bundle(
    name: str,
    content: BundleContent,
    *,
    coder: Coder,
    codes: Codes,
    vectors: Embeddings,
    facts: pl.DataFrame,
    ranker: Ranker | None,
) -> None:
    """Check that the parts of a bundle were made for each other.

    Args:
        name: of the bundle, for the message.

    Raises:
        ArtifactError: they were not; every disagreement is named.
    """
    problems = [*_items(content, codes, vectors, facts), *_codebooks(content, coder, codes, vectors)]
    if ranker is not None and content.variant is not None and not problems:
        problems += _ranker(ItemScorer(ranker, content.variant, codes=codes, vectors=vectors))
    if problems:
        raise ArtifactError(
            f"{name}: its parts do not belong together: {'; '.join(problems)}; export it again"
        )


def _items(content: BundleContent, codes: Codes, vectors: Embeddings, facts: pl.DataFrame) -> list[str]:
    problems = []
    if len(set(codes.item_ids)) < len(codes):
        problems.append("codes.parquet holds an item twice")
    if content.items != len(codes):
        problems.append(f"bundle.json says {content.items} items, codes.parquet has {len(codes)}")
    if vectors.item_ids != codes.item_ids:
        problems.append("embeddings.parquet and codes.parquet are of other items")
    if "item_id" not in facts.columns or facts["item_id"].to_list() != codes.item_ids:
        problems.append("items.parquet and codes.parquet are of other items")
    return problems


def _codebooks(content: BundleContent, coder: Coder, codes: Codes, vectors: Embeddings) -> list[str]:
    problems = []
    if content.codes_version != codes.version:
        problems.append(
            f"bundle.json says codes of version {content.codes_version}, they are {codes.version}"
        )
    if codes.rq.shape[1] != len(coder.books.widths_):
        problems.append(f"codes of {codes.rq.shape[1]} levels, codebooks of {len(coder.books.widths_)}")
    else:
        try:
            checked_codes(codes.rq, coder.books.widths_)
        except InputError as error:
            problems.append(str(error))
    pool = len(coder.nearest.pool_items_)
    if codes.vq is not None and codes.vq.size and not 0 <= codes.vq.min() <= codes.vq.max() < pool:
        problems.append(f"VQ codes leave 0 .. {pool - 1}, the ids of the pool")
    sizes = {vectors.vectors.shape[1], coder.books.n_features_in_, coder.nearest.n_features_in_}
    if len(sizes) > 1:
        problems.append(
            f"vectors, codebooks and pool have {shown(sorted(sizes))} dimensions, need one number"
        )
    if not np.isfinite(vectors.vectors).all():
        problems.append("vectors hold NaN or infinity")
    return problems


def _ranker(scorer: ItemScorer) -> list[str]:
    found = []
    if not scorer.fits_codes():
        found.append("the ranker was trained on other codes")
    vector = scorer.ranker.shape.vector
    if vector and scorer.why_not_new is None and vector != scorer.dimensions:
        found.append(f"the ranker reads vectors of {vector} dimensions, the items have {scorer.dimensions}")
    return found
