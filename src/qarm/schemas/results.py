"""Shape, training and results of rankers."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from qarm.schemas.base import FORMAT, Count, Schema, Share
from qarm.schemas.verdict import Verdict

__all__ = ["Baselines", "Cell", "Epoch", "Figures", "RankerShape", "Results", "Row", "Summary"]


class Figures(Schema):
    """Figures of a slice; None where it has one label only."""

    slice: str
    auc: Share | None
    uauc: Share | None
    gauc: Share | None
    logloss: Annotated[float, Field(ge=0.0)] | None
    rows: Count
    users: Count


class OfVariant(Schema):
    """Variant and seed, the first fields of a row of results."""

    variant: str
    seed: int


class OfLabel(Schema):
    """An auxiliary label."""

    label: str


# pydantic takes the fields of later bases first: these orders are those of the files
class Row(Figures, OfVariant):
    """Figures of a variant and seed on a slice of the test part."""


class LabelFigures(Figures, OfLabel):
    """Figures of an auxiliary label on a slice, over the rows where it is known."""


class LabelRow(Figures, OfLabel, OfVariant):
    """Figures of a variant, seed and auxiliary label on a slice."""


class Epoch(Schema):
    """Training loss and validation figures of an epoch; GAUC where it decides when to stop."""

    epoch: Count
    loss: float
    valid_auc: Share | None
    valid_logloss: float | None
    valid_gauc: Share | None = None


class Cell(Schema):
    """`recommender/cells/<variant>-<seed>.json`: one trained ranker; `best` is the epoch that was kept.

    `labels`: figures of the auxiliary labels, where there are any.
    """

    rows: list[Figures]
    epochs: list[Epoch]
    best: int
    labels: list[LabelFigures] | None = None


class Baselines(Schema):
    """`recommender/cells/baselines.json`; `content-knn` names the rule that validation chose."""

    knn: Annotated[str, Field(alias="content-knn")]
    rows: dict[str, list[Figures]]


class RankerShape(Schema):
    """`recommender/<variant>/config.json`: what a ranker is built from.

    items: size of the vocabulary; known: items with an id of their own; ids: whether ids are read; widths,
    nearest, pool: codes per level, length of the VQ list and its table (empty or 0: none); vector: length of
    the frozen vector (0: none); cross: matches by code that are attended to (0: no search); dim, attention,
    hidden: widths of embeddings, attention units and layers; history: longest history.
    prefixes: rows of the table for codes 1 and 2 together; weighted: whether a VQ list's entries are weighed
    by rank; spare: whether the last code of each table is that of items without codes; time: whether
    attention reads gaps of time; labels: the auxiliary labels; users: number of values of each user feature;
    long_history: longest history that the search by code reads, None where an earlier qarm did not note it.
    ngrams: rows of the table for the prefixes of each length; shrinkage: events at which half of an id's own
    vector counts, beside a prior from content; tiers: of the histogram of similarities to the history.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    items: Count
    known: Count
    widths: tuple[Count, ...] = ()
    nearest: Count = 0
    pool: Count = 0
    vector: Count = 0
    ids: bool = True
    cross: Count = 0
    dim: Count
    attention: Count = 16
    hidden: tuple[Count, ...]
    dropout: Share
    id_dropout: Share
    history: Count
    prefixes: Count = 0
    weighted: bool = False
    spare: bool = False
    time: bool = False
    labels: tuple[str, ...] = ()
    users: tuple[Count, ...] = ()
    long_history: Count | None = None
    ngrams: Count = 0
    shrinkage: Annotated[float, Field(ge=0.0)] = 0.0
    tiers: Count = 0


class Results(Schema):
    """`recommender/results.json`: a row per variant, seed and slice of the test part.

    `labels`: the same by auxiliary label, where there are any.
    """

    rows: list[Row]
    labels: list[LabelRow] | None = None


class Mean(Schema):
    """Mean of a variant's figures on a slice over the seeds."""

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
    """Mean difference of two variants in a metric, paired by seed, with its t-interval."""

    variant: str
    against: str
    slice: str
    metric: Literal["auc", "uauc", "gauc", "logloss"]
    seeds: Count
    mean: float | None
    low: float | None
    high: float | None


class Summary(Schema):
    """`report/summary.json`: means over seeds, paired differences with their interval, and the verdict.

    verdict: None where an earlier qarm wrote none.
    """

    against: str
    confidence: Share
    means: list[Mean]
    differences: list[Difference]
    verdict: Verdict | None = None
