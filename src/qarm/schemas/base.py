"""What every schema shares, and the files that every stage writes."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Check", "Count", "Manifest", "Schema", "Share", "Timing"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Manifest(Schema):
    """`manifest.json` of every stage: what it was made from and the hash of each file it left.

    sha256: of all the rest, so that a change by hand shows.
    """

    stage: str
    version: str
    inputs: dict[str, str]
    config: dict[str, Any]
    rows: dict[str, Any]
    outputs: dict[str, str]
    sha256: str


class Timing(Schema):
    """`timing.json` of every stage, outside every hash; Unix time and seconds."""

    started: float
    seconds: float


class Check(Schema):
    """`check/check.json`; bad media by item id, with the reason."""

    items: Count
    users: Count
    interactions: Count
    unknown_interactions: Count
    bad_images: dict[str, str]
    bad_sounds: dict[str, str]
