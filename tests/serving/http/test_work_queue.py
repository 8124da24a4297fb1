"""The work queue: results in order, faults to who asked, and status 503 beyond what may wait."""

import asyncio
import threading

import pytest

from qarm.serving.http.problems import Problem
from qarm.serving.http.work_queue import WAITING, WorkQueue


def test_results_and_faults_go_to_who_asked() -> None:
    queue = WorkQueue("ranker")

    async def both() -> list[object]:
        calls = [queue.run(lambda: 7), queue.run(lambda: 1 // 0), queue.run(lambda: 8)]
        return await asyncio.gather(*calls, return_exceptions=True)

    seven, fault, eight = asyncio.run(both())
    queue.close()
    assert (seven, eight) == (7, 8)
    assert isinstance(fault, ZeroDivisionError)


def test_too_many_that_wait_are_refused_and_the_others_answered() -> None:
    queue, go = WorkQueue("ranker"), threading.Event()

    async def many() -> list[bool]:
        waiting = [asyncio.create_task(queue.run(lambda: go.wait(20))) for _ in range(WAITING)]
        await asyncio.sleep(0)  # so that all are in the queue
        with pytest.raises(Problem, match="wait for the ranker") as refused:
            await queue.run(go.is_set)
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")
        go.set()
        done = await asyncio.gather(*waiting)
        return [*done, await queue.run(go.is_set)]

    assert asyncio.run(many()) == [True] * (WAITING + 1)
    queue.close()
