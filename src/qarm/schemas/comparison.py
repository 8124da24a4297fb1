"""The comparison's cells and results."""

from typing import Annotated

from pydantic import Field

from qarm.schemas.base import Count, Schema, Share
from qarm.schemas.results import Epoch

__all__ = ["Compared", "ComparedCell", "ComparedKey", "ComparedTiming", "Searched"]


class ComparedKey(Schema):
    """`compare/key.json`: hash of the settings and tables that the folder belongs to."""

    format: int = 1  # of the settings that the key covers; see `qarm.core.formats`
    key: str


class ComparedTiming(Schema):
    """`compare/timing.json`: seconds over all calls, and the machine."""

    seconds: float
    processor: str
    threads: Count


class ComparedCell(Schema):
    """`compare/seed-<n>/cells/<variant>.json`: one trained ranker; `best` is the epoch that was kept.

    `settings`: what torch-rechub's DIN was given after its search.
    """

    best: int
    epochs: list[Epoch]
    dim: Count
    parameters: Count
    settings: dict[str, float] | None = None


class Means(Schema):
    """A method's figures on a slice, averaged over seeds; rows and users are those of all seeds."""

    negatives: str
    slice: str
    method: str
    auc: Share | None
    logloss: float | None
    calibration: float | None
    gauc: Share
    gauc_spread: float | None
    uauc: Share
    uauc_spread: float | None
    rows: Count
    users: Count


class Gain(Schema):
    """A method's figure minus another's: 95 % interval, standard error and p from resampled users."""

    negatives: str
    slice: str
    method: str
    against: str
    measure: str
    mean: float
    low: float
    high: float
    error: float
    p: Share


class Primary(Gain):
    smallest_effect: float


class Tops(Schema):
    """Over the catalogue, at 10; None where no user has such an item."""

    method: str
    recall: Share | None = None
    ndcg: Share | None = None
    cold_recall: Annotated[Share | None, Field(alias="recall of cold items")] = None
    cold_ndcg: Annotated[Share | None, Field(alias="ndcg of cold items")] = None


class Rung(Schema):
    """One setting of the ranker in one round: epochs allowed, and the validation AUC that was reached."""

    setting: dict[str, float]
    epochs: Count
    valid_auc: Share


class Searched(Schema):
    """`compare/search.json`: successive halving of ranker settings; `variant_epochs` were trained in all."""

    grid: dict[str, list[float]]
    chosen: dict[str, float]
    variant_epochs: Count
    rounds: list[list[Rung]]


class Compared(Schema):
    """`compare/results.json`; docs/protocol.md says how it comes about."""

    seeds: list[int]
    catalogue: list[Tops]
    means: list[Means]
    differences: list[Gain]
    primary: Primary | None
    holm: dict[str, bool]
    search: Searched | None = None
