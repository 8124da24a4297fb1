"""Text of a proposed config: YAML with a comment for each key, and the content that it stands for."""

from collections.abc import Iterator, Sequence

import yaml
from pydantic import JsonValue

from qarm.schemas.base import Settings
from qarm.schemas.proposal import Guess, Proposal

__all__ = ["config_content", "config_text"]

HEAD = """\
# Proposed by `qarm init` from the tables; lines with (?) are guesses to be checked by whoever knows them.
# Relative paths start in the folder where qarm is called. Keys that are not here have their defaults: all of
# them are in docs/commands.md. Next: qarm check, with this file.
"""


def config_content(guesses: Sequence[Guess]) -> Settings:
    """Content of the config that the active guesses make."""
    content: Settings = {}
    for guess in guesses:
        if guess.active:
            *parents, last = guess.key.split(".")
            section = content
            for parent in parents:
                section = section.setdefault(parent, {})  # type: ignore[assignment] # a section of this function
            section[last] = guess.value
    return content


def config_text(proposal: Proposal) -> str:
    """YAML of the guesses, each with its reason; those that are only shown are comments."""
    lines = [*_lines(proposal.guesses)]
    notes = [f"# {_one_line(note)}" for note in (*proposal.notes, *proposal.problems)]
    return HEAD + "\n".join([*notes, *lines]) + "\n"


def _lines(guesses: Sequence[Guess]) -> Iterator[str]:
    open_sections: list[str] = []
    for guess in guesses:
        *parents, last = guess.key.split(".")
        for depth, parent in enumerate(parents):
            if open_sections[: depth + 1] != parents[: depth + 1]:
                open_sections = parents[: depth + 1]
                yield f"{'  ' * depth}{parent}:"
        open_sections = parents
        mark = "" if guess.sure else "(?) "
        off = "" if guess.active else "# "
        yield f"{'  ' * len(parents)}{off}{last}: {_value(guess.value)}  # {mark}{_one_line(guess.why)}"


def _value(value: JsonValue) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n...\n").strip()


def _one_line(text: str) -> str:
    return " ".join(text.split())
