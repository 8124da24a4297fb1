"""Locks between processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qarm.core.locks import locked
from qarm.errors import ArtifactError

OTHER = """
import sys
from pathlib import Path
from qarm.core.locks import locked
from qarm.errors import ArtifactError
try:
    with locked(Path(sys.argv[1]), busy="busy here"): print("acquired")
except ArtifactError as error: print(error)
"""


def other_process(path: Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", OTHER, str(path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_another_process_is_refused_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with locked(path, busy="not now"):
        assert other_process(path) == "busy here"
    assert other_process(path) == "acquired"


def test_the_same_process_is_refused_too_and_an_error_releases(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(ZeroDivisionError), locked(path, busy="not now"):
        with pytest.raises(ArtifactError, match="not now"), locked(path, busy="not now"):
            pass
        raise ZeroDivisionError
    assert other_process(path) == "acquired"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_that_ends_does_not_release_its_parents_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with locked(path, busy="not now"):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert other_process(path) == "busy here"


def test_a_link_is_refused_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "notes")
    with pytest.raises(ArtifactError, match="is a symbolic link"), locked(tmp_path / ".lock", busy="x"):
        pass
    assert (tmp_path / "notes").read_text() == "mine"


def test_content_of_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("kept")
    with locked(tmp_path / ".lock", busy="x"):
        pass
    assert (tmp_path / ".lock").read_text() == "kept"
