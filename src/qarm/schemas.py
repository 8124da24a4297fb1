"""The shape of every JSON file in a run folder; unknown fields are faults, so that no figure hides."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["SCHEMAS", "Check", "CodeQuality", "Manifest", "Results", "Summary"]

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


class Check(Shape):
    """`check/check.json`; bad media by item id, with the reason."""

    items: Count
    users: Count
    interactions: Count
    unknown_interactions: Count
    bad_images: dict[str, str]
    bad_sounds: dict[str, str]


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


class Row(Shape):
    variant: str
    seed: int
    slice: str
    auc: Share | None
    uauc: Share | None
    gauc: Share | None
    logloss: Annotated[float, Field(ge=0.0)] | None
    rows: Count
    users: Count


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


SCHEMAS: dict[str, type[Shape]] = {
    "check/check.json": Check,
    "codes/quality.json": CodeQuality,
    "recommender/results.json": Results,
    "report/summary.json": Summary,
}
