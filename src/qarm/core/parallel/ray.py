"""Ray engine: the cluster that RAY_ADDRESS names, or else one started on this machine."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

from qarm.errors import MissingExtraError

__all__ = ["run"]

Shared = TypeVar("Shared")
Bucket = TypeVar("Bucket")
Result = TypeVar("Result")
PER_CPU = 4  # buckets under way for each processor of the cluster


def run(
    function: Callable[[Shared, Bucket], Result],
    buckets: Sequence[Bucket],
    *,
    shared: Shared,
    workers: int,
) -> Iterator[Result]:
    """`function(shared, bucket)` for every bucket, in order, as tasks of one processor each.

    `shared` goes once to each machine, into its object store; its arrays are read-only there. The cluster
    decides how many tasks run at once, whatever `workers` says, and a started one lives as long as the
    process.

    Raises:
        MissingExtraError: ray is not installed.
    """
    if find_spec("ray") is None:
        raise MissingExtraError("ray", "ray")
    ray: Any = import_module("ray")
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    place, task = ray.put(shared), ray.remote(function)
    limit = PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    under_way: deque[Any] = deque()
    for bucket in buckets:
        if len(under_way) == limit:
            yield ray.get(under_way.popleft())
        under_way.append(task.remote(place, bucket))
    while under_way:
        yield ray.get(under_way.popleft())
