"""Shape of sequence models, and results of retrieval over the whole catalogue."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from qarm.schemas.base import FORMAT, Count, Schema, Share

__all__ = [
    "BlendShape",
    "CountingSettings",
    "ListFigures",
    "RetrievalFigures",
    "RetrievalResults",
    "RetrieverShape",
    "TrainedEpoch",
]


class RetrieverShape(Schema):
    """`retriever/model/config.json`: what a sequence model is built from.

    items: size of the catalogue; ids: whether items with training events have an embedding of their own;
    widths, nearest, pool: codes per level, length of the VQ list and rows of its table (empty or 0: none);
    attributes: number of attribute values (0: none); vector: length of the fixed vector (0: none); dim: of
    an item's vector; length: latest events that are read; reader: pool (weights by lag) or attention; lags:
    weightings of pool; blocks, heads: of attention; similarity: cosine / temperature, or scalar product.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    items: Count
    ids: bool
    widths: tuple[Count, ...]
    nearest: Count
    pool: Count
    attributes: Count
    vector: Count
    dim: Count
    length: Count
    reader: Literal["pool", "attention"]
    lags: Count
    blocks: Count
    heads: Count
    similarity: Literal["cosine", "dot"]
    temperature: Annotated[float, Field(gt=0.0)]
    dropout: Share


class TrainedEpoch(Schema):
    """Loss of an epoch, and NDCG at 10 over the whole catalogue on validation."""

    epoch: Count
    loss: float
    valid_ndcg: float | None


class CountingSettings(Schema):
    """Settings of the counting retrievers, chosen on validation.

    source_power, target_power: of counts in sequential kNN; the decays: of a history's events by age.
    """

    source_power: float = 0.5
    target_power: float = 0.5
    sequential_decay: Share = 0.7
    item_decay: Share = 1.0
    content_decay: Share = 0.8


class BlendShape(Schema):
    """`retriever/blend.json`: weights of the retrievers, and what cold items get on top."""

    format: int = FORMAT
    weights: dict[str, float]
    intercept: float
    counting: CountingSettings


class RetrievalFigures(Schema):
    """Recall and NDCG of a retriever at a cut, mean over users; None without a user in the slice.

    masked: whether the user's history is left out of the list; slice: all, warm, cold, cold among cold (cold
    targets, in the list of cold items alone), or group-1 (rarest) to group-4 by popularity.
    """

    retriever: str
    slice: str
    masked: bool
    cut: Count
    recall: Share | None
    ndcg: Share | None
    users: Count


class ListFigures(Schema):
    """Masked lists of ten of a retriever: share of the catalogue, Gini coefficient, share of cold items."""

    retriever: str
    coverage: Share
    gini: Share
    cold: Share


class RetrievalResults(Schema):
    """`retriever/results.json`: figures on the test part, and how the blend was chosen on validation."""

    figures: list[RetrievalFigures]
    lists: list[ListFigures]
    blend: BlendShape
    epochs: list[TrainedEpoch]
