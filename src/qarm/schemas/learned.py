"""Pairs, encoder and codes: what is said of everything that is learned before the ranker."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from qarm.schemas.base import Count, Schema, Share

__all__ = ["AlignStep", "Churn", "CodeQuality", "EncoderCard", "PairQuality", "Profile", "Saved"]


class Range(Schema):
    min: float
    median: float
    max: float


class Spread(Schema):
    mean: float
    max: Count


class PairLift(Schema):
    users_per_pair: float
    users_per_random_pair: float
    users_per_matched_pair: float
    lift: float | None
    lift_interval: list[float] | None
    matched_lift: float | None
    matched_lift_interval: list[float] | None


class PairCategory(Schema):
    same: Share | None
    random: Share | None
    known: Share


class PairSource(Schema):
    pairs: Count
    items: Count
    items_share: Share
    users_share: Share
    score: Range
    count: Spread
    per_item: Spread
    lift: PairLift | None = None
    category: PairCategory | None = None


class PairOverlap(Schema):
    pairs: Count
    share: dict[str, Share]


class PairQuality(Schema):
    """`pairs/quality.json`; `qarm.pairs.quality.pair_quality` says what each field means."""

    pairs: Count
    items: Count
    users: Count
    sources: dict[str, PairSource]
    per_item: Spread
    overlap: PairOverlap
    popularity: list[dict[str, float]]
    rejected: dict[str, dict[str, Count]] | None = None


class AlignFigures(Schema):
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


class Tower(Schema):
    kind: str
    name: str
    fingerprint: str
    shape: list[Count]
    tuned: bool


class HeadsSettings(Schema):
    dim: Count
    hidden: Count
    dropout: Share
    fusion: str
    anchor: float


class EncoderCard(Schema):
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


class Level(Schema):
    level: Count
    width: Count
    used: Count
    dead: Count
    utilisation: Share
    entropy: Annotated[float, Field(ge=0.0)]
    perplexity: Annotated[float, Field(ge=1.0)]
    gini: Share
    energy_left: Annotated[float, Field(ge=0.0)]


class ItemsPerCode(Schema):
    mean: float
    max: Count
    histogram: dict[str, Count]


class FullCodes(Schema):
    distinct: Count
    collision_rate: Share
    items_per_code: ItemsPerCode


class Overlap(Schema):
    mean: Share
    low: float
    high: float
    queries: Count


class Agreement(Schema):
    levels: Count
    share: Share
    chance: Share


class PairAgreement(Schema):
    used: Count
    skipped: Count
    agreement: list[Agreement]


class CodeQuality(Schema):
    """`codes/quality.json`; `qarm.quantizer.evaluation.quality.code_quality` says what each field means."""

    items: Count
    levels: list[Level]
    full_codes: FullCodes
    neighbour_overlap_at_10: Overlap | None
    pairs: PairAgreement | None = None


class ProfileLevel(Schema):
    counts: list[Count]
    energy_left: Annotated[float, Field(ge=0.0)]


class Profile(Schema):
    """`codes/profile.json`: items per code at fit time, which `qarm monitor` compares with."""

    items: Count
    levels: list[ProfileLevel]


class ChurnLevel(Schema):
    level: Count
    changed: Share
    renumbered: Share


class Churn(Schema):
    """`codes/churn.json`; `qarm.quantizer.versions.refit.churn` says what each field means."""

    old: Annotated[Count, Field(alias="from")]
    new: Annotated[Count, Field(alias="to")]
    items: Count
    added: Count
    removed: Count
    levels: list[ChurnLevel]
    full_codes: Share
