"""EmbeddingGemma 2: one message of text, picture and sound for each item."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TORCHVISION = Path(sys.prefix) / "torchvision"  # `make setup` puts it there, beside what is installed


@pytest.mark.skipif(not TORCHVISION.is_dir(), reason="torchvision is not in a folder of its own; make setup")
def test_a_whole_item_is_one_message(tmp_path: Path) -> None:
    script = Path(__file__).parent / "tiny_gemma.py"
    done = subprocess.run(
        [sys.executable, script, TORCHVISION, tmp_path],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        "reads text image audio joint True",
        "distinct 4",
        "order True",
        "plain red < image> hat",
        "moved True",
        "same True",
    ]
