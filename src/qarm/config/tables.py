"""Config of the input: tables of items, interactions and users, and the split of the interactions."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "Count",
    "Data",
    "InteractionsTable",
    "ItemsTable",
    "Positive",
    "Section",
    "Seed",
    "Share",
    "SplitConfig",
    "UsersTable",
]

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0.0)]


class Section(BaseModel):
    """A section of the config; frozen, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ItemsTable(Section):
    """The catalogue's table: its path and its columns."""

    path: Path = Path("items.parquet")  # Parquet, CSV or JSON Lines
    id: str = "item_id"  # column of item ids, text or integers
    text: list[str] = ["title", "description"]  # columns joined, in this order, to the item's text
    # column of paths inside the table's folder, or of file contents; null: no pictures
    image: str | None = "image_path"
    audio: str | None = "audio_path"  # the same for sounds


class InteractionsTable(Section):
    """The interactions' table: its path and its columns; `order` may replace `time`; `where` selects rows.

    `label` decides early stopping and ranking. `labels` names the columns of auxiliary labels (0, 1, or null
    where unknown), `{like: liked}`; the ranker has one more output layer for each.
    """

    path: Path = Path("interactions.parquet")  # Parquet, CSV or JSON Lines
    user: str = "user_id"  # column of user ids
    item: str = "item_id"  # column of item ids, spelt as in the items' table
    time: str = "timestamp"  # column of whole numbers, dates or date-times
    order: str | None = None  # column that replaces `time` where only the order is known; larger is later
    label: str | None = None  # column of 1 (positive) and 0; null: every event is positive
    labels: dict[str, str] = {}  # columns of auxiliary labels by name; 0, 1 or null
    where: dict[str, bool | int | float | str] = {}  # keep only rows whose columns equal these values
    # largest accepted share of events on items that the catalogue lacks; these events are dropped
    max_unknown: Share = 0.05


class UsersTable(Section):
    """The users' table: its path, its ids and its categorical features; by default none are read."""

    path: Path = Path("users.parquet")  # Parquet, CSV or JSON Lines
    id: str = "user_id"  # column of user ids
    features: list[str] = []  # categorical columns that the ranker reads


class Data(Section):
    """Relative paths of tables resolve against `root`, paths of media against the folder of their table."""

    root: Path = Path()  # folder of the tables; a relative one resolves against the working directory
    items: ItemsTable = ItemsTable()
    interactions: InteractionsTable = InteractionsTable()
    users: UsersTable = UsersTable()


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
