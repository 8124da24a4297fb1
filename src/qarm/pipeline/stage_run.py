"""Run of one stage: skipped where it is fresh, made in a working folder where it is not."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qarm.core.run_folder import Purpose, clear_partial, is_fresh, read_manifest, stage_folder
from qarm.data.run_inputs import Run
from qarm.pipeline.stages import Stage
from qarm.schemas.base import Figure

__all__ = ["Done", "finished", "make", "purpose_of", "run_stage"]


@dataclass(frozen=True)
class Done:
    """One finished stage: where its artefact lies, its row counts and figures, and the time taken."""

    stage: str
    path: Path
    rows: Mapping[str, Figure]
    fresh: bool
    seconds: float


def run_stage(run: Run, stage: Stage, *, before: Callable[[], None]) -> Done:
    """The stage, skipped where it is fresh; `before` is called before it is made."""
    started = time.perf_counter()
    skipped = is_fresh(run.folder / stage.folder, **purpose_of(run, stage))
    if skipped:
        clear_partial(run.folder / stage.folder)
    else:
        before()
        make(run, stage)
    return finished(run, stage, skipped, started)


def purpose_of(run: Run, stage: Stage) -> Purpose:
    """What the stage is made from: hashes of its inputs, and its settings."""
    names = [name for name in stage.inputs if name != "users" or run.has_users]
    inputs = {name: run.hash_of(name) for name in names}
    return Purpose(inputs=inputs, config=run.settings(stage.sections))


def make(run: Run, stage: Stage) -> None:
    """Work of the stage, in a folder that takes its place at the end."""
    with stage_folder(run.folder, stage.folder, **purpose_of(run, stage)) as (work, rows):
        rows.update(stage.work(run, work))


def finished(run: Run, stage: Stage, skipped: bool, started: float) -> Done:
    """What the manifest of a finished stage says."""
    manifest = read_manifest(run.folder / stage.folder)
    rows = {} if manifest is None else manifest.rows
    return Done(stage.name, run.folder / stage.main, rows, skipped, time.perf_counter() - started)
