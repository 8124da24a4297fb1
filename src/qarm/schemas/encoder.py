"""Alignment metrics, the config of a saved encoder, and the quality of its vectors."""

from typing import Annotated, Literal

from pydantic import Field

from qarm.schemas.base import Count, Schema, Share

__all__ = [
    "AlignStep",
    "AlignSummary",
    "AttributesSettings",
    "EmbeddingQuality",
    "EncoderCard",
    "Neighbours",
    "Pooling",
    "TowerOptions",
    "VectorSettings",
]

Pooling = Literal["auto", "pooler", "cls", "mean"]


class AlignFigures(Schema):
    """Loss and temperature, and loss and recall at 10 on held-out pairs; raw_recall: before training."""

    loss: float | None
    temperature: float
    valid_loss: float | None
    valid_recall: Annotated[Share | None, Field(alias="valid_recall@10")]
    raw_recall: Annotated[Share | None, Field(alias="raw_recall@10")] = None


class AlignStep(AlignFigures):
    """A line of `encoder/metrics.jsonl`: before training, then one per epoch; loss in nats."""

    step: Count


class AlignSize(Schema):
    """Pairs and steps of an alignment."""

    pairs: Count
    steps: Count


class AlignSummary(AlignFigures, AlignSize):
    """Size of an alignment, and its figures at the end."""


class TowerOptions(Schema):
    """What changes a checkpoint's vectors: name of a prompt ("": none), their length, the pooling."""

    prompt: str | None = None
    truncate_dim: int | None = None
    pooling: Pooling | None = None

    def fixed(self) -> "TowerOptions":
        """The same for a copy of the checkpoint: no prompt stays no prompt."""
        return self.model_copy(update={"prompt": self.prompt or ""})


class AttributesSettings(Schema):
    """Settings of an attributes tower; numbers: quantiles by name, in rising order."""

    revision: Count
    categories: list[str]
    numbers: dict[str, list[float]]


class VectorSettings(Schema):
    """Settings of a tower of given vectors; width: numbers of each."""

    revision: Count
    name: str
    width: Count


class Tower(Schema):
    """A tower of a saved encoder; shape: of one item's feature; tuned: whether its weights were trained.

    options: None where the checkpoint has no other than its plain vectors.
    """

    kind: str
    name: str
    fingerprint: str
    shape: list[Count]
    tuned: bool
    options: Annotated[TowerOptions | None, Field(exclude_if=lambda value: value is None)] = None


class HeadsSettings(Schema):
    """Settings of the heads over the towers."""

    dim: Count
    hidden: Count
    dropout: Share
    fusion: str
    anchor: float


class ColdItems(Schema):
    """Anchor of items without a training pair; trained_sha256: of the file of the others' ids."""

    anchor: float
    trained_sha256: str


class EncoderCard(Schema):
    """`encoder/config.json`: the trained heads and the towers below them.

    cold: how items without a training pair are treated; None: as the others.
    """

    format: str
    qarm: str
    heads: HeadsSettings
    towers: dict[str, Tower]
    summary: AlignSummary | None
    weights_sha256: str
    cold: Annotated[ColdItems | None, Field(exclude_if=lambda value: value is None)] = None


class Slice(Schema):
    """Later clicks of a slice, and the users who made them."""

    clicks: Count
    users: Count


class HitRate(Schema):
    """Hit rates of a method on a slice, by cut-off."""

    method: str
    slice: str
    hit_rate: dict[str, Share | None]


class HitDifference(Schema):
    """Difference and ratio of the hit rates of two methods, with 95 % intervals over users."""

    method: str
    against: str
    slice: str
    cutoff: str
    difference: float | None
    difference_interval: list[float] | None
    ratio: float | None
    ratio_interval: list[float] | None


class PairRecall(Schema):
    """Held-out pairs, and by method and cut-off the share whose target is near the trigger."""

    count: Count
    recall: dict[str, dict[str, Share | None]]


class Geometry(Schema):
    """Alignment and uniformity (Wang and Isola, 2020)."""

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
    """An item and its nearest items before and after alignment."""

    item: str
    raw: list[str]
    aligned: list[str]


class Card(Schema):
    """Title and small picture of an item."""

    title: str | None
    picture: str | None


class Neighbours(Schema):
    """`embeddings/neighbours.json`; fields as in `neighbour_examples.neighbours`."""

    items: list[NearItem]
    cards: dict[str, Card]
