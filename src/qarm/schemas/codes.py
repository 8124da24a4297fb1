"""Saved quantisers, code quality, fit-time profile and churn."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from qarm.schemas.base import Count, Schema, Share

__all__ = ["Appended", "Churn", "CodeQuality", "Drift", "Profile", "Refitted", "RolledBack", "Saved"]


class Saved(BaseModel):
    """`config.json` of a saved quantiser; each kind adds settings of its own."""

    model_config = ConfigDict(extra="allow", strict=True)

    kind: str
    dim: Count
    sha256: str


class Usage(Schema):
    """Use of one codebook: codes with and without items, entropy in nats, Gini of the items per code."""

    width: Count
    used: Count
    dead: Count
    utilisation: Share
    entropy: Annotated[float, Field(ge=0.0)]
    perplexity: Annotated[float, Field(ge=1.0)]
    gini: Share


class LevelNumber(Schema):
    """Number of a level, from 1."""

    level: Count


class Level(Usage, LevelNumber):
    """Use of a level's codebook; energy_left: share of the energy that the levels so far leave."""

    energy_left: Annotated[float, Field(ge=0.0)]


class ItemsPerCode(Schema):
    """Items per full code; histogram: number of codes by their number of items."""

    mean: float
    max: Count
    histogram: dict[str, Count]


class FullCodes(Schema):
    """Full codes; collision_rate: share of items that share their full code."""

    distinct: Count
    collision_rate: Share
    items_per_code: ItemsPerCode


class Overlap(Schema):
    """Share of nearest neighbours that stay nearest after decoding, with a 95 % interval over queries."""

    mean: Share
    low: float
    high: float
    queries: Count


class Agreement(Schema):
    """Share of pairs that agree on the first levels; chance: of targets dealt out at random."""

    levels: Count
    share: Share
    chance: Share


class PairAgreement(Schema):
    """Agreement of pairs; skipped: pairs with an item without codes, or of an item with itself."""

    used: Count
    skipped: Count
    agreement: list[Agreement]


class CodeQuality(Schema):
    """`codes/quality.json`; fields as in `qarm.quantizer.evaluation.quality.code_quality`."""

    items: Count
    levels: list[Level]
    full_codes: FullCodes
    neighbour_overlap_at_10: Overlap | None
    pairs: PairAgreement | None = None


class ProfileLevel(Schema):
    """Items of each code of a level, and the energy that the levels so far leave."""

    counts: list[Count]
    energy_left: Annotated[float, Field(ge=0.0)]


class Profile(Schema):
    """`codes/profile.json`: items per code at fit time, which `qarm monitor` compares with."""

    items: Count
    levels: list[ProfileLevel]


class DriftLevel(Schema):
    """Drift of a level; fields as in `qarm.quantizer.versions.drift.monitor`."""

    level: Count
    stability_index: float
    chance: float
    stability_excess: float
    energy_left: float
    energy_left_at_fit: float
    energy_ratio: float
    hottest: Share
    hottest_code: Count
    hottest_at_fit: Share
    hottest_ratio: float


class Drift(Schema):
    """Drift of new items since fit time; exceeded: a sentence for each threshold that is exceeded."""

    items: Count
    items_at_fit: Count
    levels: list[DriftLevel]
    exceeded: list[str]


class ChurnLevel(Schema):
    """Share of items whose code of a level changed, and of those whose code has another number."""

    level: Count
    changed: Share
    renumbered: Share


class Churn(Schema):
    """`codes/churn.json`; fields as in `qarm.quantizer.versions.refit.churn`; request: id of the refit."""

    old: Annotated[Count, Field(alias="from")]
    new: Annotated[Count, Field(alias="to")]
    items: Count
    added: Count
    removed: Count
    levels: list[ChurnLevel]
    full_codes: Share
    request: str | None = None


class Appended(Schema):
    """Result of an append: items with codes, and how many this request added, now or (`repeated`) before."""

    items: Count
    appended: Count
    repeated: bool = False


class Refitted(Schema):
    """Result of a refit: the version, its items, and the share of items with another full code than before.

    repeated: the same request had made that version before.
    """

    version: Count
    items: Count
    changed: Share
    repeated: bool = False


class RolledBack(Schema):
    """Result of a rollback: the current version, all that there are, and items without a code in it."""

    version: Count
    versions: list[Count]
    without_codes: Count | None = None
