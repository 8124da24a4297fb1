"""Run of the stages in order, up to a last one."""

from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

from qarm.config import Config
from qarm.core.parallel.engine import EngineName
from qarm.core.run_folder import run_lock
from qarm.core.scratch import sweep_scratch
from qarm.data.run_inputs import Run
from qarm.errors import MissingExtraError
from qarm.pipeline.stage_run import Done, run_stage
from qarm.pipeline.stages import STAGES
from qarm.pipeline.torchrun_stages import share_stage, torchrun_processes

__all__ = ["run_stages"]


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
    _require_extras(last)
    names, here = [stage.name for stage in STAGES], torchrun_processes()
    sweep_scratch()
    with run_lock(folder) if here is None or here.rank == 0 else nullcontext():
        run = Run(config, folder, engine=engine)
        run.tables  # noqa: B018 - bad tables are refused before anything is hashed or written
        if here is not None:
            here.agree("the run", {"last stage": last, **run.given()})
        for stage in STAGES[: names.index(last) + 1]:
            yield run_stage(run, stage) if here is None else share_stage(run, stage, here)


def _require_extras(last: str) -> None:
    if last == "report":
        for package in ("jinja2", "plotly"):
            if find_spec(package) is None:
                raise MissingExtraError(package, "report")
