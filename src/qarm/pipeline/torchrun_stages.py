"""Stages under torchrun: its processes share the training, the first one alone writes."""

import time
from typing import TYPE_CHECKING

from qarm.core.parallel.ranks import launched
from qarm.core.run_folder import clear_partial, is_fresh, working_folder
from qarm.data.run_inputs import Run
from qarm.errors import InputError
from qarm.pipeline.stage_run import Done, finished, make, purpose_of
from qarm.pipeline.stages import Stage

if TYPE_CHECKING:
    from qarm.core.parallel.torchrun import Processes

__all__ = ["share_stage", "torchrun_processes"]

SHARED = ("train", "report")  # among torchrun's processes; the first one alone writes the report


def torchrun_processes() -> "Processes | None":
    """This process among torchrun's; None where it is alone, and torch need not be imported."""
    if not launched():
        return None
    from torch.cuda import is_available

    from qarm.core.parallel.torchrun import processes

    return processes("cuda" if is_available() else "cpu")


def share_stage(run: Run, stage: Stage, here: "Processes") -> Done:
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
