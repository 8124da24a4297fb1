"""Structure of the repository: the README's list of folders, public names, start times, no machine paths."""

import ast
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

import qarm

ROOT = Path(__file__).parent.parent
UNTRACKED = {".git", ".venv", "runs", "dist", "site", ".cache", "__pycache__", ".coverage"}
HEAVY = {"torch", "polars", "numba", "faiss", "sentence_transformers", "sklearn", "numpy"}


def project_files() -> set[str]:
    paths = (p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file())
    return {
        p.as_posix()
        for p in paths
        if not any(q in UNTRACKED or q.endswith("_cache") or q == ".hypothesis" for q in p.parts)
    }


def readme_tree() -> dict[str, str]:
    """Description of each folder in the README."""
    block = (ROOT / "README.md").read_text().split("## Every folder", 1)[1].split("```")[1]
    lines = (re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in block.splitlines() if line.strip())
    return {path: rest[0] if rest else "" for path, *rest in lines}


def test_the_readme_has_one_line_per_folder() -> None:
    """But for folders of tests/ that mirror one of src/qarm/, as the README says."""
    tree = readme_tree()
    folders = {f"{Path(name).parent.as_posix()}/" for name in project_files()} - {"./"}
    mirrored = {name.replace("src/qarm/", "tests/") for name in folders if name.startswith("src/qarm/")} - {
        "tests/"
    }
    assert set(tree) == folders - mirrored
    assert all(tree.values())


def test_a_package_is_described_by_its_docstring() -> None:
    for folder, description in readme_tree().items():
        package = ROOT / folder / "__init__.py"
        if package.is_file():
            docstring = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))) or ""
            assert docstring.split("\n")[0] == f"{description}.", (
                f"{folder}; run: python benchmarks/readme.py"
            )


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 250
    assert len(text.encode()) <= 20_000


def test_no_folder_of_the_package_has_more_than_sixteen_modules() -> None:
    package = ROOT / "src" / "qarm"
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        modules = sorted(path.name for path in folder.glob("*.py"))
        assert len(modules) <= 16, (folder, modules)


def test_every_public_name_resolves_and_is_documented() -> None:
    for name in qarm.__all__:
        assert getattr(qarm, name).__doc__, name
    assert sorted(qarm.__all__) == qarm.__all__
    assert set(qarm.__all__) <= set(dir(qarm))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        qarm.nothing  # noqa: B018


def test_every_module_says_what_it_exports() -> None:
    for path in (ROOT / "src" / "qarm").rglob("*.py"):
        if path.name == "__init__.py":
            continue
        module = import_module(".".join(path.relative_to(ROOT / "src").with_suffix("").parts))
        assert module.__doc__, path
        assert all(hasattr(module, name) for name in module.__all__), path


@pytest.mark.parametrize("command", [["-c", "import qarm"], ["-m", "qarm", "--help"]])
def test_quick_start(command: list[str]) -> None:
    def once() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return time.perf_counter() - started

    assert any(once() < 0.5 for _ in range(15))  # the other tests may take the processor


def test_the_command_line_imports_nothing_heavy() -> None:
    code = f"import qarm.cli, sys; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_no_machine_paths() -> None:
    suspicious = re.compile("|".join(f"/{name}/" for name in ("work", "root", "home")))
    for name in project_files():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".j2"} or path.name == "Makefile":
            assert not suspicious.search(path.read_text(encoding="utf-8")), name
