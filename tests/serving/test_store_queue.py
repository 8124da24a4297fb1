"""Store queue: appends that wait together share a flush; each gets its own answer; reads do not wait."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qarm.serving.code_store import ContentConflict, NewCode, Store, StoreError
from qarm.serving.store_queue import StoreQueue


def code(item: str, content: bytes = b"c", bundle: str = "b") -> NewCode:
    vector = np.ones(2, dtype=np.float32)
    return NewCode(item, bundle, 1, content, np.array([1, 2], dtype=np.int32), None, vector, {"title": item})


class Slow:
    """A store whose appends wait until they are let go, and that keeps what each call was given."""

    def __init__(self) -> None:
        self.calls: list[list[list[str]]] = []
        self.go, self.fault = threading.Event(), None

    def append(self, jobs: Sequence[Sequence[NewCode]]) -> list[Any]:
        self.calls.append([[row.item_id for row in rows] for rows in jobs])
        assert self.go.wait(20)
        if self.fault is not None:
            raise self.fault
        return [self._answer([row.item_id for row in rows], rows) for rows in jobs]

    @staticmethod
    def _answer(ids: list[str], rows: Sequence[NewCode]) -> Any:
        return ContentConflict(["taken"]) if "taken" in ids else list(rows)

    def find(self, item: str, bundle: str) -> Any:
        return SimpleNamespace(item_id=item, bundle=bundle)

    def probe(self) -> None:
        self.calls.append([["probe"]])

    def check_files(self) -> None:
        self.calls.append([["files"]])

    def close(self) -> None:
        self.calls.append([["closed"]])


async def waiting(queue: StoreQueue, *jobs: list[NewCode]) -> list[asyncio.Task[list[NewCode]]]:
    tasks = []
    for rows in jobs:
        tasks.append(asyncio.create_task(queue.append(rows)))
        await asyncio.sleep(0.05)  # the first is at the store by now
    return tasks


def test_what_waits_together_is_flushed_together_and_reads_pass_by() -> None:
    store = Slow()

    async def run() -> list[Any]:
        queue = StoreQueue(store)  # type: ignore[arg-type]
        tasks = await waiting(queue, [code("a")], [code("b"), code("c")], [code("taken")], [code("d")])
        found = await asyncio.wait_for(queue.find("x", "b"), 5)  # while the writer waits
        assert found.item_id == "x"
        store.go.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await queue.close()
        return answers

    answers = asyncio.run(run())
    assert store.calls == [[["a"]], [["b", "c"], ["taken"], ["d"]], [["closed"]]]
    assert [[row.item_id for row in rows] for rows in answers[:2]] == [["a"], ["b", "c"]]
    assert isinstance(answers[2], ContentConflict)
    assert answers[2].item_ids == ["taken"]
    assert [row.item_id for row in answers[3]] == ["d"]


def test_a_fault_goes_to_everyone_who_waits_and_is_probed_before_it_is_over() -> None:
    store = Slow()
    store.go.set()
    store.fault = StoreError("the disk is full", full=True)

    async def run() -> list[Any]:
        queue = StoreQueue(store)  # type: ignore[arg-type]
        answers = await asyncio.gather(
            queue.append([code("a")]), queue.append([code("b")]), return_exceptions=True
        )
        await queue.check()  # writes, as the last append failed
        await queue.check()  # looks at the files
        store.fault = None
        answers.append(await queue.append([code("c")]))
        await queue.close()
        return answers

    *failed, stored = asyncio.run(run())
    assert [str(error) for error in failed] == ["the disk is full"] * 2
    assert [row.item_id for row in stored] == ["c"]
    assert store.calls == [[["a"], ["b"]], [["probe"]], [["files"]], [["c"]], [["closed"]]]


def test_a_caller_who_left_costs_the_others_nothing() -> None:
    store = Slow()

    async def run() -> list[NewCode]:
        queue = StoreQueue(store)  # type: ignore[arg-type]
        first, left, last = await waiting(queue, [code("a")], [code("b")], [code("c")])
        left.cancel()
        store.go.set()
        await first
        rows = await last
        await queue.close()
        return rows

    assert [row.item_id for row in asyncio.run(run())] == ["c"]
    assert store.calls[1] == [["b"], ["c"]]


def test_rows_of_a_real_store(tmp_path: Path) -> None:
    async def run() -> None:
        queue = StoreQueue(Store(tmp_path))
        await queue.append([code("a"), code("b")])
        await queue.append([code("a", bundle="later")])
        with pytest.raises(ContentConflict, match="items b are stored with other content"):
            await queue.append([code("b", content=b"other")])
        assert [row and row.item_id for row in await queue.known(["a", "z", "b"], "b")] == ["a", None, "b"]
        found = await queue.find("a", "unknown bundle")
        assert found is not None
        assert found.bundle == "later"
        assert await queue.under([1], "b", first=0, count=10) == (2, ["a", "b"])
        assert await queue.under([1], "b", first=1, count=1) == (2, ["b"])
        assert await queue.under([2], "b", first=0, count=10) == (0, [])
        assert await queue.delete("a") == 2
        assert await queue.find("a", "b") is None
        await queue.check()
        await queue.close()

    asyncio.run(run())
