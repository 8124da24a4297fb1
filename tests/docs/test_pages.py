"""The pages hold together: links, the nav, what is written from the code, messages as the code says them."""

import ast
import re
import shutil
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))


def prose(text: str) -> str:
    """Without code, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "code", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    heads = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


@pytest.mark.parametrize("path", [*(DOCS / name for name in PAGES), ROOT / "README.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        page = path.parent / file if file else path
        if not page.is_file() or (anchor and anchor not in anchors(page)):
            wrong.append(target)
        elif path.parent == DOCS and DOCS not in page.resolve().parents:
            wrong.append(f"{target} leaves docs/, which the site cannot follow")
    assert wrong == []


@pytest.mark.parametrize("path", [*(DOCS / name for name in PAGES), ROOT / "README.md"], ids=lambda p: p.name)
def test_what_a_page_imports_is_there(path: Path) -> None:
    """Blocks that no test runs name modules too."""
    text = path.read_text(encoding="utf-8")
    for module, names in re.findall(r"^from (qarm[\w.]*) import ([\w, ]+)$", text, flags=re.M):
        for name in names.split(", "):
            assert hasattr(import_module(module), name), f"{module}.{name}"


@pytest.mark.parametrize("name", [name for name in PAGES if name != "log.md"])
def test_files_that_a_page_names_are_there(name: str) -> None:
    """Except in the log, whose older entries keep the names of their time."""
    text = (DOCS / name).read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:src|tests|benchmarks|examples|qarm)/[\w/]+\.(?:py|yaml)\b", text))
    missing = {file for file in named if not any((root / file).is_file() for root in (ROOT, ROOT / "src"))}
    assert missing == set()


def test_modules_of_the_architecture_page_are_there() -> None:
    """Its spans such as `core/item_index` and `encoder/alignment/` name files and folders of the package."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "qarm"
    rooms = "|".join(path.name for path in package.iterdir() if path.is_dir())
    named = set(re.findall(rf"`((?:{rooms})/[\w/]*)`", text))
    assert len(named) > 30
    missing = {
        name for name in named if not ((package / f"{name}.py").is_file() or (package / name).is_dir())
    }
    assert missing - {"pairs/", "encoder/", "embeddings/", "codes/", "recommender/"} == set()


def test_the_nav_holds_every_page_once() -> None:
    def files(part: Any) -> list[str]:
        if isinstance(part, str):
            return [part]
        values = part.values() if isinstance(part, dict) else part
        return [name for inner in values for name in files(inner)]

    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    assert sorted(files(nav)) == PAGES


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module("reference")


def test_the_generated_pages_are_current(
    reference: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["reference.py", "--check"])
    with pytest.raises(SystemExit) as stop:
        reference.main()
    assert capsys.readouterr().out == "current\n", "run: python benchmarks/reference.py"
    assert stop.value.code == 0


def test_a_stale_page_is_named_and_written(
    reference: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(reference, "DOCS", tmp_path)
    shutil.copy(DOCS / "api.md", tmp_path)
    old = (DOCS / "commands.md").read_text(encoding="utf-8")
    (tmp_path / "commands.md").write_text(old.replace("`quantizer.levels`", "`quantizer.layers`"))
    for arguments, printed, code in ((["--check"], "stale", 1), ([], "written", 0), ([], "current", 0)):
        monkeypatch.setattr(sys, "argv", ["reference.py", *arguments])
        with pytest.raises(SystemExit) as stop:
            reference.main()
        assert capsys.readouterr().out == f"{printed}{': commands.md' if printed != 'current' else ''}\n"
        assert stop.value.code == code
    assert (tmp_path / "commands.md").read_text(encoding="utf-8") == old


def test_the_reference_finds_a_comment_at_a_line_and_above_it() -> None:
    """What it says of two keys, read from the source by eye."""
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert "| `quantizer.nearest` | whole number (at least 1) | `25` | entries of a VQ code |" in page
    assert "| `split.kind` | `time`, `user_tail`, `last_out` | `time` |" in page
    assert "| `encoder.log_q` | number (at least 0, at most 1) | `0` | logQ correction: factor of" in page
    assert "| `pairs.mix.user2item` | number (at least 0) or null | `null` |" in page


def test_the_story_is_the_readmes() -> None:
    """Which another test runs."""
    found = [
        re.findall(r"^```python\n(import qarm\n.*?)^```", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        for path in (DOCS / "index.md", ROOT / "README.md")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 1


def said() -> list[str]:
    """Every text in the package but docstrings, with a zero where something is filled in."""
    texts = []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in words:
                texts.append(node.value)
    return texts


def test_every_message_is_one_of_the_code() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(.+?)` \|", page, flags=re.M)
    assert len(messages) > 70
    texts = said()
    for message in messages:
        fixed = message.split("…")
        assert sum(map(len, fixed)) > 10, f"{message}: too little of it is fixed to be found by"
        pattern = re.compile("[^\n]*".join(map(re.escape, fixed)))
        assert any(pattern.search(text) for text in texts), message
