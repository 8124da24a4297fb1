"""Paths as users give them: text or `Path`, with `~` for a home folder."""

import os
from pathlib import Path

from qarm.errors import InputError

__all__ = ["as_path"]


def as_path(path: Path | str) -> Path:
    """Path with `~` and `~name` at its beginning replaced by the home folder.

    A relative path that begins with `~` all the same, such as `./~notes`, becomes absolute, because polars
    takes `~` for the home folder wherever it begins a path.

    Raises:
        InputError: `~` stands for no home folder.
    """
    text = os.fspath(path)
    if text.startswith("~"):
        try:
            return Path(text).expanduser()
        except RuntimeError:
            raise InputError(
                f"{text}: {Path(text).parts[0]} stands for no home folder; set HOME, or write ./{text} for "
                "a file of that name"
            ) from None
    given = Path(text)
    return given.absolute() if given.parts and given.parts[0].startswith("~") else given
