"""Format versions of manifests, saved settings and rankers, with a reader for each older version.

Format 1 left settings out that were added after it, as long as they had their default. Format 2 holds every
setting that there was; one that was added since is read as the value that its absence meant.
"""

import json
from collections.abc import Mapping

from pydantic import JsonValue, TypeAdapter

from qarm.core.atomic_io import digest
from qarm.errors import ArtifactError
from qarm.schemas.base import FORMAT, Settings
from qarm.schemas.results import RankerShape

__all__ = ["comparison_key", "ranker_shape", "settings_from_1", "upgraded"]

SETTINGS: TypeAdapter[Settings] = TypeAdapter(Settings)
# The values that format 1 meant where it said nothing: constants, whatever the defaults are today.
RANKER_ONLY: dict[str, str] = {
    "data.users": '{"path": "users.parquet", "id": "user_id", "features": []}',
    "data.interactions.labels": "{}",
}
UNSAID_IN_1: dict[str, str] = RANKER_ONLY | {
    "ranker.start": '"random"',
    "ranker.prefixes": "0",
    "ranker.nearest_weights": "false",
    "ranker.time": "false",
    "ranker.missing_codes": "0.0",
    "compare.judged_users": "0",
}
LATER: dict[str, str] = {  # settings added to format 2, and what their absence meant
    "compare.edition": "1",
    "compare.tuned": "{}",
    "ranker.id_decay": "null",
    "ranker.bias_decay": "null",
    "ranker.code_decay": "null",
    "ranker.select": '"auc"',
    "ranker.ngrams": "0",
    "ranker.shrinkage": "0.0",
    "ranker.tiers": "0",
}


def upgraded(content: Mapping[str, JsonValue], settings: str = "config") -> dict[str, JsonValue]:
    """Content of a manifest or bundle in today's format.

    Args:
        content: as it was read; format 1 said no format.
        settings: key of the saved settings, by section.

    Raises:
        ArtifactError: a later version of qarm wrote it.
    """
    version = content.get("format", 1)
    if version not in (1, FORMAT):
        raise ArtifactError(f"format {version}, need at most {FORMAT}; read it with the qarm that wrote it")
    full = SETTINGS.validate_python(content[settings])
    full = settings_from_1(full) if version == 1 else json.loads(json.dumps(full))
    return {**content, "format": FORMAT, settings: _completed(full, LATER)}


def settings_from_1(settings: Settings) -> Settings:
    """Settings of format 1, by section, with what they left out."""
    full = SETTINGS.validate_json(json.dumps(settings))
    for name, value in UNSAID_IN_1.items():
        if name in RANKER_ONLY and "ranker" not in full:
            continue
        _completed(full, {name: value})
    return full


def _completed(settings: Settings, values: Mapping[str, str]) -> Settings:
    """The settings, in place, with these values where their section is there and they are not."""
    for name, value in values.items():
        parent, key = _parent(settings, name)
        if parent is not None:
            parent.setdefault(key, json.loads(value))
    return settings


def _parent(settings: Settings, name: str) -> tuple[Settings | None, str]:
    """The section that holds a dotted name, None where it is absent, and the name's last part."""
    *path, key = name.split(".")
    section: JsonValue = settings
    for part in path:
        section = section.get(part) if isinstance(section, dict) else None
    return (section if isinstance(section, dict) else None), key


def comparison_key(settings: Settings, tables: list[str], *, version: int = FORMAT) -> str:
    """The key of a comparison's folder in a format: a hash of its settings and tables.

    Settings that were added later count once they differ from what their absence meant.
    """
    settings = SETTINGS.validate_json(json.dumps(settings))
    for name, value in (LATER if version == FORMAT else UNSAID_IN_1 | LATER).items():
        parent, key = _parent(settings, name)
        if parent is not None and key in parent and parent[key] == json.loads(value):
            del parent[key]
    return digest({"settings": settings, "tables": tables})


def ranker_shape(content: Mapping[str, JsonValue]) -> RankerShape:
    """A ranker's shape from its `config.json`; format 1 left out what later parts of the ranker read.

    Raises:
        ValueError: a field is missing, unknown or of another type, or the format is a later one.
    """
    version = content.get("format", 1)
    if version not in (1, FORMAT):
        raise ValueError(f"format {version}, need at most {FORMAT}; read it with the qarm that wrote it")
    unsaid: Settings = {
        "prefixes": 0,
        "weighted": False,
        "spare": False,
        "time": False,
        "labels": [],
        "users": [],
    }
    full = content if version == FORMAT else {**unsaid, **content, "format": FORMAT}
    return RankerShape.model_validate_json(json.dumps(full))
