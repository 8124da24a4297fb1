"""Schemas of every JSON file that a run writes; unknown fields are faults."""

from fnmatch import fnmatch

from pydantic import BaseModel

from qarm.schemas.base import Check, Manifest, Timing
from qarm.schemas.check import TablePlaces
from qarm.schemas.codes import Churn, CodeQuality, Profile, Saved
from qarm.schemas.comparison import Compared, ComparedCell, ComparedKey, ComparedTiming, FileHashes, Searched
from qarm.schemas.encoder import AlignStep, EmbeddingQuality, EncoderCard, Neighbours
from qarm.schemas.explorer import ExplorerItems, Tree
from qarm.schemas.pairs import PairQuality
from qarm.schemas.recommendations import RecommendationExamples
from qarm.schemas.results import Baselines, Cell, RankerShape, Results, Summary
from qarm.schemas.retrieval import BlendShape, RetrievalResults, RetrieverShape

__all__ = ["SCHEMAS", "schema_of"]

SCHEMAS: dict[str, type[BaseModel]] = {
    "compare/key.json": ComparedKey,
    "compare/timing.json": ComparedTiming,
    "compare/hashes.json": FileHashes,
    "compare/search.json": Searched,
    "compare/search/*.json": Searched,
    "compare/results.json": Compared,
    "compare/seed-*/cells/*.json": ComparedCell,
    "*/manifest.json": Manifest,
    "*/timing.json": Timing,
    "tables.json": TablePlaces,
    "check/check.json": Check,
    "pairs/quality.json": PairQuality,
    "encoder/config.json": EncoderCard,
    "encoder/metrics.jsonl": AlignStep,
    "embeddings/neighbours.json": Neighbours,
    "embeddings/quality.json": EmbeddingQuality,
    "codes/churn.json": Churn,
    "codes/profile.json": Profile,
    "codes/quality.json": CodeQuality,
    "codes/quantizer/config.json": Saved,
    "codes/nearest/config.json": Saved,
    "retriever/blend.json": BlendShape,
    "retriever/model/config.json": RetrieverShape,
    "retriever/results.json": RetrievalResults,
    "recommender/results.json": Results,
    "recommender/cells/baselines.json": Baselines,
    "recommender/cells/*.json": Cell,
    "recommender/*/config.json": RankerShape,
    "report/explorer.json": ExplorerItems,
    "report/recommendations.json": RecommendationExamples,
    "report/summary.json": Summary,
    "report/tree.json": Tree,
}


def schema_of(name: str) -> type[BaseModel] | None:
    """The schema of a file, by its path in the run folder; None for files of other projects' formats."""
    return next((schema for pattern, schema in SCHEMAS.items() if fnmatch(name, pattern)), None)
