"""Messages of a command: on standard error, and with their time in `qarm.log` of the run folder."""

import logging
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qarm.cli.arguments import Output
from qarm.cli.output import PRINTED
from qarm.core.parallel.ranks import rank
from qarm.errors import InputError, QarmError

__all__ = ["FILE", "run_messages"]

FILE = "qarm.log"


class _Record(logging.Handler):
    """Lines of the file; kept back until the run has a finished stage: a refused one leaves nothing."""

    def __init__(self, run: Path) -> None:
        super().__init__(logging.DEBUG)
        self.run, self.kept = run, list[str]()
        form = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        form.converter = time.gmtime
        self.setFormatter(form)

    def emit(self, record: logging.LogRecord) -> None:
        """A message, written at once where the folder is the run's."""
        self.kept.append(self.format(record).replace("\n", "\n  "))
        if not (self.run / "check" / "manifest.json").is_file():
            return
        try:
            with (self.run / FILE).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write("".join(f"{line}\n" for line in self.kept))
        except OSError:
            return  # a full disk ends the stage itself, with its reason
        self.kept.clear()


@dataclass(frozen=True)
class _Shown:
    """Choice of the messages that standard error gets: bars replace those of progress in a terminal."""

    verbose: bool

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is shown."""
        if record.name == PRINTED:
            return False
        return self.verbose or record.levelno > logging.INFO or not sys.stderr.isatty()


@contextmanager
def run_messages(run: Path, output: Output) -> Iterator[None]:
    """Messages of the stages while the block runs.

    Raises:
        InputError: both quiet and verbose.
    """
    if output.quiet and output.verbose:
        raise InputError("got --quiet and --verbose, need at most one of them")
    if rank():  # of torchrun's processes the first one tells
        yield
        return
    logger, record = logging.getLogger("qarm"), _Record(run)
    handlers: list[logging.Handler] = [record]
    if not output.quiet:
        console = logging.StreamHandler()
        console.setLevel(logging.DEBUG if output.verbose else logging.INFO)
        console.addFilter(_Shown(output.verbose))
        handlers.append(console)
    before = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    printed = logging.getLogger(PRINTED)
    printed.info("%s", shlex.join(["qarm", *sys.argv[1:]]))
    try:
        yield
    except (QarmError, KeyboardInterrupt) as error:
        printed.info("%s", str(error) or "stopped")
        raise
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        logger.level, logger.propagate = before
