"""What is said of vectors before and after alignment."""

from typing import Annotated

from pydantic import Field

from qarm.schemas.base import Count, Schema, Share

__all__ = ["EmbeddingQuality", "Neighbours"]


class Slice(Schema):
    clicks: Count
    users: Count


class HitRate(Schema):
    method: str
    slice: str
    hit_rate: dict[str, Share | None]


class HitDifference(Schema):
    method: str
    against: str
    slice: str
    cutoff: str
    difference: float | None
    difference_interval: list[float] | None
    ratio: float | None
    ratio_interval: list[float] | None


class PairRecall(Schema):
    count: Count
    recall: dict[str, dict[str, Share | None]]


class Geometry(Schema):
    alignment: Annotated[float, Field(ge=0.0)] | None
    uniformity: float | None


class EmbeddingQuality(Schema):
    """`embeddings/quality.json`; fields as in `embedding_quality`."""

    users: Count
    clicks: Count
    items: Count
    queries: Count
    each: Count
    cutoffs: dict[str, Count]
    slices: dict[str, Slice]
    hit_rates: list[HitRate]
    differences: list[HitDifference]
    pairs: PairRecall
    geometry: dict[str, Geometry]


class NearItem(Schema):
    item: str
    raw: list[str]
    aligned: list[str]


class Card(Schema):
    title: str | None
    picture: str | None


class Neighbours(Schema):
    """`embeddings/neighbours.json`; fields as in `neighbour_examples.neighbours`."""

    items: list[NearItem]
    cards: dict[str, Card]
