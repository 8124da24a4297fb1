"""Run of the stages in order, up to a last one; under torchrun, the processes share the training."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qarm.config import Config
from qarm.core.parallel.engine import EngineName
from qarm.core.parallel.ranks import launched
from qarm.core.paths import as_path
from qarm.core.run_folder import clear_partial, is_fresh, run_lock, working_folder
from qarm.core.scratch import sweep_scratch
from qarm.data.run_inputs import Run
from qarm.errors import ArtifactError, InputError
from qarm.pipeline.check import unmet_requirements
from qarm.pipeline.plan import reasons_to_make
from qarm.pipeline.requirements import missing_extras
from qarm.pipeline.stage_run import Done, finished, make, purpose_of, run_stage
from qarm.pipeline.stages import STAGES, Stage

if TYPE_CHECKING:
    from qarm.core.parallel.torchrun import Processes

__all__ = ["run_stages"]

LOG = logging.getLogger("qarm.stages")
SHARED = ("train", "report")  # among torchrun's processes; the first one alone writes the report


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
                yield _share_stage(run, stage, here)
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


def torchrun_processes() -> "Processes | None":
    """This process among torchrun's; None where it is alone, and torch need not be imported."""
    if not launched():
        return None
    from torch.cuda import is_available

    from qarm.core.parallel.torchrun import processes

    return processes("cuda" if is_available() else "cpu")


def _share_stage(run: Run, stage: Stage, here: "Processes") -> Done:
    """As `run_stage`, by all processes; the first one alone looks whether it is fresh, and writes."""
    started = time.perf_counter()
    first = here.rank == 0
    fresh = first and is_fresh(run.folder / stage.folder, **purpose_of(run, stage))
    fresh = bool(here.largest(float(fresh)))
    if not fresh and stage.name not in SHARED:
        raise InputError(
            f"stage {stage.name} is not finished, and torchrun's processes share train only; "
            f"run it first, without torchrun: qarm {stage.name} CONFIG --out {run.folder}"
        )
    if not fresh and first:
        make(run, stage)
    elif not fresh and stage.name == "train":
        stage.work(run, working_folder(run.folder, stage.folder, **purpose_of(run, stage)))
    here.wait()
    if first:  # the others may have made the working folder anew
        clear_partial(run.folder / stage.folder, keep=None)
    return finished(run, stage, fresh, started)
