"""Pairs, encoder and codes: what is said of everything that is learned before the ranker."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from qarm.schemas.shape import Count, Shape, Share

__all__ = ["AlignStep", "Churn", "CodeQuality", "EncoderCard", "PairQuality", "Profile", "Saved"]


class Range(Shape):
    min: float
    median: float
    max: float


class Spread(Shape):
    mean: float
    max: Count


class PairLift(Shape):
    users_per_pair: float
    users_per_random_pair: float
    users_per_matched_pair: float
    lift: float | None
    lift_interval: list[float] | None
    matched_lift: float | None
    matched_lift_interval: list[float] | None


class PairCategory(Shape):
    same: Share | None
    random: Share | None
    known: Share


class PairSource(Shape):
    pairs: Count
    items: Count
    items_share: Share
    users_share: Share
    score: Range
    count: Spread
    per_item: Spread
    lift: PairLift | None = None
    category: PairCategory | None = None


class PairOverlap(Shape):
    pairs: Count
    share: dict[str, Share]


class PairQuality(Shape):
    """`pairs/quality.json`; `qarm.pairs.quality.pair_quality` says what each field means."""

    pairs: Count
    items: Count
    users: Count
    sources: dict[str, PairSource]
    per_item: Spread
    overlap: PairOverlap
    popularity: list[dict[str, float]]
    rejected: dict[str, dict[str, Count]] | None = None


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
    tuned: bool


class HeadsSettings(Shape):
    dim: Count
    hidden: Count
    dropout: Share
    fusion: str
    anchor: float


class EncoderCard(Shape):
    """`encoder/config.json`: the trained heads and the towers below them."""

    format: str
    qarm: str
    heads: HeadsSettings
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
    """`codes/quality.json`; `qarm.quantizer.evaluation.quality.code_quality` says what each field means."""

    items: Count
    levels: list[Level]
    full_codes: FullCodes
    neighbour_overlap_at_10: Overlap | None
    pairs: PairAgreement | None = None


class ProfileLevel(Shape):
    counts: list[Count]
    energy_left: Annotated[float, Field(ge=0.0)]


class Profile(Shape):
    """`codes/profile.json`: items per code at fit time, which `qarm monitor` compares with."""

    items: Count
    levels: list[ProfileLevel]


class ChurnLevel(Shape):
    level: Count
    changed: Share
    renumbered: Share


class Churn(Shape):
    """`codes/churn.json`; `qarm.quantizer.versions.refit.churn` says what each field means."""

    old: Annotated[Count, Field(alias="from")]
    new: Annotated[Count, Field(alias="to")]
    items: Count
    added: Count
    removed: Count
    levels: list[ChurnLevel]
    full_codes: Share
