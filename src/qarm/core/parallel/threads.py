"""This machine: threads, for functions that release the interpreter's lock."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

__all__ = ["run"]

Shared = TypeVar("Shared")
Bucket = TypeVar("Bucket")
Result = TypeVar("Result")


def run(
    function: Callable[[Shared, Bucket], Result],
    buckets: Sequence[Bucket],
    *,
    shared: Shared,
    workers: int,
) -> Iterator[Result]:
    """`function(shared, bucket)` for every bucket, in order, `workers` at once.

    When a bucket fails, those not yet begun are dropped and its error is raised.
    """
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(partial(function, shared), buckets)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
