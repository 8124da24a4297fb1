"""Proposal of a config: keys with their values, and why each was chosen."""

from pydantic import JsonValue

from qarm.schemas.base import Schema

__all__ = ["Guess", "Proposal"]


class Guess(Schema):
    """A key of the config, its value and the reason.

    sure: whether the tables leave no other reading; active: whether the key is set, else only shown.
    """

    key: str
    value: JsonValue
    why: str
    sure: bool = True
    active: bool = True


class Proposal(Schema):
    """What `qarm init` guessed; problems: what `qarm check` refuses until config or tables change."""

    guesses: list[Guess]
    notes: list[str]
    problems: list[str]

    @property
    def unsure(self) -> list[Guess]:
        """Guesses that somebody who knows the tables has to look at."""
        return [guess for guess in self.guesses if not guess.sure]
