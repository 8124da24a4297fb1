"""Settings that a run's codes were made with, and how given ones differ from them."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from qarm.config import Config
from qarm.core.run_folder import read_manifest
from qarm.data.run_inputs import Run
from qarm.errors import InputError
from qarm.schemas.base import Settings

__all__ = ["check_settings", "saved_settings", "setting_differences"]

FOLDERS = ("pairs", "encoder", "codes")  # whose manifests hold every section that codes depend on
NOTHING = "nothing"


def saved_settings(run: Path) -> Settings:
    """Sections of the config that a run's codes were made with, by its manifests."""
    settings: Settings = {}
    for folder in FOLDERS:
        manifest = read_manifest(run / folder)
        settings |= {} if manifest is None else manifest.config
    return settings


def check_settings(run: Path, config: Config, *, only: Iterable[str] | None = None, task: str) -> None:
    """Check that given settings are those of the run; folders and what only the ranker reads may differ.

    Args:
        run: a run folder with finished codes.
        config: the settings given.
        only: dotted keys that were given, where the others are the config's defaults; None: all count.
        task: the option that uses the run's settings, for the message.

    Raises:
        InputError: they differ; the message has each key with both values.
    """
    saved = saved_settings(run)
    lines = setting_differences(saved, Run(config, run).settings(tuple(saved)), only=only)
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        raise InputError(
            f"{run} was made with other settings, and {task} goes on with those of the run:\n{listed}\n"
            f"leave these out (--out {run} alone is enough), or make new codes without {task}"
        )


def setting_differences(
    saved: Mapping[str, JsonValue], given: Mapping[str, JsonValue], *, only: Iterable[str] | None = None
) -> list[str]:
    """Each key whose values differ, with both; only: dotted keys or sections that count, None: all."""
    kept, new, keys = dict(_leaves(saved)), dict(_leaves(given)), None if only is None else tuple(only)
    return [
        f"{key}: the run has {kept.get(key, NOTHING)}, given {new.get(key, NOTHING)}"
        for key in sorted(kept.keys() | new.keys())
        if kept.get(key, NOTHING) != new.get(key, NOTHING) and (keys is None or _below(key, keys))
    ]


def _leaves(settings: Mapping[str, JsonValue], above: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Dotted keys and their values; an empty section has none."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _below(key: str, parents: Iterable[str]) -> bool:
    """Whether a key is one of the parents, lies below one, or above one."""
    return any(f"{key}.".startswith(f"{parent}.") or f"{parent}.".startswith(f"{key}.") for parent in parents)
