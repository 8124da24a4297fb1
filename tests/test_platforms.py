"""Platforms other than Linux: import, help and check without the POSIX-only modules of Python."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

POSIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios")
WITHOUT = f"""
import sys
import signal
del signal.SIGHUP
sys.modules.update(dict.fromkeys({POSIX_ONLY!r}))  # None in this table: the import fails
"""
IMPORTS = """
import importlib, pkgutil
import qarm
names = [module.name for module in pkgutil.walk_packages(qarm.__path__, "qarm.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""
LIBRARIES = """
import sys
names = [name for name, module in sys.modules.items() if module is None]
missing = {name: sys.modules.pop(name) for name in names}
import sentence_transformers  # what a library imports on other platforms is its own matter
sys.modules.update(missing)
"""
COMMAND = """
from qarm.cli import main
main(sys.argv[1:])
"""


def without_posix(program: str, *arguments: object) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WITHOUT + program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("module", POSIX_ONLY)
def test_the_modules_are_missing(module: str) -> None:
    with pytest.raises(AssertionError, match=f"import of {module} halted"):
        without_posix(f"import {module}")


def test_every_module_is_imported() -> None:
    assert int(without_posix(IMPORTS)) > 100


def test_help_is_printed() -> None:
    assert "Usage: qarm" in without_posix(COMMAND, "--help")


def test_tables_are_checked(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\na,one\nb,two\n")
    (tmp_path / "clicks.csv").write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\nv,a,3\nv,b,4\nw,b,5\n")
    (tmp_path / "c.yaml").write_text(
        "data:\n  items: {path: items.csv, text: [title], image: null, audio: null}\n"
        "  interactions: {path: clicks.csv}\nquantizer: {width: 2, nearest: 1}\n"
    )
    out = without_posix(LIBRARIES + COMMAND, "check", tmp_path / "c.yaml", "--data.root", tmp_path, "--json")
    assert json.loads(out)["items"] == 2
