"""Times of a stage folder: when it was made, and since when what it holds is valid."""

from pathlib import Path

from pydantic import ValidationError

from qarm.core.atomic_io import digest, read_json, write_json
from qarm.errors import ArtifactError
from qarm.schemas.base import Timing

__all__ = ["TIMING", "last_change", "later_than", "read_timing", "version_start", "write_timing"]

TIMING = "timing.json"
SEAL = "sha256"
STEP = 0.001  # seconds; the least time between two versions, whatever the clock says


def write_timing(folder: Path, timing: Timing) -> None:
    """Write of the times, with the hash that `read_timing` compares."""
    content = timing.model_dump(mode="json", exclude_none=True, exclude={SEAL})
    write_json(folder / TIMING, content | {SEAL: digest(content)})


def read_timing(folder: Path) -> Timing:
    """Times of a finished stage; what qarm wrote before they had a hash is read too.

    Raises:
        ArtifactError: the file is missing or was changed.
    """
    path = folder / TIMING
    content = read_json(path)
    rest = dict(content) if isinstance(content, dict) else {}
    kept = rest.pop(SEAL, None)
    try:
        timing = Timing.model_validate(rest)
    except ValidationError as error:
        raise ArtifactError(f"{path}: {error.errors()[0]['msg']}; it was changed") from None
    if kept != digest(rest) and (kept is not None or rest.keys() != {"started", "seconds"}):
        raise ArtifactError(f"{path} changed since the stage wrote it")
    return timing


def version_start(timing: Timing) -> float:
    """Unix time since when the stage's content is valid, but for what was appended to it."""
    return timing.started + timing.seconds if timing.valid_from is None else timing.valid_from


def last_change(folder: Path) -> float:
    """Unix time of the latest change of a finished stage, appended items among them.

    Where the times are damaged it is the manifest's, by the file system.
    """
    try:
        timing = read_timing(folder)
    except ArtifactError:
        return (folder / "manifest.json").stat().st_mtime
    return max([version_start(timing), *(timing.appended or {}).values()])


def later_than(folder: Path, moment: float) -> float:
    """The moment, or a step after the latest change of what `folder` holds, if the clock has gone back."""
    if not (folder / "manifest.json").is_file():
        return moment
    return max(moment, last_change(folder) + STEP)
