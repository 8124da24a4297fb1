"""Writes requirements-ci.txt: what the tests install but torch, with the SHA-256 of each Python's wheel.

Run after a pin in constraints.txt or a dependency in pyproject.toml has moved: .venv/bin/python .ci/pins.py
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "requirements-ci.txt"
PYTHONS = ("3.11", "3.12", "3.13")
ROOTS = ("qarm[demo,report,serve,dev]", "hatchling", "editables")
APART = {"torch", "qarm", "pip"}  # torch by its own index where one wants a CPU build; pip is there
HEADER = """\
# Every package that the tests install but torch, for Python {} on x86-64 Linux.
# Made by .ci/pins.py from constraints.txt and pyproject.toml; not edited by hand.
"""


def report(*arguments: str) -> list[dict[str, Any]]:
    """What pip would install, as its report tells it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed"]
        command += ["--disable-pip-version-check", "--report", str(file), *arguments]
        subprocess.run(command, check=True, cwd=ROOT)
        found: list[dict[str, Any]] = json.loads(file.read_text())["install"]
        return found


def needed(metadata: dict[str, dict[str, Any]], python: str) -> set[str]:
    """Names that the roots need under that Python, found by walking the packages' own requirements."""
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    waiting, seen = [Requirement(root) for root in ROOTS], set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in metadata[name].get("requires_dist", []):
                below = Requirement(text)
                wanted = below.marker is None or below.marker.evaluate({**environment, "extra": extra})
                if wanted and not (name == "torch" and canonicalize_name(below.name) not in metadata):
                    waiting.append(below)  # the CUDA build of torch brings libraries of its own
    return {name for name, _ in seen} - APART


def hashes(pins: list[str], python: str) -> dict[str, str]:
    """The wheel's SHA-256 of each pin, by name."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--target", folder]
        found = report(*options, *pins)
    return {
        canonicalize_name(entry["metadata"]["name"]): entry["download_info"]["archive_info"]["hashes"][
            "sha256"
        ]
        for entry in found
    }


def main() -> None:
    """The file requirements-ci.txt, written again."""
    everything = report("-c", "constraints.txt", "torch==2.13.0", ".[demo,report,serve,dev]", *ROOTS[1:])
    metadata = {canonicalize_name(entry["metadata"]["name"]): entry["metadata"] for entry in everything}
    wheels: dict[str, dict[str, str]] = defaultdict(dict)
    for python in PYTHONS:
        names = sorted(needed(metadata, python))
        for name, digest in hashes([f"{n}=={metadata[n]['version']}" for n in names], python).items():
            wheels[name][python] = digest
    lines = []
    for name, found in sorted(wheels.items()):
        marker = "" if len(found) == len(PYTHONS) else " ; " + " or ".join(
            f'python_version == "{python}"' for python in found
        )  # fmt: skip
        pin = f"{metadata[name]['name']}=={metadata[name]['version']}{marker}"
        lines.append(" \\\n    ".join([pin, *(f"--hash=sha256:{d}" for d in sorted(set(found.values())))]))
    TARGET.write_text(HEADER.format(", ".join(PYTHONS)) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
