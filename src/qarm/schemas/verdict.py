"""Verdict on a run: judged figures with their gains, likely causes and next commands."""

from typing import Literal

from pydantic import Field

from qarm.schemas.base import Count, Schema

__all__ = ["Finding", "Gain", "Outcome", "Verdict"]

Outcome = Literal["pass", "warn", "fail", "not measured"]


class Gain(Schema):
    """A figure of a method minus that of another on a slice; low, high: 95 %, None without an interval."""

    method: str
    against: str
    slice: str
    metric: str
    mean: float
    low: float | None = None
    high: float | None = None


class Finding(Schema):
    """A judged part of the run.

    figure: what was measured, as a short text; sentence: the same in words; cause: why it is probably no
    pass; command: what to run next, with CONFIG and RUN for the run's own.
    """

    name: str
    outcome: Outcome
    figure: str
    sentence: str
    gains: list[Gain] = Field(default=[])
    cause: str | None = None
    command: str | None = None


class Verdict(Schema):
    """Worst outcome of all findings, in words; seeds: of the ranker, of which one gives no interval."""

    outcome: Outcome
    sentence: str
    seeds: Count
    findings: list[Finding]
    command: str
