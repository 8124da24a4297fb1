"""Rankers and their results."""

from typing import Annotated, Literal

from pydantic import Field

from qarm.schemas.base import Count, Schema, Share

__all__ = ["Baselines", "Cell", "Epoch", "RankerShape", "Results", "Summary"]


class Figures(Schema):
    slice: str
    auc: Share | None
    uauc: Share | None
    gauc: Share | None
    logloss: Annotated[float, Field(ge=0.0)] | None
    rows: Count
    users: Count


class Row(Figures):
    variant: str
    seed: int


class Epoch(Schema):
    epoch: Count
    loss: float
    valid_auc: Share | None
    valid_logloss: float | None


class LabelFigures(Figures):
    label: str


class LabelRow(LabelFigures):
    variant: str
    seed: int


class Cell(Schema):
    """`recommender/cells/<variant>-<seed>.json`: one trained ranker; `best` is the epoch that was kept.

    `labels`: figures of the further labels, where there are any.
    """

    rows: list[Figures]
    labels: list[LabelFigures] | None = None
    epochs: list[Epoch]
    best: int


class Baselines(Schema):
    """`recommender/cells/baselines.json`; `content-knn` names the rule that validation chose."""

    knn: Annotated[str, Field(alias="content-knn")]
    rows: dict[str, list[Figures]]


class RankerShape(Schema):
    """`recommender/<variant>/config.json`; fields as in `qarm.recommender.ranking.model.Shape`."""

    items: Count
    known: Count
    widths: list[Count]
    nearest: Count
    pool: Count
    vector: Count
    ids: bool
    cross: Count
    dim: Count
    attention: Count
    hidden: list[Count]
    dropout: Share
    id_dropout: Share
    history: Count
    prefixes: Count = 0
    weighted: bool = False
    spare: bool = False
    time: bool = False
    labels: tuple[str, ...] = ()
    users: tuple[Count, ...] = ()


class Results(Schema):
    """`recommender/results.json`: a row per variant, seed and slice of the test part.

    `labels`: the same by further label, where there are any.
    """

    rows: list[Row]
    labels: list[LabelRow] | None = None


class Mean(Schema):
    variant: str
    slice: str
    seeds: Count
    auc: Share | None
    uauc: Share | None
    gauc: Share | None
    logloss: float | None
    rows: Count
    users: Count


class Difference(Schema):
    variant: str
    against: str
    slice: str
    metric: Literal["auc", "uauc", "gauc", "logloss"]
    seeds: Count
    mean: float | None
    low: float | None
    high: float | None


class Summary(Schema):
    """`report/summary.json`: means over seeds, and paired differences with their interval."""

    against: str
    confidence: Share
    means: list[Mean]
    differences: list[Difference]
