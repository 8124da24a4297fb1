"""Plan of a run: which stages are fresh, which would be made, why, and how long that takes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from qarm.config import Config
from qarm.core.paths import as_path
from qarm.core.run_folder import PARTIAL, changed_files, read_manifest
from qarm.core.scratch import Scratch
from qarm.data.run_inputs import Run
from qarm.data.saved_settings import setting_differences
from qarm.errors import ArtifactError, InputError, shown
from qarm.pipeline.check import check_tables, unmet_requirements
from qarm.pipeline.expected_work import expected_work
from qarm.pipeline.requirements import missing_extras
from qarm.pipeline.stage_run import purpose_of
from qarm.pipeline.stages import STAGES, Stage
from qarm.schemas.check import PlannedStage

__all__ = ["plan_stages", "reasons_to_make"]

TABLES = {"items": "table of items", "interactions": "log", "users": "table of users", "media": "media files"}


def plan_stages(config: Config, folder: Path, *, last: str = "report") -> list[PlannedStage]:
    """State of each stage up to `last`; nothing is written.

    Raises:
        InputError: what the run would refuse.
        ArtifactError: a file of a finished stage was changed by hand.
    """
    if missing := missing_extras(config, last=last):
        raise InputError(missing)
    run = Run(config, as_path(folder))
    run.tables  # noqa: B018 - bad tables are refused first
    stages = STAGES[: [stage.name for stage in STAGES].index(last) + 1]
    planned = list(_states(run, stages))
    wanted = {plan.stage for plan in planned if plan.state != "fresh"}
    seconds = _expected(run, wanted) if wanted - {"report"} else {}
    return [
        plan.model_copy(update={"seconds": seconds.get(plan.stage) if plan.stage in wanted else None})
        for plan in planned
    ]


def _states(run: Run, stages: Sequence[Stage]) -> Iterator[PlannedStage]:
    made = list[str]()
    for stage in stages:
        before = [
            name for name in made if any(_reads(stage, other) for other in stages if other.name == name)
        ]
        if not (run.folder / stage.folder / "manifest.json").is_file():
            begun = any((run.folder / PARTIAL).glob(f"{stage.folder}-*"))
            reasons, state = ["begun, and not finished" if begun else "not made yet"], "missing"
        elif before:
            reasons, state = [f"reads what {shown(before)} would make anew"], "stale"
        else:
            reasons = reasons_to_make(run, stage)
            state = "stale" if reasons else "fresh"
        if state != "fresh":
            made.append(stage.name)
        yield PlannedStage.model_validate({"stage": stage.name, "state": state, "reasons": reasons})


def _reads(stage: Stage, other: Stage) -> bool:
    return any(name.startswith(f"{other.folder}/") for name in stage.inputs)


def reasons_to_make(run: Run, stage: Stage) -> list[str]:
    """What differs from when a finished stage was made; empty where it is fresh.

    Raises:
        ArtifactError: a file of it was changed by hand.
    """
    folder = run.folder / stage.folder
    manifest = read_manifest(folder)
    if manifest is None:
        return ["not made yet"]
    purpose = purpose_of(run, stage)
    inputs = purpose["inputs"]
    changed = sorted(
        name
        for name in inputs.keys() | manifest.inputs.keys()
        if inputs.get(name) != manifest.inputs.get(name)
    )
    reasons = [f"another {TABLES.get(name, name)}" for name in changed]
    reasons += [f"other settings: {line}" for line in setting_differences(manifest.config, purpose["config"])]
    if not reasons and (damaged := changed_files(folder, manifest)):
        raise ArtifactError(
            f"{folder}: {shown(damaged)} changed since the stage wrote it; restore it from a copy"
        )
    return reasons


def _expected(run: Run, wanted: set[str]) -> dict[str, float]:
    """Expected seconds by stage; the encoders are timed where they will be used."""
    timings = dict[str, float]()
    with Scratch() as scratch:
        checked = run
        if "check" in wanted:
            checked = Run(run.config, scratch.path)
            (scratch.path / "check").mkdir()
            check_tables(checked, scratch.path / "check")
        problems = unmet_requirements(checked, wanted, timings=timings)
        if problems:
            raise InputError(problems)
        return expected_work(checked, sum(timings.values())).seconds
