"""Quality of mined pairs."""

from qarm.schemas.base import Count, Schema, Share

__all__ = ["PairCategory", "PairLift", "PairOverlap", "PairQuality", "PairSource", "Range", "Spread"]


class Range(Schema):
    """Least, median and largest score of the pairs of a source."""

    min: float
    median: float
    max: float


class Spread(Schema):
    """Mean and maximum of a count."""

    mean: float
    max: Count


class PairLift(Schema):
    """Later users who choose both items of a pair, against random and equally popular pairs.

    users_per_...: mean number of later users with both items; lift, matched_lift: the first over the two
    others, None where those are 0; ..._interval: [low, high] of 95 %, None without one.
    """

    users_per_pair: float
    users_per_random_pair: float
    users_per_matched_pair: float
    lift: float | None
    lift_interval: list[float] | None
    matched_lift: float | None
    matched_lift_interval: list[float] | None


class PairCategory(Schema):
    """Share of pairs within one category: of the mined, of all pairs of items; share with both known."""

    same: Share | None
    random: Share | None
    known: Share


class PairSource(Schema):
    """Figures of the pairs of one source; lift and category where they were asked for."""

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
    """Unordered pairs in both sources, and their share of each source."""

    pairs: Count
    share: dict[str, Share]


class PairQuality(Schema):
    """`pairs/quality.json`; fields as in `qarm.pairs.quality.pair_quality`."""

    pairs: Count
    items: Count
    users: Count
    sources: dict[str, PairSource]
    per_item: Spread
    overlap: PairOverlap
    popularity: list[dict[str, Count | float | None]]
    rejected: dict[str, dict[str, Count]] | None = None
