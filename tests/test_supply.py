"""What is installed and loaded: by hash, as pinned, and without a look at the network."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = {"editables", "hatchling", "setuptools", "tomlkit", "trove-classifiers"}  # what builds, not what runs
PIN = re.compile(
    r'([A-Za-z0-9_.-]+)==(\S+)( ; python_version [=<>]= "3\.\d+"( or python_version == "3\.\d+")*)?'
)
IMPORTS = """
import importlib, pkgutil, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(refuse)
import qarm
names = [module.name for module in pkgutil.walk_packages(qarm.__path__, "qarm.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names), "torch" in sys.modules)
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        if line and line[0] not in "# ":
            match = PIN.fullmatch(line.removesuffix(" \\"))
            assert match, line
            found[canonical(match[1])] = match[2]
    return found


def test_the_hashed_requirements_are_the_constraints_pins() -> None:
    text = (ROOT / "requirements-ci.txt").read_text()
    hashed, constraints = pins(text), pins((ROOT / "constraints.txt").read_text())
    assert {n: v for n, v in hashed.items() if n not in BUILD} == {
        n: constraints[n] for n in hashed.keys() - BUILD
    }
    assert "torch" not in hashed
    assert {"polars", "numpy", "transformers", "pytest", "hatchling"} <= hashed.keys()


def test_every_requirement_has_a_hash_and_none_names_a_host() -> None:
    text = (ROOT / "requirements-ci.txt").read_text()
    for block in re.split(r"\n(?=[A-Za-z])", text)[1:]:
        pin, *hashes = block.strip().replace("\\\n", "\n").splitlines()
        assert hashes, pin
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64} ?", line) for line in hashes), block
    assert "://" not in text


def test_importing_everything_asks_nobody() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", IMPORTS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    modules, torch = done.stdout.split()
    assert int(modules) > 100
    assert torch == "True"
