"""Work queue: calls that wait for one thread, with status 503 beyond a number of them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from qarm.serving.http.problems import Problem

__all__ = ["WAITING", "WorkQueue"]

WAITING = 32  # calls that wait for the thread
Result = TypeVar("Result")


class WorkQueue:
    """One thread for the calls of one kind.

    Args:
        name: of what does the work, as messages and threads have it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting = 0

    async def run(self, call: Callable[[], Result]) -> Result:
        """Result of a call in the thread.

        Raises:
            Problem: 503, too many wait.
        """
        if self._waiting >= WAITING:
            raise Problem(
                503,
                "busy",
                f"too many requests wait for the {self.name}; try again",
                headers={"Retry-After": "1"},
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End of the thread, after what has begun."""
        self._thread.shutdown()
