"""Generator of docs/commands.md and docs/api.md: command line, config and public names, from the code.

    .venv/bin/python benchmarks/reference.py            # writes both pages
    .venv/bin/python benchmarks/reference.py --check    # fails where one is stale

A config key's explanation is the comment at its line in `src/qarm/config/`, or on the lines above it.
"""

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import qarm
import qarm.config
from qarm.cli import app
from reference_api import BEGIN, api, docstring, plain

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where a page is stale"
    )
    check = parser.parse_args().check
    stale = {name: text for name, text in pages().items() if text != read(DOCS / name)}
    if not check:
        for name, text in stale.items():
            (DOCS / name).write_text(text, encoding="utf-8")
    print(f"{'stale' if check else 'written'}: {', '.join(stale)}" if stale else "current")
    sys.exit(1 if check and stale else 0)


def pages() -> dict[str, str]:
    """Text of each generated page by its name."""
    return {"commands.md": commands(), "api.md": api()}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


# ---- commands and config ------------------------------------------------------------------------


def commands() -> str:
    page = app.generate_docs(output_format="markdown", heading_level=1)
    # the list of commands stands twice in it: as a table of contents, and with what each does
    page = re.sub(r"## Table of Contents\n.*?(?=\*\*Commands)", "", page, flags=re.S).strip()
    page = re.sub(r"(?<!\[)\bdocs/(\w+\.md)", r"[docs/\1](\1)", page)
    title, rest = page.split("\n", 1)
    parts = [
        f"# Commands and config\n\n{BEGIN}\n\n## {title.removeprefix('# ')}\n{rest}",
        "## Exit codes",
        CODES,
    ]
    parts += ["## Config", CONFIG, *config_sections()]
    return "\n\n".join(parts).replace("\n## qarm ", "\n### qarm ") + "\n"


CODES = """| code | means |
|---|---|
| 0 | done |
| 1 | anything else: a damaged or busy run folder, drift found by `monitor`, a fault of ours |
| 2 | the input is wrong: one message on standard error with every problem, no traceback |
| 130 | stopped by Ctrl-C; the same command goes on from there |"""

CONFIG = """A config is a YAML file of the keys below; none is required, unknown ones are refused. Any key is
also a flag (`--quantizer.levels 4`) and a variable (`QARM_QUANTIZER__LEVELS=4`, two underscores for each
point). Flags beat variables, variables beat the file, the file beats the defaults. Values of flags and
variables are YAML: `--encoder.audio null`, `--ranker.seeds "[0, 1]"`."""


def config_sections() -> Iterator[str]:
    """Heading, docstrings of the section's models, and a table of its keys."""
    own = [name for name in qarm.Config.model_fields if model_of(qarm.Config, name) is None]
    yield f"### Top level\n\n{table(row(qarm.Config, '', name) for name in own)}"
    for name in qarm.Config.model_fields:
        model = model_of(qarm.Config, name)
        if model is not None:
            yield f"### `{name}`\n\n{said(model, name)}\n\n{table(rows(model, f'{name}.'))}"


def table(lines: Iterator[str]) -> str:
    return "\n".join(["| key | type | default | explanation |", "|---|---|---|---|", *lines])


def rows(model: type[BaseModel], prefix: str, above: str = "") -> Iterator[str]:
    for name in model.model_fields:
        inner = model_of(model, name)
        if inner is None:
            yield row(model, prefix, name, above)
        else:
            yield from rows(inner, f"{prefix}{name}.", explanations(model).get(name, ""))


def row(model: type[BaseModel], prefix: str, name: str, above: str = "") -> str:
    words = explanations(model).get(name)
    if not words:
        raise SystemExit(
            f"{model.__name__}.{name} has no explanation; write a comment at its line in qarm/config"
        )
    field = schema_of(model)["properties"][name]
    text = "; ".join(part for part in (above, words) if part)
    cells = (f"`{prefix}{name}`", kind(field), f"`{value(field['default'])}`", plain(text))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def said(model: type[BaseModel], name: str) -> str:
    """Docstring of a model, then those of the models in it."""
    below: dict[type[BaseModel], list[str]] = {}
    for key in model.model_fields:
        if inner := model_of(model, key):
            below.setdefault(inner, []).append(f"`{name}.{key}`")
    nested = [f"{', '.join(keys)}: {docstring(inner)}" for inner, keys in below.items()]
    return "\n\n".join([docstring(model), *nested])


def model_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    annotation = model.model_fields[name].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


@cache
def explanations(model: type[BaseModel]) -> dict[str, str]:
    """Comment of each field, from the source."""
    source = inspect.getsource(model)
    lines = source.splitlines()
    comments = {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        first, comment = node.lineno - 1, []
        while lines[first - 1].strip().startswith("#"):
            first -= 1
            comment.append(lines[first].strip(" #"))
        tail = lines[node.end_lineno - 1][node.end_col_offset :].strip(" #")  # type: ignore[operator]
        comments[node.target.id] = " ".join([*reversed(comment), tail]).strip()
    return comments


@cache
def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def kind(schema: dict[str, Any]) -> str:
    """A JSON schema's type in words."""
    if "anyOf" in schema:
        return " or ".join(kind(part) for part in schema["anyOf"])
    if "$ref" in schema:  # its docstring stands with the section
        return "mapping"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    names = {
        "string": "text",
        "boolean": "true or false",
        "object": "mapping",
        "array": "list",
        "null": "null",
    }
    if schema["type"] == "string" and schema.get("format") == "path":
        return "path"
    if schema["type"] == "array":
        parts = schema.get("prefixItems") or [schema["items"]]
        return f"list of {f'{len(parts)}: ' if len(parts) > 1 else ''}{kind(parts[0])}"
    number = {"integer": "whole number", "number": "number"}.get(
        schema["type"], names.get(schema["type"], "")
    )
    limits = (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"))
    limits = (*limits, ("exclusiveMaximum", "below"))
    bounds = [f"{words} {schema[key]:g}" for key, words in limits if key in schema]
    return f"{number} ({', '.join(bounds)})" if bounds else number


def value(default: Any) -> str:
    """A default as YAML would have it."""
    if isinstance(default, list):
        return f"[{', '.join(value(part) for part in default)}]"
    if isinstance(default, bool) or default is None:
        return {None: "null", True: "true", False: "false"}[default]
    return f"{default:g}" if isinstance(default, float) else str(default)


if __name__ == "__main__":
    main()
