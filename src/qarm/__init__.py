"""qarm: from a catalogue and a click log to aligned vectors, trainable codes and a recommender."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qarm.artifacts import Codes as Codes
    from qarm.artifacts import Embeddings as Embeddings
    from qarm.behavior.log import Log as Log
    from qarm.behavior.log import read_log as read_log
    from qarm.behavior.pairs import mine_pairs as mine_pairs
    from qarm.behavior.split import split_log as split_log
    from qarm.behavior.swing import swing as swing
    from qarm.behavior.user2item import user2item as user2item
    from qarm.behavior.users import Users as Users
    from qarm.behavior.users import read_users as read_users
    from qarm.config import Config as Config
    from qarm.config import load_config as load_config
    from qarm.content.align import align as align
    from qarm.content.catalog import Catalog as Catalog
    from qarm.content.catalog import read_catalog as read_catalog
    from qarm.content.embed import embed as embed
    from qarm.content.encoder import Encoder as Encoder
    from qarm.errors import ArtifactError as ArtifactError
    from qarm.errors import ConfigError as ConfigError
    from qarm.errors import InputError as InputError
    from qarm.errors import QarmError as QarmError
    from qarm.quantizer.fsq import ResidualKMeansFSQ as ResidualKMeansFSQ
    from qarm.quantizer.nearest import NearestCodes as NearestCodes
    from qarm.quantizer.opq import ResidualKMeansOPQ as ResidualKMeansOPQ
    from qarm.quantizer.residual import ResidualKMeans as ResidualKMeans
    from qarm.quantizer.rqvae import RQVAE as RQVAE
    from qarm.recommender.compare import compare as compare
    from qarm.recommender.embedding import CodeEmbedding as CodeEmbedding
    from qarm.recommender.train import train_ranker as train_ranker

_HOME = {
    "ArtifactError": "errors",
    "Catalog": "content.catalog",
    "CodeEmbedding": "recommender.embedding",
    "Codes": "artifacts",
    "Config": "config",
    "ConfigError": "errors",
    "Embeddings": "artifacts",
    "Encoder": "content.encoder",
    "InputError": "errors",
    "Log": "behavior.log",
    "NearestCodes": "quantizer.nearest",
    "QarmError": "errors",
    "ResidualKMeansFSQ": "quantizer.fsq",
    "ResidualKMeansOPQ": "quantizer.opq",
    "RQVAE": "quantizer.rqvae",
    "ResidualKMeans": "quantizer.residual",
    "Users": "behavior.users",
    "align": "content.align",
    "compare": "recommender.compare",
    "embed": "content.embed",
    "load_config": "config",
    "mine_pairs": "behavior.pairs",
    "read_catalog": "content.catalog",
    "read_log": "behavior.log",
    "read_users": "behavior.users",
    "split_log": "behavior.split",
    "swing": "behavior.swing",
    "train_ranker": "recommender.train",
    "user2item": "behavior.user2item",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qarm' has no attribute {name!r}")
    return getattr(import_module(f"qarm.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
