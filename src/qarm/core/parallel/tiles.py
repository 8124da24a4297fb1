"""Tiles of rows on all threads: each thread computes whole tiles in its cache."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["over_tiles"]

State = TypeVar("State")


def over_tiles(
    rows: int, step: int, make: Callable[[], State], work: Callable[[State, int, int], None]
) -> list[State]:
    """Call work(state, start, stop) for every tile; tiles may come in any order and at the same time.

    As many threads as `torch.get_num_threads()` says take the next tile when they are done with one.
    Matrix products inside a tile run on that tile's thread alone.

    Args:
        rows: how many there are.
        step: rows per tile.
        make: a thread's own state, passed to all its calls.
        work: fills its rows of the caller's arrays and may change the state.

    Returns:
        The states, one per thread.
    """
    starts = range(0, rows, step)
    threads = min(torch.get_num_threads(), len(starts))
    if threads <= 1:
        state = make()
        for start in starts:
            work(state, start, min(start + step, rows))
        return [state]
    tickets = itertools.count()  # next() on it is atomic

    def run(_: int) -> State:
        state = make()
        while (ticket := next(tickets)) < len(starts):
            work(state, starts[ticket], min(starts[ticket] + step, rows))
        return state

    before = torch.get_num_threads()
    try:
        # torch keeps the number of threads per calling thread, and what new threads start with globally
        with ThreadPoolExecutor(threads, initializer=_single_threaded) as pool:
            return list(pool.map(run, range(threads)))
    finally:
        torch.set_num_threads(before)


def _single_threaded() -> None:
    if threading.current_thread() is not threading.main_thread():
        torch.set_num_threads(1)
