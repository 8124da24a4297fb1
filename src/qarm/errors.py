"""What can go wrong, and whose turn it is to act.

QarmError                 everything this package raises on purpose
├── InputError            the user's data or call is wrong         exit code 2
│   ├── ConfigError       a config file, flag or variable is wrong exit code 2
│   └── MissingExtraError an optional dependency is not installed  exit code 2
└── ArtifactError         a folder is damaged, in use or not writable   exit code 1
"""

from collections.abc import Iterable, Sequence

__all__ = [
    "ArtifactError",
    "ConfigError",
    "InputError",
    "MissingExtraError",
    "Problems",
    "QarmError",
    "shown",
]

MOST_SHOWN = 20


class QarmError(Exception):
    """Base of every error that qarm raises on purpose."""

    exit_code = 1


class InputError(QarmError, ValueError):
    """The input breaks rules: `problems` holds a sentence for each, the message the first 20."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        if len(self.problems) == 1:
            message = self.problems[0]
        else:
            lines = [f"{len(self.problems):,} problems:", *(f"  - {p}" for p in self.problems[:MOST_SHOWN])]
            rest = len(self.problems) - MOST_SHOWN
            message = "\n".join(lines if rest <= 0 else [*lines, f"  and {rest:,} more"])
        super().__init__(message)


class ConfigError(InputError):
    """A config file, a flag or an environment variable is wrong."""


class MissingExtraError(InputError):
    """An optional dependency is missing; the message holds the pip line that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'qarm[{extra}]'")


class ArtifactError(QarmError):
    """A run folder is damaged, was changed by hand, is in use, or its disk is full or read-only."""


class Problems:
    """Collects problems so that a user hears of all of them at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, problem: str) -> None:
        self.found.append(problem)

    def extend(self, error: InputError) -> None:
        self.found.extend(error.problems)

    def raise_any(self) -> None:
        """Raise one `InputError` with everything found, or return when nothing was."""
        if self.found:
            raise InputError(self.found)


def shown(values: Iterable[object], *, first: int = 5) -> str:
    """The first few values, then a count: `a, b, c ... (12 in all)`."""
    everything = list(values)
    head = ", ".join(str(v) for v in everything[:first])
    return head if len(everything) <= first else f"{head} ... ({len(everything):,} in all)"
