"""How a pure function is run over buckets: here in threads, or on a Ray cluster; the results are the same."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, TypeVar, get_args

from qarm.errors import InputError

__all__ = ["EngineName", "Run", "engine"]

EngineName = Literal["local", "ray"]
Shared = TypeVar("Shared")
Bucket = TypeVar("Bucket")
Result = TypeVar("Result")


class Run(Protocol):
    """Calls `function(shared, bucket)` for every bucket and gives the results in the buckets' order."""

    def __call__(
        self,
        function: Callable[[Shared, Bucket], Result],
        buckets: Sequence[Bucket],
        *,
        shared: Shared,
        workers: int,
    ) -> Iterator[Result]: ...


def engine(name: EngineName) -> Run:
    """The engine of that name.

    Raises:
        InputError: there is none.
        MissingExtraError: it is "ray", which is not installed.
    """
    if name == "local":
        from qarm.core.parallel import threads as local

        return local.run
    if name == "ray":
        from qarm.core.parallel import ray

        return ray.run
    raise InputError(f"got engine={name!r}, need one of {', '.join(get_args(EngineName))}")
