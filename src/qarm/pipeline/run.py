"""Run of the stages in order, up to a last one."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from qarm.config import Config
from qarm.core.parallel.engine import EngineName
from qarm.core.paths import as_path
from qarm.core.run_folder import is_fresh, run_lock
from qarm.core.scratch import sweep_scratch
from qarm.data.run_inputs import Run
from qarm.errors import ArtifactError, InputError
from qarm.pipeline.check import unmet_requirements
from qarm.pipeline.plan import reasons_to_make
from qarm.pipeline.requirements import missing_extras
from qarm.pipeline.stage_run import Done, purpose_of, run_stage
from qarm.pipeline.stages import STAGES, Stage
from qarm.pipeline.torchrun_stages import share_stage, torchrun_processes

__all__ = ["run_stages"]

LOG = logging.getLogger("qarm.stages")


def run_stages(
    config: Config, folder: Path, *, last: str = "report", engine: EngineName = "local"
) -> Iterator[Done]:
    """Run every stage up to `last`, skipping what is fresh; yields each stage as it finishes.

    The engine decides where the work is done, not what comes out, so it is no part of the config. Under
    torchrun the processes share the train stage; those before it have to be finished.

    Raises:
        InputError: the input is wrong; what earlier runs left in the folder is untouched.
        ArtifactError: the folder is in use, or a finished file in it was changed by hand.
    """
    folder, missing = as_path(folder), missing_extras(config, last=last)
    if missing:
        raise InputError(missing)
    names, here = [stage.name for stage in STAGES], torchrun_processes()
    sweep_scratch()
    with run_lock(folder) if here is None or here.rank == 0 else nullcontext():
        run = Run(config, folder, engine=engine)
        run.tables  # noqa: B018 - bad tables are refused before anything is hashed or written
        _check_appended(run)
        if here is None or here.rank == 0:
            run.write_places()
        if here is not None:
            here.agree("the run", {"last stage": last, **run.given()})
        stages = STAGES[: names.index(last) + 1]
        made = False
        for number, stage in enumerate(stages):
            if here is not None:
                yield share_stage(run, stage, here)
                continue
            later = () if made or stage.name == "check" else stages[number:]
            done = run_stage(run, stage, before=partial(_before, run, stage, later))
            made |= bool(later) and not done.fresh
            yield done


def _check_appended(run: Run) -> None:
    """Refusal of a run that would make the encoder anew and leave appended items without a code."""
    from qarm.quantizer.versions.fit import check_appended

    if (run.folder / "codes" / "appended.parquet").is_file():
        check_appended(run, lambda: _changing(run))


def _changing(run: Run) -> str | None:
    """The first stage up to the vectors that is finished and no longer fresh."""
    for stage in STAGES[: [stage.name for stage in STAGES].index("quantize")]:
        try:
            if not is_fresh(run.folder / stage.folder, **purpose_of(run, stage)):
                return stage.name
        except ArtifactError:  # unfinished or damaged, which the stage itself says
            return None
    return None


def _before(run: Run, stage: Stage, stages: Sequence[Stage]) -> None:
    """Message why a stage is made; before the first one, refusal of what a later one would refuse."""
    LOG.debug("%s: %s", stage.name, "; ".join(reasons_to_make(run, stage)))
    problems = unmet_requirements(run, {stage.name for stage in stages}) if stages else []
    if problems:
        raise InputError(problems)
