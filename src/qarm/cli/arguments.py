"""Arguments that several commands have, and the config that they stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from qarm.errors import InputError

if TYPE_CHECKING:
    from qarm.config import Config

__all__ = [
    "AllowUnreadable",
    "ConfigFile",
    "Engine",
    "FinishedRun",
    "Json",
    "RunFolder",
    "Settings",
    "load_settings",
]

SETTINGS_HELP = "KEY=VALUE for any config key; `--KEY VALUE` (`--data.root shop`) is short for it."
Settings = Annotated[list[str] | None, Parameter(name="--set", help=SETTINGS_HELP, negative="")]
ConfigFile = Annotated[Path, Parameter(help="YAML file; examples/ has some.")]
RunFolder = Annotated[Path, Parameter(help="Run folder: a folder per stage, made if need be.")]
AllowUnreadable = Annotated[
    bool,
    Parameter(help="Code items without the pictures and sounds that cannot be read.", negative=""),
]
FinishedRun = Annotated[Path, Parameter(help="A finished run folder.")]
Engine = Annotated[
    Literal["local", "ray"],
    Parameter(help="Where mining and embedding run: here, or on a Ray cluster; same bytes."),
]
Json = Annotated[bool, Parameter(name="--json", help="Print JSON, one object a line.", negative="")]


def load_settings(config: Path | None, settings: list[str] | None) -> "Config":
    """Config of a file and of `--set KEY=VALUE`."""
    from qarm.config import load_config

    flags = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting}: need KEY=VALUE")
        flags[key] = value
    return load_config(config, flags=flags)
