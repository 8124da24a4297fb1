"""Progress of a long loop: a bar in a terminal, elsewhere a message for every tenth."""

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from tqdm import tqdm

__all__ = ["LOGGER", "Progress"]

LOGGER = "qarm.progress"
APART = 2.0  # seconds between two messages, so that short loops send none
TENTHS = 10


class Progress(tqdm):  # type: ignore[type-arg] # generic for type checkers only
    """tqdm's bar in a terminal, and a log that says `align: 30 % (75 of 250 steps, 41 s)` everywhere."""

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        *,
        desc: str,
        total: int | None = None,
        unit: str = "step",
        initial: int = 0,
        quiet: bool = False,
    ) -> None:
        off = True if quiet else None
        super().__init__(iterable, desc=desc, total=total, unit=unit, initial=initial, disable=off)
        self._quiet, self._what, self._unit, self._done = quiet, desc, unit, initial
        self._count = total or (len(iterable) if isinstance(iterable, Sized) else 0)
        self._tenth = self._tenth_of(self._done)
        self._started = self._told = time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        """Values of the iterable, counted."""
        try:
            for value in self.iterable:
                yield value
                self.update()
        finally:
            self.close()

    def update(self, n: float | None = 1) -> bool | None:
        """Count of `n` more."""
        self._done += int(n or 0)
        tenth, now = self._tenth_of(self._done), time.monotonic()
        if tenth > self._tenth and now - self._told >= APART and not self._quiet:
            self._tenth, self._told = tenth, now
            logging.getLogger(LOGGER).info(
                "%s: %d %% (%s of %s %ss, %.0f s)",
                self._what,
                100 * tenth // TENTHS,
                f"{self._done:,}",
                f"{self._count:,}",
                self._unit,
                now - self._started,
            )
        return super().update(n)

    def _tenth_of(self, done: int) -> int:
        return TENTHS * done // self._count if self._count else 0
