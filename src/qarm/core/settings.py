"""Settings of a function: a config model, with keywords in place of some of its fields."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from qarm.errors import Problems

__all__ = ["settings_with"]

Settings = TypeVar("Settings", bound=BaseModel)
RULES = {
    "greater_than_equal": "need at least {ge}",
    "greater_than": "need more than {gt}",
    "less_than_equal": "need at most {le}",
    "less_than": "need less than {lt}",
}


def settings_with(settings: Settings, changes: Mapping[str, object], *, problems: Problems) -> Settings:
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
