"""Packaging: a wheel holds all that the package reads, its commands work from it, and docs install first."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from qarm.errors import MissingExtraError, install_command

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "qarm"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
INSTALL = re.compile(r'pip install [^\n`]*?"?(?:qarm|\.)\[([\w,]+)\]')
FROM_MAKE = {"demo", "report", "serve", "dev"}  # what `make setup` installs
# what a command or a setting needs beside the package
NEEDS = {
    r"^\s*(?:\.venv/bin/)?qarm serve\b": {"serve"},
    r"^\s*(?:\.venv/bin/)?qarm (?:demo|run|report)\b": {"report"},
    r"--engine ray\b": {"ray"},
    r"compare\.peer[= ]true\b": {"peers"},
    r"\btune[=: ]\s*lora\b": {"lora"},
    r"\bmodel[=: ]\s*(?:als|bpr)\b": {"als"},
}
EVERY_COMMAND = """
import contextlib, io, sys
from pathlib import Path
import qarm
from qarm.cli.entry import app, main
from qarm.demo import WorldSpec, build_world
assert Path(qarm.__file__).is_relative_to(sys.argv[1]), qarm.__file__
commands = [name for name in app if not name.startswith("-")]
for command in commands:
    with contextlib.redirect_stdout(io.StringIO()) as text:
        main([command, "--help"])
    assert f"Usage: qarm {command}" in text.getvalue(), command
build_world(Path(sys.argv[2]), seed=1, spec=WorldSpec(items=20, users=10, events_per_user=5))
print(len(commands))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built with the backend that pyproject.toml names, where it is installed."""
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    build = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=ROOT, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    files = {path.relative_to(ROOT / "src").as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    expected = {name for name in files if "__pycache__" not in name}
    endings = {Path(name).suffix for name in expected}
    assert {".py", ".typed", ".css", ".js", ".html", ".j2"} <= endings
    assert expected - set(wheel.namelist()) == set()
    entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "qarm = qarm.__main__:main" in wheel.read(entry).decode()
    metadata = wheel.read(entry.replace("entry_points.txt", "METADATA")).decode()
    assert set(re.findall(r"^Provides-Extra: (\S+)", metadata, flags=re.M)) == EXTRAS


@pytest.mark.slow
def test_every_command_has_its_help_and_the_world_is_built_from_the_wheel(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    wheel.extractall(site)
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n{EVERY_COMMAND}"
    arguments = [sys.executable, "-P", "-c", code, str(site), str(tmp_path / "world")]
    done = subprocess.run(arguments, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 15
    assert (tmp_path / "world" / "items.parquet").is_file()


# ---- what is installed --------------------------------------------------------------------------


def test_messages_name_what_can_be_installed() -> None:
    assert install_command("qarm[serve]") == 'pip install "qarm[serve]"'
    assert install_command("x", again=True) == 'pip install --force-reinstall --no-deps "x"'
    assert str(MissingExtraError("uvicorn", "serve")) == (
        'uvicorn is not installed; run: pip install "qarm[serve]"'
    )
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    others = [
        path.name for path, text in sources.items() if "pip install" in text and path.name != "errors.py"
    ]
    assert others == []  # one function writes such messages
    raised = [
        extra
        for text in sources.values()
        for extra in re.findall(r'MissingExtraError\([^()]*, "(\w+)"\)', text)
    ]
    assert len(raised) > 5
    assert set(raised) <= EXTRAS


def missing_extras(text: str) -> list[tuple[str, set[str]]]:
    """Commands of a page's blocks that need an extra which nothing above them installs."""
    installed: set[str] = set() if INSTALL.search(text) else set(FROM_MAKE)
    found, inside = [], False
    for line in text.splitlines():
        inside ^= line.startswith("```")
        installed |= {extra for names in INSTALL.findall(line) for extra in names.split(",")}
        for pattern, needed in NEEDS.items():
            if (inside or line.startswith("    ")) and re.search(pattern, line) and needed - installed:
                found.append((line, needed - installed))
    return found


def test_commands_without_their_extra_are_found() -> None:
    page = '```\npip install "qarm[demo]"\nqarm run a.yaml --engine ray\nqarm serve --bundle b\n```\n'
    assert [needed for _, needed in missing_extras(page)] == [{"report"}, {"ray"}, {"serve"}]
    assert missing_extras("```\nqarm serve --bundle b\n```") == []  # after `make setup`
    assert [needed for _, needed in missing_extras("```\nqarm run a --engine ray\n```")] == [{"ray"}]
    assert missing_extras('pip install "qarm[serve]"\n```\nqarm serve --bundle b\n```') == []


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_pages_install_what_their_commands_need(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert missing_extras(text) == []
    assert {extra for names in INSTALL.findall(text) for extra in names.split(",")} <= EXTRAS
