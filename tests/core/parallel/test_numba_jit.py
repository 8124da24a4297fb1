"""Compiled code survives an upgrade in place, and folders that cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qarm.core.parallel.numba_jit import temporary_cache

KERNEL = """
from typing import NamedTuple
from qarm.core.parallel.numba_jit import compiled
from terms import {name}, factor

product = compiled()(factor)

@compiled()
def total(limits):
    return limits.low + product(limits.high)
"""
TERMS = """
from typing import NamedTuple

class {name}(NamedTuple):
    low: int
    high: int

def factor(value):
    return value * {factor}
"""
VERSION = """
import sys
from qarm.core.parallel import numba_jit
numba_jit._kernel_hash = lambda: sys.argv[1]
import kernel, terms
print(kernel.total(getattr(terms, sys.argv[1])(1, 10)), sum(kernel.total.stats.cache_hits.values()))
"""
DRAW = """
import os, sys
import numba.core.caching as caching
for kind in (caching.InTreeCacheLocator,) + ((caching.UserWideCacheLocator,) if "HOME" in os.environ else ()):
    kind.from_function = classmethod(lambda kind, function, file: None)
os.access = lambda path, mode: False
if "HOME" not in os.environ:
    os.path.expanduser = lambda path: path
import numpy as np
from qarm.recommender.negative_sampling import Untouched, draw
pool, none = np.arange(5, dtype=np.int32), np.zeros(0, np.int32)
source = Untouched.of(none, none, pool=pool, n_users=1)
print(draw(source, np.zeros(1, np.int32), np.zeros(1, np.int64), count=5, seed=1)[1][0])
"""


def python(code: str, *arguments: str, folder: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    kept.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_renamed_type_and_a_changed_function_of_another_file(tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def answer(name: str, factor: int) -> str:
        (tmp_path / "kernel.py").write_text(KERNEL.format(name=name))
        (tmp_path / "terms.py").write_text(TERMS.format(name=name, factor=factor))
        return python(VERSION, name, folder=tmp_path, HOME=str(tmp_path), NUMBA_CACHE_DIR=str(cache))

    assert answer("Limits", 2) == "21 0"
    assert answer("Limits", 2) == "21 1"
    assert answer("Ranges", 3) == "31 0"  # the index names terms.Limits, which is no more
    assert list(cache.rglob("kernel.total-*.nbi"))


@pytest.mark.parametrize("home", [{"HOME": "/"}, {}])
def test_no_folder_can_be_written(home: dict[str, str], tmp_path: Path) -> None:
    work, temporary = tmp_path / "work", tmp_path / "tmp"
    work.mkdir()
    temporary.mkdir()
    assert python(DRAW, folder=work, TMPDIR=str(temporary), **home) == "5"
    assert list(temporary.glob("qarm-numba-*/**/*.nbc"))
    assert not list(work.iterdir())  # no folder called ~


def test_a_temporary_folder_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    ours = temporary_cache()
    assert ours is not None
    assert ours.parent == tmp_path
    assert temporary_cache() == ours
    ours.chmod(0o777)
    assert temporary_cache() is None
    ours.rmdir()
    (tmp_path / "target").mkdir()
    ours.symlink_to(tmp_path / "target")
    assert temporary_cache() is None
    work = tmp_path / "work"
    work.mkdir()
    assert python(DRAW, folder=work, TMPDIR=str(tmp_path), HOME="/") == "5"  # compiled anew each time
    assert not list((tmp_path / "target").iterdir())


def test_kernels_run_without_the_compiler() -> None:
    """NUMBA_DISABLE_JIT is how one looks into a kernel with a debugger."""
    code = "from qarm.recommender.negative_sampling import splitmix64; import numpy as np; "
    code += "from qarm.core.parallel.numba_jit import compiled; print(compiled()(lambda x: x + 1)(1))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2\n"
