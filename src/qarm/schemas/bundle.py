"""Bundles and exported codes: contents, and the hash of every file."""

from typing import Literal

from pydantic import Field

from qarm.schemas.base import Count, Schema, Settings, Share

__all__ = [
    "BundleContent",
    "CodeLayout",
    "Differences",
    "ExportedBundle",
    "ExportedCodes",
    "Level",
    "PortableReport",
    "Sealed",
]


class Sealed(Schema):
    """`manifest.json`; version: SHA-256 over the names and hashes of all other files."""

    kind: Literal["qarm-bundle-1", "qarm-codes-1"]
    version: str
    files: dict[str, str]


class BundleContent(Schema):
    """`bundle.json`; variant: of the ranker, None where there is none; config: the run's, by section.

    retriever: whether it can recommend; users: whose histories it holds, None where it holds none.
    """

    format: int
    qarm: str
    items: Count
    codes_version: Count
    variant: str | None
    media: bool
    config: Settings
    retriever: bool = False
    users: Count | None = None


class ExportedBundle(Schema):
    """What `qarm export` wrote; `..._differs`: with `--portable`, share of items whose full code differs.

    users: whose histories are in it, in `histories_bytes`; None without any.
    """

    version: str
    items: Count
    files: Count
    bytes: Count
    variant: str | None
    users: Count | None = None
    histories_bytes: Count | None = None
    float32_differs: Share | None = None
    bfloat16_differs: Share | None = None
    float16_differs: Share | None = None


class Differences(Schema):
    """Shares of codes that differ from the run's, by level and full; largest: of a vector's entries."""

    levels: list[Share]
    full_codes: Share
    largest_difference: float


class PortableReport(Schema):
    """`portable/report.json`; precisions: float32, bfloat16, float16; modalities: order of the features."""

    items: Count
    modalities: list[str]
    precisions: dict[str, Differences]


class Level(Schema):
    """A level of the RQ code: its width, and where its ids begin among those of all levels."""

    level: Count
    width: Count
    offset: Count


class CodeLayout(Schema):
    """`layout.json` of exported codes; ids: rows of a table over all levels; pool: of one for the VQ code."""

    version: Count
    since: Count | None
    valid_from: str
    levels: list[Level]
    ids: Count
    pool: Count


class ExportedCodes(Schema):
    """What `qarm export-codes` wrote, in rows; seal: the folder's own version, `content` in JSON."""

    version: Count
    since: Count | None
    items: Count
    codes: Count
    removed: Count
    seal: str = Field(alias="content")
