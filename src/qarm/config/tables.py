"""Config of the input: tables of items, interactions and users, and the split of the interactions."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from qarm.core.paths import as_path
from qarm.core.tables.feature_columns import AttributeKind, is_vector_file, vector_key
from qarm.core.tables.text_templates import text_columns

__all__ = [
    "Condition",
    "Count",
    "Data",
    "InteractionsTable",
    "ItemsTable",
    "Label",
    "LabelRule",
    "Place",
    "Positive",
    "Scalar",
    "Section",
    "Seed",
    "Share",
    "SplitConfig",
    "UsersTable",
    "Wanted",
    "empty",
]

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0.0)]
Place = Annotated[Path, AfterValidator(as_path)]  # `~` is the home folder


class Section(BaseModel):
    """A section of the config; frozen, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def empty(value: object) -> bool:
    """Whether a key says nothing: manifests and bundles of before the key existed lack it."""
    return value is None or value == [] or value == {}


def _as_json(value: object) -> object:
    """YAML's dates as text."""
    if isinstance(value, list):
        return [_as_json(one) for one in value]
    return value.isoformat() if isinstance(value, date) else value


Scalar = bool | int | float | str
Bound = Annotated[int | float | str | None, BeforeValidator(_as_json), Field(exclude_if=empty)]


class Condition(Section):
    """Bounds on a column's values; a row without a value is kept by `not` only."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    at_least: Bound = None  # a number or a date
    at_most: Bound = None  # a number or a date
    # none of these values
    no: Annotated[list[Scalar], BeforeValidator(_as_json), Field(alias="not", exclude_if=empty)] = []

    @model_validator(mode="after")
    def _says_something(self) -> "Condition":
        if empty(self.at_least) and empty(self.at_most) and not self.no:
            raise ValueError("need at_least, at_most or not")
        return self


class LabelRule(Condition):
    """Label from another column: 1 where its value is within the bounds, else 0."""

    column: str


WANTED = "need a value, a list of values, or bounds: {at_least: 4}, {at_most: 9}, {not: [DE]}"
RULE = "need a column of 1 and 0, or a rule: {column: stars, at_least: 4}"


def _wanted(value: object) -> Scalar | list[Scalar] | Condition:
    """One condition of `where`; one problem for a wrong one, whatever the forms that it does not have."""
    plain = _as_json(value)
    if isinstance(plain, Condition | Scalar):
        return plain
    if isinstance(plain, list) and plain and all(isinstance(one, Scalar) for one in plain):
        return plain
    if not isinstance(plain, Mapping):
        raise ValueError(WANTED)
    try:
        return Condition.model_validate(plain)
    except ValidationError:
        raise ValueError(WANTED) from None


def _labelled(value: object) -> str | LabelRule:
    if isinstance(value, str | LabelRule):
        return value
    try:
        return LabelRule.model_validate(value)
    except ValidationError:
        raise ValueError(RULE) from None


Wanted = Annotated[Scalar | list[Scalar] | Condition, BeforeValidator(_wanted)]
Label = Annotated[str | LabelRule, BeforeValidator(_labelled)]


class ItemsTable(Section):
    """The catalogue's table: its path and its columns."""

    path: Place = Path(
        "items.parquet"
    )  # Parquet, CSV, JSON Lines or Arrow; a file, folder, pattern or address
    id: str = "item_id"  # column of item ids, text or integers
    # columns joined, in this order, to the item's text; or templates of them, "{title}. {brand}. {year}"
    text: list[str] = ["title", "description"]
    # column of paths inside the table's folder, file contents, structs of both, or lists; null: no pictures
    image: str | None = "image_path"
    audio: str | None = "audio_path"  # the same for sounds
    # vectors made elsewhere: list columns, or .npy and Parquet files in the table's folder
    vectors: Annotated[list[str], Field(exclude_if=empty)] = []
    # columns of attributes, `{brand: categorical, genres: list, price: number}`
    attributes: Annotated[dict[str, AttributeKind], Field(exclude_if=empty)] = {}

    @property
    def text_columns(self) -> list[str]:
        """Columns of the text, by themselves or in templates."""
        return text_columns(self.text)

    @property
    def content(self) -> dict[str, Any]:
        """What the catalogue is read by: the columns, without the path."""
        return self.model_dump(exclude={"path"})

    @property
    def has_files(self) -> bool:
        """Whether vectors lie in files beside the table, so that its hash does not tell them."""
        return any(is_vector_file(name) for name in self.vectors)

    @model_validator(mode="after")
    def _distinct(self) -> "ItemsTable":
        text_columns(self.text)  # says what is wrong with a template
        keys = [vector_key(name) for name in self.vectors]
        if len(set(keys)) < len(keys):
            raise ValueError(f"vectors = {self.vectors} holds one name twice; rename one of them")
        return self


class InteractionsTable(Section):
    """The interactions' table: its path and its columns; `order` may replace `time`; `where` selects rows.

    `label` decides early stopping and ranking. `labels` names the columns of auxiliary labels (0, 1, or null
    where unknown), `{like: liked}`; the ranker has one more output layer for each.
    """

    path: Place = Path("interactions.parquet")  # as `items.path`
    user: str = "user_id"  # column of user ids
    item: str = "item_id"  # column of item ids, spelt as in the items' table
    time: str = "timestamp"  # column of whole numbers, dates or date-times, also as text
    # form of a text column of times, `%m/%d/%Y`; null: ISO dates, or another form that can be told
    time_format: Annotated[str | None, Field(min_length=2, exclude_if=empty)] = None
    order: str | None = None  # column that replaces `time` where only the order is known; larger is later
    # column of 1 (positive) and 0, or `{column: stars, at_least: 4}`; null: every event is positive
    label: Label | None = None
    labels: dict[str, Label] = {}  # columns of auxiliary labels by name; 0, 1 or null
    # column of positive numbers: what an event counts in the ranker's loss, relative to the others; null: 1
    weight: Annotated[str | None, Field(exclude_if=empty)] = None
    # keep only rows whose columns have this value, one of `[4, 5]`, or are within `{at_least: 1}`
    where: dict[str, Wanted] = {}
    # largest accepted share of events on items that the catalogue lacks; these events are dropped
    max_unknown: Share = 0.05


class UsersTable(Section):
    """The users' table: its path, its ids and its categorical features; by default none are read."""

    path: Place = Path("users.parquet")  # as `items.path`
    id: str = "user_id"  # column of user ids
    features: list[str] = []  # categorical columns that the ranker reads


class Data(Section):
    """Relative paths of tables resolve against `root`, paths of media against the folder of their table."""

    root: Place = Path()  # folder of the tables; a relative one resolves against the working directory
    items: ItemsTable = ItemsTable()
    interactions: InteractionsTable = InteractionsTable()
    users: UsersTable = UsersTable()
    # largest accepted share of pictures, and of sounds, that cannot be read; these are left out
    max_unreadable: Share = 0.05


class SplitConfig(Section):
    """Test and validation events, by `kind`.

    time: latest share of all events; user_tail: latest share of each user's; last_out: the last two of each.
    """

    kind: Literal["time", "user_tail", "last_out"] = "time"  # rule of the split
    test: Share = 0.2  # share of the events; not read by `last_out`
    valid: Share = 0.1  # share of the events, before the test events; not read by `last_out`
    cold_items: Share = 0.0  # share of the training items whose events before the test part are removed

    @model_validator(mode="after")
    def _leaves_training(self) -> "SplitConfig":
        if self.test + self.valid >= 1.0:
            raise ValueError(f"test + valid = {self.test + self.valid:g}, need less than 1")
        return self
