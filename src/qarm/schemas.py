"""The shape of every JSON file that a run writes; unknown fields are faults, so that no figure hides."""

from fnmatch import fnmatch
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["SCHEMAS", "schema_of"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Manifest(Shape):
    """`manifest.json` of every stage: what it was made from and the hash of each file it left."""

    stage: str
    version: str
    inputs: dict[str, str]
    config: dict[str, Any]
    rows: dict[str, Any]
    outputs: dict[str, str]


class Timing(Shape):
    """`timing.json` of every stage, outside every hash; Unix time and seconds."""

    started: float
    seconds: float


class Check(Shape):
    """`check/check.json`; bad media by item id, with the reason."""

    items: Count
    users: Count
    interactions: Count
    unknown_interactions: Count
    bad_images: dict[str, str]
    bad_sounds: dict[str, str]


class Range(Shape):
    min: float
    median: float
    max: float


class Spread(Shape):
    mean: float
    max: Count


class PairSource(Shape):
    pairs: Count
    items: Count
    items_share: Share
    users_share: Share
    score: Range
    count: Spread
    per_item: Spread
    lift: float | None = None


class PairOverlap(Shape):
    pairs: Count
    share: dict[str, Share]


class PairQuality(Shape):
    """`pairs/quality.json`; `qarm.behavior.quality.pair_quality` says what each field means."""

    pairs: Count
    items: Count
    users: Count
    sources: dict[str, PairSource]
    per_item: Spread
    overlap: PairOverlap
    popularity: list[dict[str, float]]


class AlignFigures(Shape):
    loss: float | None
    temperature: float
    valid_loss: float | None
    valid_recall: Annotated[Share | None, Field(alias="valid_recall@10")]
    raw_recall: Annotated[Share | None, Field(alias="raw_recall@10")] = None


class AlignStep(AlignFigures):
    """A line of `encoder/metrics.jsonl`: before training, then one per epoch; loss in nats."""

    step: Count


class AlignSummary(AlignFigures):
    pairs: Count
    steps: Count


class Tower(Shape):
    kind: str
    name: str
    fingerprint: str
    shape: list[Count]


class EncoderCard(Shape):
    """`encoder/config.json`: the trained heads and the frozen towers below them."""

    format: str
    qarm: str
    heads: dict[str, float]
    towers: dict[str, Tower]
    summary: AlignSummary
    weights_sha256: str


class Saved(BaseModel):
    """`config.json` of a saved quantiser; each kind adds settings of its own."""

    model_config = ConfigDict(extra="allow", strict=True)

    kind: str
    dim: Count
    sha256: str


class Level(Shape):
    level: Count
    width: Count
    used: Count
    dead: Count
    utilisation: Share
    entropy: Annotated[float, Field(ge=0.0)]
    perplexity: Annotated[float, Field(ge=1.0)]
    gini: Share
    energy_left: Annotated[float, Field(ge=0.0)]


class ItemsPerCode(Shape):
    mean: float
    max: Count
    histogram: dict[str, Count]


class FullCodes(Shape):
    distinct: Count
    collision_rate: Share
    items_per_code: ItemsPerCode


class Overlap(Shape):
    mean: Share
    low: float
    high: float
    queries: Count


class Agreement(Shape):
    levels: Count
    share: Share
    chance: Share


class PairAgreement(Shape):
    used: Count
    skipped: Count
    agreement: list[Agreement]


class CodeQuality(Shape):
    """`codes/quality.json`; `qarm.quantizer.quality.code_quality` says what each field means."""

    items: Count
    levels: list[Level]
    full_codes: FullCodes
    neighbour_overlap_at_10: Overlap | None
    pairs: PairAgreement | None = None


class Figures(Shape):
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


class Epoch(Shape):
    epoch: Count
    loss: float
    valid_auc: Share | None
    valid_logloss: float | None


class Cell(Shape):
    """`recommender/cells/<variant>-<seed>.json`: one trained ranker; `best` is the epoch that was kept."""

    rows: list[Figures]
    epochs: list[Epoch]
    best: int


class Baselines(Shape):
    """`recommender/cells/baselines.json`; `content-knn` names the rule that validation chose."""

    knn: Annotated[str, Field(alias="content-knn")]
    rows: dict[str, list[Figures]]


class RankerShape(Shape):
    """`recommender/<variant>/config.json`; `qarm.recommender.ranker.Shape` says what each field means."""

    items: Count
    known: Count
    widths: list[Count]
    nearest: Count
    pool: Count
    vector: Count
    dim: Count
    attention: Count
    hidden: list[Count]
    dropout: Share
    id_dropout: Share
    history: Count


class Results(Shape):
    """`recommender/results.json`: a row per variant, seed and slice of the test part."""

    rows: list[Row]


class Mean(Shape):
    variant: str
    slice: str
    seeds: Count
    auc: Share | None
    uauc: Share | None
    gauc: Share | None
    logloss: float | None
    rows: Count
    users: Count


class Difference(Shape):
    variant: str
    against: str
    slice: str
    metric: Literal["auc", "uauc", "gauc", "logloss"]
    seeds: Count
    mean: float | None
    low: float | None
    high: float | None


class Summary(Shape):
    """`report/summary.json`: means over seeds, and paired differences with their interval."""

    against: str
    confidence: Share
    means: list[Mean]
    differences: list[Difference]


SCHEMAS: dict[str, type[BaseModel]] = {
    "*/manifest.json": Manifest,
    "*/timing.json": Timing,
    "check/check.json": Check,
    "pairs/quality.json": PairQuality,
    "encoder/config.json": EncoderCard,
    "encoder/metrics.jsonl": AlignStep,
    "codes/quality.json": CodeQuality,
    "codes/quantizer/config.json": Saved,
    "codes/nearest/config.json": Saved,
    "recommender/results.json": Results,
    "recommender/cells/baselines.json": Baselines,
    "recommender/cells/*.json": Cell,
    "recommender/*/config.json": RankerShape,
    "report/summary.json": Summary,
}


def schema_of(name: str) -> type[BaseModel] | None:
    """The schema of a file, by its path in the run folder; None for files of other projects' formats."""
    return next((schema for pattern, schema in SCHEMAS.items() if fnmatch(name, pattern)), None)
