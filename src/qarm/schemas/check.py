"""Report of `qarm check`: the content of `check.json`, the log in figures, expected times, warnings."""

from typing import Literal

from qarm.schemas.base import Check, Count, Schema, Share

__all__ = ["Expected", "InputReport", "LogProfile", "PlannedStage", "TablePlaces"]


class LogProfile(Schema):
    """Figures of the log and its split.

    first, last: the range of its times, as dates where they are dates; read_as: how the column of times was
    read; parts: events of training,
    validation and test; cold_items: items of the test part without a training event, cold_share: the share
    of the test events on them; clicks_per_user, clicks_per_item: 10th percentile, median and 90th.
    """

    first: str
    last: str
    read_as: str
    parts: dict[str, Count]
    cold_items: Count
    cold_share: Share
    clicks_per_user: list[float]
    clicks_per_item: list[float]


class TablePlaces(Schema):
    """`tables.json` of a run folder: where its tables were when it last ran; no stage depends on it."""

    items: str
    interactions: str
    users: str | None = None


class Expected(Schema):
    """Seconds of each stage as the sample and the constants of docs/sizing.md tell, and memory in GB."""

    seconds: dict[str, float]
    memory_gb: float


class PlannedStage(Schema):
    """What `qarm run` would do with a stage, why, and the seconds that it is expected to take."""

    stage: str
    state: Literal["fresh", "stale", "missing"]
    reasons: list[str]
    seconds: float | None = None


class InputReport(Check):
    """What `qarm check` prints; texts: of the first items, as the encoder reads them."""

    texts: dict[str, str | None]
    log: LogProfile
    expected: Expected
    warnings: list[str]
