"""Request and answer models of the service, as OpenAPI shows them."""

import base64
import binascii
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

__all__ = [
    "BundleList",
    "BundleName",
    "CodedItem",
    "CodesAnswer",
    "Deletion",
    "ItemAnswer",
    "ItemBatch",
    "ItemList",
    "Listed",
    "Neighbour",
    "NewItem",
    "Prefix",
    "PrefixAnswer",
    "ProblemDocument",
    "RankerAnswer",
    "RecommendAnswer",
    "RecommendRequest",
    "Recommended",
    "ScoreAnswer",
    "ScoreRequest",
    "Scored",
    "SimilarAnswer",
    "SimilarItem",
    "Status",
    "UserFeature",
]


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64; encode the whole file, without line breaks") from None


File = Annotated[
    bytes, BeforeValidator(_decoded), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]
ItemId = Annotated[str, Field(min_length=1, examples=["n00001"])]
RQ = Annotated[list[int], Field(description="a code per level, coarse to fine", examples=[[60, 6, 48]])]
VQ = Annotated[
    list[int] | None,
    Field(description="pool ids of the nearest items, as in pool.parquet", examples=[[568, 179, 715]]),
]
Version = Annotated[int, Field(description="of the codebooks", examples=[1])]
BundleVersion = Annotated[str, Field(description="which bundle answered", examples=["3f1c0a9be2"])]


Attribute = str | float | int | bool | list[str | float | int | bool] | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class NewItem(_Strict):
    """An item to code. With an id it is stored; what stands in `text` are the fields of the run's config."""

    item_id: ItemId | None = None
    text: Annotated[
        dict[str, str | None],
        Field(examples=[{"title": "Kestrel scarf", "description": "Soft, with a comet."}]),
    ] = {}
    image: Annotated[File | None, Field(description="a picture, the whole file")] = None
    audio: Annotated[File | None, Field(description="a sound, the whole file")] = None
    attributes: Annotated[dict[str, Attribute], Field(description="of `data.items.attributes`")] = {}
    vectors: Annotated[dict[str, list[float]], Field(description="of `data.items.vectors`")] = {}


class ItemBatch(_Strict):
    """Several items to code."""

    items: Annotated[list[NewItem], Field(min_length=1)]


class CodedItem(BaseModel):
    """Codes and vector of an item of the request."""

    item_id: ItemId | None
    rq: RQ
    vq: VQ
    code: Annotated[
        str, Field(description="rq in one word, as in GET /v1/codes/{prefix}", examples=["60-6-48"])
    ]
    vector: Annotated[list[float], Field(description="aligned, of unit length")]
    stored: Annotated[bool, Field(description="it is on the disk, and will not change")]


class CodesAnswer(BaseModel):
    """Codes of the request's items, in its order."""

    bundle: BundleVersion
    version: Version
    items: list[CodedItem]


class Neighbour(BaseModel):
    """A published item, and the cosine of its vector to the item's."""

    item_id: ItemId
    cosine: float


class Deletion(BaseModel):
    """Rows of an item that were removed from the store."""

    item_id: ItemId
    deleted: int


class ItemAnswer(BaseModel):
    """An item: its codes and its neighbours."""

    item_id: ItemId
    bundle: BundleVersion
    version: Version
    published: Annotated[bool, Field(description="part of the bundle; else appended by POST /v1/codes")]
    rq: RQ
    vq: VQ
    code: str
    facts: dict[str, str | None]
    nearest: Annotated[list[Neighbour], Field(description="published items, nearest first")]


class Listed(BaseModel):
    """An item of a page: id and title."""

    item_id: ItemId
    title: str


class ItemList(BaseModel):
    """A page of items."""

    total: int
    items: list[Listed]
    next: Annotated[int | None, Field(description="offset of the next page")]


class PrefixAnswer(BaseModel):
    """A page of the items under a code prefix."""

    prefix: RQ
    bundle: BundleVersion
    total: int
    items: Annotated[list[str], Field(description="published ones by code, then appended ones as they came")]
    next: Annotated[int | None, Field(description="offset of the next page")]


class ScoreRequest(_Strict):
    """What a user did, oldest first, and what might be shown next."""

    history: Annotated[list[ItemId], Field(examples=[["i00001", "i00002"]])] = []
    candidates: Annotated[list[ItemId], Field(min_length=1, examples=[["i00003", "i00004"]])]
    gaps: Annotated[
        list[Annotated[int, Field(ge=0, le=2**62)]] | None,
        Field(description="time since each event of the history, for a ranker that reads it"),
    ] = None
    user: Annotated[
        dict[str, str | bool | int | None],
        Field(description="values of the user's features by name; one that is left out counts as unknown"),
    ] = {}
    label: Annotated[
        str | None, Field(description="an auxiliary label to score; null: the one that decides the ranking")
    ] = None


class Scored(BaseModel):
    """A candidate and its score."""

    item_id: ItemId
    score: Annotated[float, Field(description="the ranker's logit")]
    cold: Annotated[bool, Field(description="the ranker saw no training event of it; its codes decide")]


class ScoreAnswer(BaseModel):
    """Scores of the candidates."""

    bundle: BundleVersion
    items: Annotated[list[Scored], Field(description="in the order of the candidates")]
    unknown_user_features: Annotated[
        list[str], Field(description="left out, or with a value that no user of the training had")
    ] = []


class UserFeature(BaseModel):
    """A feature of users; total: number of its values, of which `values` has the first."""

    name: str
    values: list[str]
    total: int


class RankerAnswer(BaseModel):
    """What the bundle's ranker reads of a request."""

    bundle: BundleVersion
    variant: Annotated[str, Field(description="its item features", examples=["id+rq+vq"])]
    items: Annotated[int, Field(description="that it was trained with")]
    new_items: Annotated[bool, Field(description="whether it scores items by codes that came later")]
    history: Annotated[int, Field(description="latest events that attention reads")]
    long_history: Annotated[int | None, Field(description="latest events that the search by code reads")]
    gaps: Annotated[bool, Field(description="whether it reads, and needs, `gaps`")]
    labels: Annotated[list[str], Field(description="auxiliary labels that may be scored")]
    user_features: list[UserFeature]


class RecommendRequest(_Strict):
    """A user whose history the bundle holds, or a history, oldest first: one of the two."""

    user: Annotated[str | None, Field(min_length=1, max_length=1000, examples=["u00001"])] = None
    history: Annotated[list[ItemId] | None, Field(examples=[["i00001", "i00002"]])] = None
    k: Annotated[int, Field(ge=1, description="items of the list")] = 10
    only: Annotated[list[ItemId] | None, Field(description="items that may be recommended; null: all")] = None
    without: Annotated[list[ItemId], Field(description="items that may not be recommended")] = []
    exclude_seen: Annotated[bool, Field(description="leave out the items of the history")] = True

    @model_validator(mode="after")
    def _one_of_two(self) -> "RecommendRequest":
        if (self.user is None) == (self.history is None):
            raise ValueError("give user or history, one of the two; history may be empty")
        return self


class Recommended(BaseModel):
    """An item of a list."""

    rank: Annotated[int, Field(description="from 1")]
    item_id: ItemId
    score: Annotated[float, Field(description="deviations above the catalogue's mean, of the blend")]
    why: Annotated[str, Field(description="the retriever that gave most", examples=["model"])]
    because: Annotated[str | None, Field(description="item of the history that spoke most for it there")]


class RecommendAnswer(BaseModel):
    """Recommended items, best first; fewer than asked for where no more may be recommended."""

    bundle: BundleVersion
    user: str | None
    items: list[Recommended]
    unknown_items: Annotated[int, Field(description="events of the history on unknown items, left out")]
    popular: Annotated[bool, Field(description="the popular items of late, for want of any history")]
    notes: Annotated[list[str], Field(examples=[["unknown user: popular items of late"]])]


class SimilarItem(BaseModel):
    """An item, and the cosine of its vector in the retriever to the other's."""

    item_id: ItemId
    cosine: float


class SimilarAnswer(BaseModel):
    """Items whose vectors in the retriever are nearest to an item's, nearest first."""

    bundle: BundleVersion
    item_id: ItemId
    items: list[SimilarItem]


class BundleName(_Strict):
    """Name of a bundle."""

    name: Annotated[str, Field(min_length=1, examples=["2024-06-01"])]


class BundleList(BaseModel):
    """Bundles that the service knows, and the one in use."""

    current: str
    bundle: BundleVersion
    previous: str | None
    names: list[str]


class Status(BaseModel):
    """State of the service."""

    status: str


class ProblemDocument(BaseModel):
    """RFC 9457."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str


Prefix = Annotated[str, Field(pattern=r"^[0-9]{1,9}(-[0-9]{1,9})*$", max_length=200, examples=["60-6"])]
