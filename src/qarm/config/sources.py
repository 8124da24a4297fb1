"""Sources of a config: defaults, a YAML file, environment variables and flags, in rising order.

Own code, not pydantic-settings: that adds 100 ms to each start, reads values as JSON and not as YAML, and
accepts a variable whose section is misspelt (measured in docs/log.md).
"""

import difflib
import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from qarm.config.stages import Config
from qarm.core.paths import as_path
from qarm.errors import ConfigError, Problems
from qarm.schemas.base import Settings

__all__ = ["load_config", "saved_config", "settings_with"]

ENVIRONMENT_PREFIX = "QARM_"
MAX_DEPTH, MAX_ALIASES, MAX_LENGTH = 20, 20, 1_000_000
MAX_SHOWN = 200  # characters of a value in a message


def load_config(
    path: Path | str | None = None,
    *,
    flags: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Config from its sources; flags override environment variables, these the file, the file the defaults.

    Args:
        path: a YAML file, or None for defaults.
        flags: dotted keys to text, `{"data.root": "shop", "quantizer.levels": "4"}`; values are YAML.
        environment: variables; `QARM_DATA__ROOT=shop` sets `data.root`. Default: `os.environ`.

    Raises:
        ConfigError: the file, a key or a value is wrong; every problem is listed.
    """
    content = {} if path is None else _read_yaml(as_path(path))
    variables = os.environ if environment is None else environment
    names = dict[str, str]()
    for name, text in sorted(variables.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            if key in names:
                raise ConfigError(f"{names[key]} and {name} set the same key; unset one of them")
            names[key] = name
            _set(content, key, text, origin=name)
    for key, text in (flags or {}).items():
        _set(content, key, text, origin=f"--{key}")
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        origin = "config" if path is None else str(path)
        raise ConfigError([f"{origin}: {_explain(e)}" for e in error.errors()]) from None


def saved_config(settings: Settings) -> Config:
    """Config of the sections that a manifest or a bundle holds; the other sections have their defaults.

    Raises:
        ConfigError: a value is wrong.
    """
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError([f"saved settings: {_explain(e)}" for e in error.errors()]) from None


class _Loader(yaml.SafeLoader):
    """YAML of plain values, bounded in depth and aliases: nested aliases can expand without limit."""

    depth = aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node of the file, counted against the limits on depth and aliases."""
        self.aliases += self.check_event(yaml.AliasEvent)
        self.depth += 1
        if self.depth > MAX_DEPTH or self.aliases > MAX_ALIASES:
            raise yaml.YAMLError(
                f"over {MAX_DEPTH} levels deep, or over {MAX_ALIASES} aliases; write it flat"
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping in which each key stands once; YAML itself would take the last one without a word."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[object, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(
                    f"key {key.value} is in line {lines[key.value]} and in line {line}; remove one of them"
                )
            lines[key.value] = line
        return node


def _parse(text: str) -> Any:
    """Value of a YAML text.

    Raises:
        ValueError: the text is no YAML value.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"got {len(text):,} characters, need at most {MAX_LENGTH:,}")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        # PyYAML passes on what Python's constructors of dates and numbers raise
        raise ValueError(" ".join(str(error).split())[:MAX_SHOWN]) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = _parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give a YAML file") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: got {type(content).__name__}, need keys such as data, split, pairs")
    return content


def _set(content: dict[str, Any], key: str, text: str, *, origin: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        below = content.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{origin}: {parent} is a value, not a section")
        content = below
    try:
        content[last] = _parse(text)
    except ValueError as error:
        raise ConfigError(f"{origin}: {_short(text)} is not a YAML value; quote it: {error}") from None


def _explain(error: ErrorDetails) -> str:
    """Message of one validation error: key, value and rule; for an unknown key, the most similar one."""
    place = ".".join(str(part) for part in error["loc"]) or "config"
    if error["type"] == "extra_forbidden":
        known = _keys_beside(error["loc"])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.0)
        return f"unknown key {place}; did you mean {'.'.join([*map(str, error['loc'][:-1]), *near])}?"
    return f"{place} = {_short(error['input'])}: {error['msg'].removeprefix('Value error, ')}"


def _short(value: object) -> str:
    """`repr` of bounded length; with aliases a value can contain itself."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = MAX_SHOWN
    try:
        return shortener.repr(value)
    except ValueError:  # Python's limit on the digits of an integer
        return "an integer of thousands of digits"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Config
    for part in location[:-1]:
        model = model.model_fields[str(part)].annotation
    return list(model.model_fields)


Section = TypeVar("Section", bound=BaseModel)
RULES = {
    "greater_than_equal": "need at least {ge}",
    "greater_than": "need more than {gt}",
    "less_than_equal": "need at most {le}",
    "less_than": "need less than {lt}",
}


def settings_with(settings: Section, changes: Mapping[str, object], *, problems: Problems) -> Section:
    """The settings with some fields changed; unchanged, and every problem noted, where a value is wrong.

    Args:
        settings: a config model, such as `SwingConfig()`.
        changes: values by field; a mapping stands for a model.
        problems: gets a line for each wrong value: what it is, and the rule.
    """
    if not changes:
        return settings
    try:
        return type(settings).model_validate({**dict(settings), **changes})
    except ValidationError as error:
        for line in _lines(error, type(settings)):
            problems.add(line)
        return settings


def _lines(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    for one in error.errors():
        name, value = ".".join(map(str, one["loc"])) or "settings", one["input"]
        if one["type"] == "extra_forbidden":
            yield f"got {name}={value!r}, need one of {', '.join(_fields(model, one['loc']))}"
            continue
        yield f"got {name}={_shown(value)}, {_rule(one['type'], one.get('ctx') or {}, one['msg'])}"


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields beside the one at a location."""
    for part in location[:-1]:
        model = model.model_fields[str(part)].annotation  # type: ignore[assignment] # a model, as a part of it is named
    return list(model.model_fields)


def _rule(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind == "literal_error":
        return f"need one of {str(context['expected']).replace(chr(39), '').replace(' or ', ', ')}"
    if kind in RULES:
        return RULES[kind].format(**{name: f"{bound:g}" for name, bound in context.items()})
    return message.removeprefix("Value error, ")


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)
