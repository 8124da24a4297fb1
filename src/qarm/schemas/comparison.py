"""Trained rankers and results of the comparison."""

from typing import Annotated, Literal

from pydantic import Field

from qarm.schemas.base import Count, Schema, Share
from qarm.schemas.results import Epoch

__all__ = [
    "Answered",
    "CatalogueFigures",
    "CatalogueGain",
    "Compared",
    "ComparedCell",
    "ComparedKey",
    "ComparedRetrieval",
    "ComparedTiming",
    "Estimate",
    "FileHashes",
    "Gain",
    "GainKey",
    "Means",
    "RetrievalGain",
    "RetrievalMeans",
    "Rung",
    "Searched",
    "Setting",
]

Setting = dict[str, int | float]  # ranker settings by name


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

    `settings`: learning rate and initialisation that were searched for torch-rechub's DIN; `weights`: SHA-256
    of its weights.
    """

    best: int
    epochs: list[Epoch]
    dim: Count
    settings: Setting | None = None
    parameters: Count
    weights: str | None = None


class Means(Schema):
    """Figures of a method on a slice, averaged over seeds; rows and users are those of all seeds."""

    negatives: str
    slice: str
    method: str
    auc: Share | None
    logloss: float | None
    calibration: float | None
    rows: Count
    users: Count
    gauc: Share
    gauc_spread: float | None
    uauc: Share
    uauc_spread: float | None


class Estimate(Schema):
    """A figure averaged over seeds: 95 % interval, standard error and two-sided p, over users and seeds.

    df: degrees of freedom; None where an earlier qarm resampled users alone. smallest_effect: the difference
    that has 80 % power. item_low, item_high: the interval over items too, where it was computed.
    """

    mean: float
    low: float
    high: float
    error: float
    p: Share
    df: float | None = None
    smallest_effect: float | None = None
    item_low: float | None = None
    item_high: float | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % interval."""
        return self.low, self.high


class GainKey(Schema):
    """Measure and slice of a gain, and the two methods."""

    negatives: str
    slice: str
    method: str
    against: str
    measure: Literal["gauc", "uauc"]


class CatalogueKey(Schema):
    """The fields of `GainKey` in the order in which gains over the catalogue are written."""

    negatives: str
    slice: str
    measure: Literal["recall"]
    method: str
    against: str


class Gain(Estimate, GainKey):
    """A method's figure minus another's, on a slice of the test rows."""


class CatalogueGain(Estimate, CatalogueKey):
    """A method's recall over the whole catalogue minus another's."""


class Answered(GainKey):
    """A question, the methods compared, and its answer.

    word: yes or no where the difference is above or below zero at 5 % after Holm's correction over all
    questions, else unclear.
    """

    question: str
    word: Literal["yes", "no", "unclear"]


class CatalogueFigures(Schema):
    """Recall and NDCG of a method over the whole catalogue, at 10; absent where no user has such an item."""

    method: str
    recall: Share | None = None
    ndcg: Share | None = None
    cold_recall: Annotated[Share | None, Field(alias="recall of cold items")] = None
    cold_ndcg: Annotated[Share | None, Field(alias="ndcg of cold items")] = None

    def figures(self) -> dict[str, float | None]:
        """The figures that were measured, by the name in the file."""
        fields = type(self).model_fields
        names = {name: fields[name].alias or name for name in fields if name != "method"}
        return {alias: getattr(self, name) for name, alias in names.items() if name in self.model_fields_set}


class RetrievalMeans(Schema):
    """Figures of a retrieval arm over the whole catalogue by name, means over users and then seeds."""

    method: str
    figures: dict[str, Share]


class RetrievalKey(Schema):
    """The first fields of a gain of retrieval arms."""

    figure: str
    method: str
    against: str


class RetrievalGain(Estimate, RetrievalKey):
    """A retrieval arm's figure minus another's."""


class ComparedRetrieval(Schema):
    """Retrieval arms, where `compare.retrieval` is on; the user's own items are left out of lists."""

    means: list[RetrievalMeans]
    differences: list[RetrievalGain]


class Rung(Schema):
    """One setting of the ranker in one round: epochs allowed, and the validation figure that was reached.

    valid_auc: AUC in the protocol's first edition, GAUC in the second.
    """

    setting: Setting
    epochs: Count
    valid_auc: Share


class Searched(Schema):
    """`compare/search.json`, `compare/search/<family>.json`: successive halving of ranker settings.

    variant_epochs: epochs trained in all; variants: those that were trained.
    """

    grid: dict[str, list[int | float]]
    chosen: Setting
    variant_epochs: Count
    rounds: list[list[Rung]]
    variants: list[str] = Field(default=[])

    @property
    def edges(self) -> list[str]:
        """Settings whose chosen value lies on an edge of the grid, so that a better one may lie beyond."""
        values = {name: self.grid[name] for name in self.chosen if len(self.grid.get(name, [])) > 1}
        return [name for name, row in values.items() if self.chosen[name] in (min(row), max(row))]


class Compared(Schema):
    """`compare/results.json`; docs/protocol.md says how it comes about.

    primary: of the two variants of `compare.primary`, in GAUC over all items; holm: by difference in GAUC
    over all items, whether it is significant at 5 % after Holm's correction; search: where one was made for
    all variants; searches: by family of variants. edition: of the protocol. answers: to its questions.
    anchors_ahead: anchors minus a variant on warm items, where the interval lies above zero. left_out:
    anchors that were not run, with the reason.
    """

    seeds: list[int]
    catalogue: list[CatalogueFigures]
    means: list[Means]
    differences: list[Gain | CatalogueGain]
    primary: Gain | None
    holm: dict[str, bool]
    search: Searched | None = None
    searches: dict[str, Searched] = Field(default={})
    edition: Count = 1
    answers: list[Answered] = Field(default=[])
    anchors_ahead: list[Gain] = Field(default=[])
    left_out: list[str] = Field(default=[])
    retrieval: ComparedRetrieval | None = None


class FileHashes(Schema):
    """`compare/hashes.json`: SHA-256 of each file that was written; `sha256`: of the rest of this one."""

    files: dict[str, str]
    sha256: str
