"""Encoder queue: items of waiting requests go to the encoder in turn; beyond a limit they get status 503."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

from qarm.errors import InputError, QarmError
from qarm.serving.child_process import ProcessDiedError
from qarm.serving.encoder_process import Coded, Row, Worker
from qarm.serving.http.problems import Problem
from qarm.serving.limits import Limits
from qarm.serving.prometheus_metrics import Metrics

__all__ = ["EncoderQueue"]

Made = TypeVar("Made")
RETRY = {"Retry-After": "1"}
CLOSE_SECONDS = 5.0  # for what is being coded when the service is asked to stop
LEAST = 4  # items of a batch, however long they take: the text tower takes as long for fewer
FORGOTTEN = 0.7  # share of an earlier batch's time for an item that still counts after the next batch


@dataclass(eq=False)
class _Job:
    rows: Sequence[Row]
    answer: "asyncio.Future[list[Coded | InputError]]"
    found: list[Coded | InputError] = field(default_factory=list)
    taken: int = 0  # rows that the worker has, or has had


class EncoderQueue:
    """Feeds one worker. While it works on a batch, what comes in gathers to the next one.

    A batch holds an item of each waiting request in turn, and no more items than fit into `batch_seconds`, or
    four, so that a request waits for another's items no longer than that.

    Everything runs on the event loop but the worker, which has a thread of its own.
    """

    def __init__(self, worker: Worker, *, limits: Limits, metrics: Metrics) -> None:
        self.worker, self.limits, self.metrics = worker, limits, metrics
        self.ready = False
        self.waiting = 0  # items, without those that the worker is working on
        self._jobs: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._item_seconds = 0.0  # that an item has taken of late
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the worker, then take jobs.

        Raises:
            QarmError: the worker cannot start.
        """
        try:
            await self._off_loop(self.worker.start)
        except BaseException:
            self.worker.stop()
            self._thread.shutdown(wait=False)
            raise
        self.ready = True
        self._task = asyncio.create_task(self._work())

    async def code(self, rows: Sequence[Row]) -> list[Coded | InputError]:
        """Codes of one request's items, or what is wrong with each.

        Raises:
            Problem: 503, the queue is full, or the encoder's process has to be started again.
        """
        full = self.waiting + len(rows) > self.limits.waiting and self._jobs
        if full or self._closing or not self.ready:
            reason = "too many items wait for the encoder" if full else "the encoder is starting"
            raise Problem(503, "busy", f"{reason}; try again", headers=RETRY)
        job = _Job(rows, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self.waiting += len(rows)
        self._wake.set()
        return await job.answer

    async def close(self) -> None:
        """Answer what waits, then stop the worker; one that is being started, or takes long, at once."""
        self._closing = True
        self._wake.set()
        if not self.ready:
            self.worker.stop()  # it may be starting, for which nobody has to wait
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_SECONDS)
            self.worker.stop()  # whoever still waits is told so
            await self._task
        self.ready = False
        await self._off_loop(self.worker.stop)
        self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        while not (self._closing and not self._jobs):
            if not self._jobs:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._answer(self._gathered())

    def _gathered(self) -> list[_Job]:
        """The job of each item of the next batch, an item of each in turn."""
        size = self.limits.together
        if self._item_seconds > 0:
            fitting = int(self.limits.batch_seconds / self._item_seconds)
            size = max(min(LEAST, size), min(size, fitting))
        taken: list[_Job] = []
        while self._jobs and len(taken) < size:
            job = self._jobs.popleft()
            if job.answer.done():  # who asked has gone away
                self.waiting -= len(job.rows) - job.taken
                continue
            taken.append(job)
            job.taken += 1
            self.waiting -= 1
            if job.taken < len(job.rows):
                self._jobs.append(job)
        return taken

    async def _answer(self, batch: list[_Job]) -> None:
        if not batch:
            return
        jobs = list(dict.fromkeys(batch))
        counts = [batch.count(job) for job in jobs]
        rows = [
            row
            for job, count in zip(jobs, counts, strict=True)
            for row in job.rows[job.taken - count : job.taken]
        ]
        started = perf_counter()
        try:
            found = await self._off_loop(self.worker.code, rows)
        except ProcessDiedError as error:
            await self._again(jobs, error)
            return
        except Exception as error:  # noqa: BLE001 - goes to those who asked; the others must not wait for ever
            _fail(jobs, error)
            return
        self._measured(len(rows), perf_counter() - started)
        for job, count in zip(jobs, counts, strict=True):
            own, found = found[:count], found[count:]
            job.found += own
            if len(job.found) == len(job.rows) and not job.answer.done():
                job.answer.set_result(job.found)

    def _measured(self, items: int, seconds: float) -> None:
        self.metrics.batches.observe(items)
        self.metrics.coding.observe(seconds)
        before = FORGOTTEN * self._item_seconds
        self._item_seconds = max(seconds / items, before + (1 - FORGOTTEN) * seconds / items)

    async def _again(self, jobs: list[_Job], error: ProcessDiedError) -> None:
        """Start the worker anew, after those who asked have been told."""
        self.ready = False
        _fail(
            jobs,
            Problem(503, "encoder-restarted", f"the encoder was stopped ({error}); try again", headers=RETRY),
        )
        self.metrics.restarts.inc()
        while not self._closing:
            try:
                await self._off_loop(self.worker.start)
            except QarmError:
                await asyncio.sleep(1)
                continue
            self.ready = True
            return

    async def _off_loop(self, function: Callable[..., Made], *given: Any) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *given)


def _fail(jobs: list[_Job], error: Exception) -> None:
    for job in jobs:
        if not job.answer.done():
            job.answer.set_exception(error)
