"""Arguments that several commands have, their order, and the config that they stand for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from qarm.errors import InputError

if TYPE_CHECKING:
    from qarm.config import Config

__all__ = [
    "AllowUnreadable",
    "ConfigFile",
    "DryRun",
    "Engine",
    "FinishedRun",
    "Json",
    "NewItems",
    "Output",
    "RunFolder",
    "Settings",
    "load_settings",
    "run_first",
]

SETTINGS_HELP = "KEY=VALUE for any config key; `--KEY VALUE` (`--data.root shop`) is short for it."
Settings = Annotated[list[str] | None, Parameter(name="--set", help=SETTINGS_HELP, negative="")]
ConfigFile = Annotated[Path, Parameter(help="YAML file; examples/ has some.")]
RunFolder = Annotated[Path, Parameter(help="Run folder: a folder per stage, made if need be.")]
AllowUnreadable = Annotated[
    bool,
    Parameter(help="Code items without the pictures and sounds that cannot be read.", negative=""),
]
DryRun = Annotated[
    bool,
    Parameter(help="Print which stages would be made, why, and for how long; change nothing.", negative=""),
]
FinishedRun = Annotated[Path, Parameter(help="A finished run folder.")]
NewItems = Annotated[Path, Parameter(help="Table of new items, columns as in the run's config.")]
Engine = Annotated[
    Literal["local", "ray"],
    Parameter(help="Where mining and embedding run: here, or on a Ray cluster; same bytes."),
]
Json = Annotated[bool, Parameter(name="--json", help="Print JSON, one object a line.", negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """What a command prints of its stages."""

    as_json: Json = False
    quiet: Annotated[bool, Parameter(help="Print errors only.", negative="")] = False
    verbose: Annotated[
        bool, Parameter(help="Print why each stage is made, and every message.", negative="")
    ] = False


def load_settings(config: Path | None, settings: list[str] | None) -> "Config":
    """Config of a file and of `--set KEY=VALUE`."""
    from qarm.config import load_config

    given = [setting.partition("=") for setting in settings or []]
    problems = [f"--set {key}: need KEY=VALUE" for key, equals, _ in given if not equals]
    problems += _repeated([(key, value) for key, _, value in given])
    if problems:
        raise InputError(problems)
    return load_config(config, flags={key: value for key, _, value in given})


def _repeated(given: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Problems of keys that are given twice, or together with a section that holds them."""
    for place, (key, value) in enumerate(given):
        for other, before in given[:place]:
            if key == other:
                yield f"--{key} is given twice, as {before} and as {value}; leave one of them out"
            elif f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}."):
                yield f"--{other} and --{key} set the same section; put all of it into one of them"


def run_first(command: str, run: Path, other: Path) -> None:
    """Check that the run folder came before the other argument.

    Raises:
        InputError: they are the other way round.
    """
    if _is_run(other) and not _is_run(run):
        raise InputError(
            f"{run} is no run folder, and {other} is; the run comes first: {command} {other} {run}"
        )


def _is_run(folder: Path) -> bool:
    return (folder / "codes" / "manifest.json").is_file()
