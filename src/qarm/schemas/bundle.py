"""The JSON files of a bundle: what is in it, and the hash of every file."""

from typing import Any, Literal

from qarm.schemas.shape import Count, Shape

__all__ = ["BundleContent", "Sealed"]


class Sealed(Shape):
    """`manifest.json`; version: SHA-256 over the names and hashes of all other files."""

    kind: Literal["qarm-bundle-1"]
    version: str
    files: dict[str, str]


class BundleContent(Shape):
    """`bundle.json`; variant: of the ranker, None where there is none; config: the run's, by section."""

    qarm: str
    items: Count
    codes_version: Count
    variant: str | None
    media: bool
    config: dict[str, Any]
