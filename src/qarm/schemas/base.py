"""Base class of all schemas, and the files that every stage writes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

__all__ = ["FORMAT", "Check", "Count", "Figure", "Manifest", "Schema", "Settings", "Share", "Timing"]

FORMAT = 2  # of manifests and saved settings; qarm.core.formats reads older ones
Settings = dict[str, JsonValue]  # sections of a config as JSON
Figure = int | float | str | list[int] | None  # a row count, or a figure that a stage reports

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


class Schema(BaseModel):
    """A JSON file, or a part of one; other fields than the named ones are faults."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_by_name=True, validate_by_alias=True)

    def content(self) -> Settings:
        """JSON content: the fields that were set, in the order of the schema."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Manifest(Schema):
    """`manifest.json` of every stage: hashes of its inputs, its settings, and the hash of each file it left.

    format: see `qarm.core.formats`; rows: row counts and figures; version: of qarm; sha256: of all the rest,
    so that a change by hand shows.
    """

    format: int
    stage: str
    rows: dict[str, Figure]
    outputs: dict[str, str]
    inputs: dict[str, str]
    config: Settings
    version: str
    sha256: str


class Timing(Schema):
    """`timing.json` of every stage, outside the manifest's hashes; Unix time and seconds.

    valid_from: since when the content is valid, where that is not when it was finished: after a rollback,
    after an append, or where the clock went back; appended: since when the items of a request to append are,
    by its id; sha256: of all the rest.
    """

    started: float
    seconds: float
    valid_from: float | None = None
    appended: dict[str, float] | None = None
    sha256: str | None = None


class Check(Schema):
    """`check/check.json`; bad media by item id, with the reason.

    bad_numbers: from 0, which pictures are unreadable, of items that have several; None where none are.
    """

    items: Count
    users: Count
    interactions: Count
    unknown_interactions: Count
    bad_images: dict[str, str]
    bad_sounds: dict[str, str]
    bad_numbers: dict[str, list[int]] | None = None
