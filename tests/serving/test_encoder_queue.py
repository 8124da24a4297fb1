"""Requests that wait together are coded together; a full queue turns away; a dead encoder is started anew."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient
from tests.serving.fakes import Fakes, FakeWorker, expected

from qarm.errors import ArtifactError
from qarm.serving import encoder_queue
from qarm.serving.child_process import ProcessDiedError
from qarm.serving.encoder_queue import EncoderQueue
from qarm.serving.http.problems import Problem
from qarm.serving.limits import Limits
from qarm.serving.prometheus_metrics import Metrics


def with_queue(work: Callable[[EncoderQueue, FakeWorker], Awaitable[Any]], **limits: Any) -> Any:
    async def run() -> Any:
        worker = FakeWorker()
        queue = EncoderQueue(worker, limits=Limits(**limits), metrics=Metrics())
        await queue.start()
        try:
            return await work(queue, worker)
        finally:
            worker.go.set()
            await queue.close()
            assert worker.stopped

    return asyncio.run(run())


def row(title: str) -> dict[str, str]:
    return {"title": title}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def test_requests_that_wait_go_together_and_get_their_own() -> None:
    async def work(queue: EncoderQueue, worker: FakeWorker) -> None:
        worker.go.clear()
        first = asyncio.create_task(queue.code([row("first")]))
        await until(worker.begun.is_set)
        rest = [asyncio.create_task(queue.code([row(f"{n}a"), row(f"{n}b")])) for n in range(10)]
        await until(lambda: queue.waiting == 20)
        worker.go.set()
        for n, found in enumerate(await asyncio.gather(*rest)):
            assert [one.rq.tolist() for one in found] == [expected(f"{n}{x}").rq.tolist() for x in "ab"]
        assert len(await first) == 1
        assert worker.calls == [1, 9, 9, 2]
        assert queue.waiting == 0

    with_queue(work, together=9, batch_seconds=1e9)


def test_a_large_request_holds_a_small_one_for_one_batch() -> None:
    """Items go in turn, and no more at a time than fit into the batch's time."""

    async def work(queue: EncoderQueue, worker: FakeWorker) -> None:
        worker.seconds = 0.05
        await queue.code([row("measured")])
        assert 0.05 <= queue._item_seconds < 1
        queue._item_seconds = 0.05
        worker.go.clear()
        worker.begun.clear()
        large = asyncio.create_task(queue.code([row(f"large {n}") for n in range(40)]))
        await until(worker.begun.is_set)
        small = asyncio.create_task(queue.code([row("small")]))
        await until(lambda: queue.waiting == 36)
        worker.go.set()
        assert [one.rq.tolist() for one in await small] == [expected("small").rq.tolist()]
        assert worker.calls[:2] == [1, 5]  # of 50 ms, in 250 ms
        assert len(worker.calls) in (3, 4)  # the next may have begun before this task goes on
        assert not large.done()
        found = await large
        assert [one.rq.tolist() for one in found] == [expected(f"large {n}").rq.tolist() for n in range(40)]

    with_queue(work)


def test_closing_does_not_wait_for_a_batch_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_queue, "CLOSE_SECONDS", 0.1)

    class Ended(FakeWorker):
        def code(self, rows: Any) -> Any:
            self.begun.set()
            self.go.wait(60)
            raise ProcessDiedError("it ended")

        def stop(self) -> None:
            super().stop()
            self.go.set()

    async def run() -> None:
        worker = Ended()
        queue = EncoderQueue(worker, limits=Limits(), metrics=Metrics())
        await queue.start()
        worker.go.clear()
        asked = asyncio.create_task(queue.code([row("takes a minute")]))
        await until(worker.begun.is_set)
        async with asyncio.timeout(20):
            await queue.close()
        with pytest.raises(Problem, match="the encoder was stopped"):
            await asked

    asyncio.run(run())


def test_a_full_queue_turns_away() -> None:
    async def work(queue: EncoderQueue, worker: FakeWorker) -> None:
        worker.go.clear()
        tasks = [asyncio.create_task(queue.code([row("a")] * 2))]
        await until(worker.begun.is_set)
        tasks += [asyncio.create_task(queue.code([row("a")] * 2)) for _ in range(2)]
        await until(lambda: queue.waiting == 4)
        with pytest.raises(Problem) as refused:
            await queue.code([row("a")])
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
        worker.go.set()
        assert [len(found) for found in await asyncio.gather(*tasks)] == [2, 2, 2]

    with_queue(work, waiting=4)


def test_who_has_gone_away_is_not_coded() -> None:
    async def work(queue: EncoderQueue, worker: FakeWorker) -> None:
        worker.go.clear()
        first = asyncio.create_task(queue.code([row("a")]))
        await until(worker.begun.is_set)
        gone, stays = (asyncio.create_task(queue.code([row(name)] * 3)) for name in ("gone", "stays"))
        await until(lambda: queue.waiting == 6)
        gone.cancel()
        await asyncio.sleep(0)
        worker.go.set()
        await asyncio.gather(first, stays)
        assert worker.calls == [1, 3]

    with_queue(work)


def test_a_dead_worker_is_started_anew_and_others_go_on() -> None:
    async def work(queue: EncoderQueue, worker: FakeWorker) -> None:
        with pytest.raises(Problem, match="try again") as acknowledged:
            await queue.code([row("die")])
        assert acknowledged.value.status == 503
        await until(lambda: queue.ready)
        assert worker.starts == 2
        assert len(await queue.code([row("fine")])) == 1

    with_queue(work)


def test_a_worker_that_does_not_start_is_told() -> None:
    class Broken(FakeWorker):
        def start(self) -> None:
            raise ArtifactError("no bundle")

    async def run() -> None:
        worker = Broken()
        queue = EncoderQueue(worker, limits=Limits(), metrics=Metrics())
        with pytest.raises(ArtifactError, match="no bundle"):
            await queue.start()
        assert worker.stopped

    asyncio.run(run())


def test_closing_answers_what_waits() -> None:
    async def work(queue: EncoderQueue, worker: FakeWorker) -> None:
        worker.seconds = 0.05
        tasks = [asyncio.create_task(queue.code([row(str(n))])) for n in range(5)]
        await until(lambda: queue.waiting)
        await queue.close()
        assert all(len(found) == 1 for found in await asyncio.gather(*tasks))
        with pytest.raises(Problem):
            await queue.code([row("late")])
        queue._thread = type(queue._thread)(1)  # closed once more below

    with_queue(work, together=1)


def test_closing_does_not_wait_for_a_worker_that_is_being_started() -> None:
    class Slow(FakeWorker):
        def start(self) -> None:
            super().start()
            self.go.wait(60 if self.starts > 1 else 0)
            if self.starts > 1:
                raise ArtifactError("it was stopped")

        def stop(self) -> None:
            super().stop()
            self.go.set()

    async def run() -> None:
        worker = Slow()
        queue = EncoderQueue(worker, limits=Limits(), metrics=Metrics())
        await queue.start()
        with pytest.raises(Problem):
            await queue.code([row("die")])
        worker.go.clear()
        await until(lambda: worker.starts >= 2)
        async with asyncio.timeout(20):
            await queue.close()
        assert worker.stopped

    asyncio.run(run())


def test_over_http_too(tmp_path: Path) -> None:
    """40 requests at once need far fewer calls, and everyone gets their own codes, kept."""
    fakes = Fakes(tmp_path)

    async def run() -> list[Any]:
        async with fakes.app.router.lifespan_context(fakes.app):
            transport = ASGITransport(app=fakes.app)
            async with AsyncClient(transport=transport, base_url="http://test") as client:
                fakes.worker.go.clear()
                asked = [
                    asyncio.create_task(
                        client.post("/v1/codes", json={"item_id": f"n{n}", "text": {"title": f"t{n}"}})
                    )
                    for n in range(40)
                ]
                await until(
                    lambda: sum(fakes.worker.calls) + fakes.service.bundles.current.encoder.waiting == 40
                )
                fakes.worker.go.set()
                return [answer.json()["items"][0] for answer in await asyncio.gather(*asked)]

    found = asyncio.run(run())
    assert [item["rq"] for item in found] == [expected(f"t{n}").rq.tolist() for n in range(40)]
    assert all(item["stored"] for item in found)
    assert sum(fakes.worker.calls) == 40
    assert len(fakes.worker.calls) <= 5
