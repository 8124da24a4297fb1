"""A process that has imported everything and started no thread forks a child for each `qarm` command."""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ended", "fork", "load_everything", "start", "wait"]

LATE = ("jinja2", "plotly.graph_objects", "sentence_transformers", "transformers.models.bert.modeling_bert")
IDLE = ("jemalloc_bg_thd", "polars-ooc-clea")  # started by importing polars; a child does without them


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code, or minus the signal; and what it printed."""

    code: int
    output: str


def load_everything(checkpoint: Path) -> None:
    """Import what a run needs and fill the libraries' own tables, so that a child starts in milliseconds.

    Nothing that starts a thread: one of polars or torch would be missing in the child.
    """
    import importlib
    import pkgutil

    import qarm

    for name in LATE:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(qarm.__path__, "qarm."):
        if not module.name.endswith(("__main__", "gpu_kernel", "parallel.ray")):
            importlib.import_module(module.name)
    _warm_up(checkpoint)
    started = {task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
    own = Path("/proc/self/comm").read_text().strip()
    if started - {own, *IDLE}:
        raise RuntimeError(
            f"threads {sorted(started - {own, *IDLE})} run after the imports; fork before them"
        )


def _warm_up(checkpoint: Path) -> None:
    import numpy as np
    import plotly.graph_objects as go

    from qarm.encoder.towers.text import TextTower
    from qarm.recommender.negative_sampling import _splitmix64

    TextTower(checkpoint).model  # noqa: B018 - loads it
    _splitmix64(np.uint64(1))
    go.Figure(go.Scatter(x=[1], y=[1])).update_layout(template="plotly_white")


def start(work: Callable[[], None], output: Path) -> int:
    """Fork a child that does `work` with its output in a file; returns its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = 99
    try:
        work()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:  # noqa: BLE001 - the child ends here, whatever happened
        traceback.print_exc()
    finally:
        with contextlib.suppress(ValueError, io.UnsupportedOperation):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(child: int, output: Path) -> Ended:
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), output.read_text(errors="replace"))


def fork(work: Callable[[], None], output: Path) -> Ended:
    return wait(start(work, output), output)
