"""Stage check: what the tables and the media hold, and what of them cannot be read."""

from collections.abc import Mapping
from pathlib import Path

from qarm.config import Config
from qarm.core.atomic_io import read_model, write_json
from qarm.core.scratch import Scratch
from qarm.data.run_inputs import Run
from qarm.schemas.base import Check, Figure

__all__ = ["check_input", "check_tables"]


def check_tables(run: Run, work: Path) -> Mapping[str, Figure]:
    """Row counts of both tables, and media that cannot be read."""
    from qarm.data.media import check_media

    catalog, log = run.tables
    media = check_media(catalog)
    report = Check(
        items=len(catalog),
        users=len(log.users),
        interactions=len(log),
        unknown_interactions=log.unknown,
        bad_images=media.images,
        bad_sounds=media.sounds,
    )
    write_json(work / "check.json", report)
    counts = {"bad_images": len(report.bad_images), "bad_sounds": len(report.bad_sounds)}
    return report.model_dump(exclude={"bad_images", "bad_sounds"}) | counts


def check_input(config: Config) -> Check:
    """Report on the tables and the media, without a run folder; the content of `check.json`.

    Raises:
        InputError: every problem of both tables.
    """
    with Scratch() as scratch:
        check_tables(Run(config, scratch.path), scratch.path)
        return read_model(scratch.path / "check.json", Check)
