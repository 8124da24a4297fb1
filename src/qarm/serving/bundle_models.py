"""Ranker and recommender of a bundle, read from its folder."""

from pathlib import Path

from qarm.config import saved_config
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError
from qarm.recommender.ranking.model import Ranker
from qarm.recommender.retrieval.recommender import Recommender
from qarm.recommender.retrieval.storage import read_retriever
from qarm.schemas.bundle import BundleContent

__all__ = ["read_ranker", "read_recommender"]


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
