"""Page docs/api.md: signatures and docstrings of the public names, as they stand in the source.

Own code instead of griffe, which splits a `Returns` of several lines and refuses a line for two arguments
(docs/log.md, 2026-11-28).
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

import qarm

BEGIN = "<!-- Written by benchmarks/reference.py; change the code, then run it again. -->"
WIDE = 90
SECTIONS = ("Args", "Returns", "Raises", "Learned", "Yields")


def api() -> str:
    intro = f"""# Python API

{BEGIN}

Everything in `qarm.__all__`; other names are not promised to stay. Arguments after `*` go by name. Shapes
stand in brackets: `[n, d]` is n rows of d numbers. `InputError` is a `ValueError`."""
    return "\n\n".join([intro, *(part for name in qarm.__all__ for part in entry(name))]) + "\n"


def entry(name: str) -> Iterator[str]:
    thing = getattr(qarm, name)
    yield f"## `{name}`"
    yield f"From `{thing.__module__}`."
    if not inspect.isclass(thing):
        yield signature(name, thing)
        yield docstring(thing)
        return
    if issubclass(thing, BaseModel):
        yield f"{docstring(thing)} Its keys: [commands and config](commands.md#config)."
    elif issubclass(thing, Exception):
        yield docstring(thing)
    else:
        yield constructor(name, thing)
        yield docstring(thing)
    if not issubclass(thing, BaseModel):
        yield from methods(name, thing)


def constructor(name: str, thing: type) -> str:
    if "__init__" in vars(thing) and not hasattr(thing, "__dataclass_fields__"):
        return signature(name, thing.__init__)  # type: ignore[misc]
    body = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0].body  # type: ignore[attr-defined]
    return fenced(name, [ast.unparse(node) for node in body if isinstance(node, ast.AnnAssign)])


def methods(name: str, thing: type) -> Iterator[str]:
    """Public methods and properties that qarm defines, by their names."""
    members: dict[str, Any] = {}
    for base in reversed(thing.__mro__):
        if base.__module__.startswith("qarm."):
            members |= {key: member for key, member in vars(base).items() if not key.startswith("_")}
    for key, member in sorted(members.items()):
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not inspect.isfunction(function):
            continue
        yield f"### `{name}.{key}`"
        if not isinstance(member, property):
            yield signature(key, function)
        if text := docstring(function):
            yield text


def signature(name: str, function: Callable[..., Any]) -> str:
    """As it stands in the source, without `self`."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    arguments = node.args
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments.args = arguments.args[1:]
    whole = ast.unparse(arguments)
    parts = split(whole)
    returned = ast.unparse(node.returns) if node.returns and name != "__init__" else ""
    return fenced(name, parts, re.sub(r"'(\w+)'", r"\1", returned))


def split(arguments: str) -> list[str]:
    """At the commas outside brackets."""
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def spaced(part: str) -> str:
    """An annotated argument's default with spaces around its sign."""
    typed, sign, default = part.partition("=")
    return f"{typed.strip()} = {default.strip()}" if sign and ":" in typed else part


def fenced(name: str, parts: list[str], returned: str = "") -> str:
    parts = [spaced(part) for part in parts]
    tail = f" -> {returned}" if returned and returned != "None" else ""
    line = f"{name}({', '.join(parts)}){tail}"
    if len(line) > WIDE:
        line = "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){tail}"])
    return f"```python\n{line}\n```"


def docstring(thing: Any) -> str:
    return paragraphs(inspect.getdoc(thing) or "")


def paragraphs(text: str) -> str:
    """A docstring as Markdown: sections become lists, and only code keeps its line breaks."""
    parts = []
    for block in re.split(r"\n\s*\n", text.strip()):
        head, _, rest = block.partition("\n")
        if head.rstrip(":") in SECTIONS and head.endswith(":") and rest:
            entries = re.sub(r"\n\s+", " ", re.sub(r"\n(?=\S)", "\0", textwrap.dedent(rest))).split("\0")
            if head == "Returns:":
                entries = [" ".join(entries)]
            parts.append("\n".join([f"**{head}**", "", *(f"- {plain(entry)}" for entry in entries)]))
        else:
            parts.append(plain(" ".join(block.split())))
    return "\n\n".join(parts)


def plain(text: str) -> str:
    """Stars outside code are no emphasis, and pages are linked."""
    pieces = text.split("`")
    said = "`".join(piece if n % 2 else piece.replace("*", r"\*") for n, piece in enumerate(pieces))
    return re.sub(r"\bdocs/(\w+\.md)", r"[docs/\1](\1)", said)
