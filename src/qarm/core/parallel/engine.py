"""Engines: a pure function over buckets, in local threads or on a Ray cluster, with equal results."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, Protocol, TypeVar, get_args

from qarm.errors import InputError

__all__ = ["BucketRunner", "EngineName", "engine", "run_in_threads"]

EngineName = Literal["local", "ray"]
Shared = TypeVar("Shared")
Bucket = TypeVar("Bucket")
Result = TypeVar("Result")


class BucketRunner(Protocol):
    """Results of `function(shared, bucket)` for every bucket, in the buckets' order."""

    def __call__(
        self,
        function: Callable[[Shared, Bucket], Result],
        buckets: Sequence[Bucket],
        *,
        shared: Shared,
        workers: int,
    ) -> Iterator[Result]:
        """Results of `function(shared, bucket)`, in the order of the buckets."""


def engine(name: EngineName) -> BucketRunner:
    """The engine of that name.

    Raises:
        InputError: there is none.
        MissingExtraError: it is "ray", which is not installed.
    """
    if name == "local":
        return run_in_threads
    if name == "ray":
        from qarm.core.parallel import ray

        return ray.run
    raise InputError(f"got engine={name!r}, need one of {', '.join(get_args(EngineName))}")


def run_in_threads(
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
