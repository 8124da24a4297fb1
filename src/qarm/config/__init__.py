"""Config: typed sections for the tables and the stages, and the sources that their values come from."""

from qarm.config.sources import load_config, saved_config
from qarm.config.stages import (
    FEATURES,
    CompareConfig,
    Config,
    EncoderConfig,
    FilterConfig,
    Negatives,
    PairsConfig,
    PerSource,
    QuantizerConfig,
    RankerConfig,
    SwingConfig,
    User2ItemConfig,
    features_of,
)
from qarm.config.tables import Data, InteractionsTable, ItemsTable, SplitConfig, UsersTable

__all__ = [
    "FEATURES",
    "CompareConfig",
    "Config",
    "Data",
    "EncoderConfig",
    "FilterConfig",
    "InteractionsTable",
    "ItemsTable",
    "Negatives",
    "PairsConfig",
    "PerSource",
    "QuantizerConfig",
    "RankerConfig",
    "SplitConfig",
    "SwingConfig",
    "User2ItemConfig",
    "UsersTable",
    "features_of",
    "load_config",
    "saved_config",
]
