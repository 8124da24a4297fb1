"""qarm: from a catalogue and a click log to aligned vectors, trainable codes and a recommender."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

    from qarm.config import Config as Config
    from qarm.config import load_config as load_config
    from qarm.data.catalog import Catalog as Catalog
    from qarm.data.catalog import read_catalog as read_catalog
    from qarm.data.codes import Codes as Codes
    from qarm.data.embeddings import Embeddings as Embeddings
    from qarm.data.interactions import Log as Log
    from qarm.data.interactions import read_log as read_log
    from qarm.data.splits import split_log as split_log
    from qarm.data.users import Users as Users
    from qarm.data.users import read_users as read_users
    from qarm.encoder.alignment.align import align as align
    from qarm.encoder.embed import embed as embed
    from qarm.encoder.encoder import Encoder as Encoder
    from qarm.errors import ArtifactError as ArtifactError
    from qarm.errors import ConfigError as ConfigError
    from qarm.errors import InputError as InputError
    from qarm.errors import QarmError as QarmError
    from qarm.pairs.mining import mine_pairs as mine_pairs
    from qarm.pairs.swing.swing import swing as swing
    from qarm.pairs.user2item import user2item as user2item
    from qarm.quantizer.collisions import reassign as reassign
    from qarm.quantizer.collisions import suffixes as suffixes
    from qarm.quantizer.evaluation.quality import code_quality as code_quality
    from qarm.quantizer.fsq import ResidualKMeansFSQ as ResidualKMeansFSQ
    from qarm.quantizer.knn_codes import NearestCodes as NearestCodes
    from qarm.quantizer.opq import ResidualKMeansOPQ as ResidualKMeansOPQ
    from qarm.quantizer.residual_kmeans import ResidualKMeans as ResidualKMeans
    from qarm.quantizer.rqvae import RQVAE as RQVAE
    from qarm.recommender.code_embedding import CodeEmbedding as CodeEmbedding
    from qarm.recommender.ranking.evaluate import compare as compare
    from qarm.recommender.ranking.fitting import train_ranker as train_ranker
    from qarm.recommender.retrieval.recommender import Recommender as Recommender

_HOME = {
    "ArtifactError": "errors",
    "Catalog": "data.catalog",
    "CodeEmbedding": "recommender.code_embedding",
    "Codes": "data.codes",
    "Config": "config",
    "ConfigError": "errors",
    "Embeddings": "data.embeddings",
    "Encoder": "encoder.encoder",
    "InputError": "errors",
    "Log": "data.interactions",
    "NearestCodes": "quantizer.knn_codes",
    "QarmError": "errors",
    "Recommender": "recommender.retrieval.recommender",
    "ResidualKMeansFSQ": "quantizer.fsq",
    "ResidualKMeansOPQ": "quantizer.opq",
    "RQVAE": "quantizer.rqvae",
    "ResidualKMeans": "quantizer.residual_kmeans",
    "Users": "data.users",
    "align": "encoder.alignment.align",
    "code_quality": "quantizer.evaluation.quality",
    "compare": "recommender.ranking.evaluate",
    "embed": "encoder.embed",
    "load_config": "config",
    "mine_pairs": "pairs.mining",
    "read_catalog": "data.catalog",
    "read_log": "data.interactions",
    "read_users": "data.users",
    "reassign": "quantizer.collisions",
    "split_log": "data.splits",
    "suffixes": "quantizer.collisions",
    "swing": "pairs.swing.swing",
    "train_ranker": "recommender.ranking.fitting",
    "user2item": "pairs.user2item",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("qarm")
    if name not in _HOME:
        raise AttributeError(f"module 'qarm' has no attribute {name!r}")
    return getattr(import_module(f"qarm.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
