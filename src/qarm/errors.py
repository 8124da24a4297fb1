"""Exceptions, and the exit codes of the command line.

QarmError                 base class: every error that qarm raises on purpose
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
    "install_command",
    "shown",
]

MOST_SHOWN = 20


class QarmError(Exception):
    """Base of every error that qarm raises on purpose."""

    exit_code = 1


class InputError(QarmError, ValueError):
    """Wrong input; `problems` holds one sentence for each problem, the message the first 20 of them."""

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


def install_command(requirement: str, *, again: bool = False) -> str:
    """Command that installs a package or `qarm[extra]`, in quotes that every shell takes off.

    Args:
        again: over the files of the same version, and nothing else.
    """
    return f'pip install {"--force-reinstall --no-deps " if again else ""}"{requirement}"'


class ConfigError(InputError):
    """A config file, a flag or an environment variable is wrong."""


class MissingExtraError(InputError):
    """An optional dependency is missing; the message holds the pip line that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: {install_command(f'qarm[{extra}]')}")


class ArtifactError(QarmError):
    """A run folder is damaged, was changed by hand, is in use, or its disk is full or read-only."""


class Problems:
    """List of problems that are reported in one error."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def add(self, problem: str) -> None:
        """Addition of one problem, a sentence with the value, the rule and the way out."""
        self.messages.append(problem)

    def extend(self, error: InputError) -> None:
        """Addition of all problems of an error."""
        self.messages.extend(error.problems)

    def raise_any(self) -> None:
        """Error with all problems, where there are any.

        Raises:
            InputError: at least one problem was added.
        """
        if self.messages:
            raise InputError(self.messages)


def shown(values: Iterable[object], *, first: int = 5) -> str:
    """Text of the first few values, then a count: `a, b, c ... (12 in all)`."""
    everything = list(values)
    head = ", ".join(str(v) for v in everything[:first])
    return head if len(everything) <= first else f"{head} ... ({len(everything):,} in all)"
