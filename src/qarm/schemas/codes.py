"""Saved quantisers, code quality, fit-time profile and churn."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from qarm.schemas.base import Count, Schema, Share

__all__ = ["Churn", "CodeQuality", "Profile", "Saved"]


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
