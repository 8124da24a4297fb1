"""Config: typed sections for the tables and the stages, and the sources that their values come from."""

from qarm.config.retriever import RetrieverConfig
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
from qarm.config.tables import (
    Condition,
    Data,
    InteractionsTable,
    ItemsTable,
    Label,
    LabelRule,
    SplitConfig,
    UsersTable,
    Wanted,
)

__all__ = [
    "FEATURES",
    "CompareConfig",
    "Condition",
    "Config",
    "Data",
    "EncoderConfig",
    "FilterConfig",
    "InteractionsTable",
    "ItemsTable",
    "Label",
    "LabelRule",
    "Negatives",
    "PairsConfig",
    "PerSource",
    "QuantizerConfig",
    "RankerConfig",
    "RetrieverConfig",
    "SplitConfig",
    "SwingConfig",
    "User2ItemConfig",
    "UsersTable",
    "Wanted",
    "features_of",
    "load_config",
    "saved_config",
]
