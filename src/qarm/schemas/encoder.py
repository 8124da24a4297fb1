"""Alignment metrics, and the config of a saved encoder."""

from typing import Annotated

from pydantic import Field

from qarm.schemas.base import Count, Schema, Share

__all__ = ["AlignStep", "AlignSummary", "EncoderCard", "HeadsSettings", "Tower"]


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
