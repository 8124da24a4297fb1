"""Config of the retriever: item fields, history reader, training, and the parts of the blend."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qarm.config.tables import Count, Positive, Section, Share

__all__ = ["RETRIEVERS", "Retriever", "RetrieverConfig"]

Retriever = Literal["model", "sequential-knn", "item-knn", "content-knn", "popularity"]
RETRIEVERS: tuple[Retriever, ...] = ("model", "sequential-knn", "item-knn", "content-knn", "popularity")
ItemField = Literal["id", "rq", "vq", "attributes", "vector"]


class RetrieverConfig(Section):
    """Retrieval over the whole catalogue: a sequence model on item fields, blended with counting.

    An item's vector is the sum of its `fields`; `reader` combines the history's; see docs/retrieval.md.
    """

    fields: list[ItemField] = Field(default=["id", "rq", "vq"], min_length=1)  # of an item; summed
    # how a history is read: learned weights by lag and one feed-forward layer, or causal self-attention
    reader: Literal["pool", "attention"] = "pool"
    dim: Count = 64  # numbers per item vector
    history: Count = 50  # latest events that are read
    lags: Count = 4  # learned weightings of `pool`
    blocks: Count = 1  # of attention
    heads: Count = 1  # of attention
    similarity: Literal["cosine", "dot"] = "cosine"  # of history and candidate
    temperature: Positive = 0.07  # divides a cosine before the softmax
    negatives: Annotated[int, Field(ge=0)] = 512  # items drawn per step, beside the batch's; 0: all items
    # factor of log(probability of being a candidate), subtracted from logits; less favours popular items
    log_q: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    dropout: Share = 0.2  # of item vectors in histories, and inside the reader
    id_dropout: Share = 0.2  # share of the items that an epoch treats as cold
    shrinkage: Annotated[float, Field(ge=0.0)] = 0.0  # s: an id embedding counts clicks / (clicks + s)
    batch: Count = 2048  # events per step
    epochs: Count = 8  # passes over the users, each repeated where that makes fewer than `min_steps`
    min_steps: Count = 400  # fewest steps of all epochs
    patience: Count = 3  # epochs without a better validation NDCG@10 before training stops
    lr: Positive = 4e-3  # step size of AdamW, with cosine decay
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01  # of AdamW
    blend: list[Retriever] = Field(default=list(RETRIEVERS), min_length=1)  # parts of the blend
    # share of the items that validation treats as cold, to choose weights and intercept; 0: one training only
    cold_items: Share = 0.05
    cold_cost: Share = 0.01  # share of the recall that the cold intercept may cost
    recent: Share = 0.1  # share of the latest events that make the list of popular items

    @model_validator(mode="after")
    def _no_duplicates(self) -> "RetrieverConfig":
        for name, values in (("fields", self.fields), ("blend", self.blend)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {values} holds one twice; remove it")
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is no multiple of heads={self.heads}")
        return self
