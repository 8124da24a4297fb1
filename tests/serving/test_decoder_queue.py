"""Lanes of decoders: what takes long leaves the fast one; pixels, time and bytes of a request are bounded."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from qarm.serving.child_process import ProcessDiedError
from qarm.serving.decoder_process import Decoded, Medium
from qarm.serving.decoder_queue import FAST_SECONDS, DecoderQueue
from qarm.serving.http.problems import Problem
from qarm.serving.limits import Limits


class Timed:
    """Takes as many seconds as the content says, of the budget only; calls: niceness, content, budget."""

    def __init__(self, niceness: int, calls: list[tuple[int, bytes, float]]) -> None:
        self.niceness, self.calls, self.stopped = niceness, calls, False

    def decode(self, medium: Medium, *, seconds: float) -> Decoded:
        self.calls.append((self.niceness, medium.content, round(seconds, 3)))
        if medium.content == b"dies":
            raise ProcessDiedError("it ended")
        need = float(medium.content)
        if need > seconds:
            return Decoded(None, late=True, seconds=seconds)
        return Decoded(b"x" * 10, pixels=1_000_000, seconds=need)

    def stop(self) -> None:
        self.stopped = True


def decoded(rows: list[dict[str, Any]], **limits: Any) -> tuple[list[Any], list[tuple[int, bytes, float]]]:
    calls: list[tuple[int, bytes, float]] = []

    async def run() -> list[Any]:
        queue = DecoderQueue(Limits(**limits), lambda niceness: Timed(niceness, calls))
        try:
            async with queue.decoded(rows, side=None) as found:
                assert queue.held == sum(len(row["image"]) for row in found if isinstance(row, dict))
            assert (queue.held, queue.requests) == (0, 0)
            return found
        finally:
            queue.close()

    return asyncio.run(run()), calls


def pictures(*seconds: str) -> list[dict[str, Any]]:
    return [{"title": "t", "image": one.encode(), "audio": None} for one in seconds]


def test_quick_media_stay_in_the_fast_lane() -> None:
    found, calls = decoded(pictures("0.01", "0.1"))
    assert found == [{"title": "t", "image": b"x" * 10, "audio": None}] * 2
    assert calls == [(5, b"0.01", 0.25), (5, b"0.1", 0.24)]


def test_a_request_has_the_fast_lane_for_a_quarter_second() -> None:
    found, calls = decoded(pictures(*["0.1"] * 20))
    assert all(isinstance(row, dict) for row in found)
    fast = [budget for niceness, _, budget in calls if niceness == 5]
    assert len(fast) == 3
    assert 0.1 * 2 + fast[-1] <= FAST_SECONDS + 0.001
    assert len(calls) == 21


def test_a_medium_and_a_request_have_their_time() -> None:
    found, calls = decoded(pictures("5", "3.7", "1", "0.1"))
    assert str(found[0]) == "image: takes over 4 s to decode; save it anew"
    assert isinstance(found[1], dict)
    assert [budget for niceness, _, budget in calls if niceness == 15] == [4.0, 3.75, 0.05]
    assert str(found[2]) == "a request's media take over 8 s to decode; send several requests"
    assert str(found[3]) == str(found[2])


def test_pixels_of_a_request_are_counted() -> None:
    found, calls = decoded(pictures(*["0.001"] * 9), pixels=1_000_000)
    assert [isinstance(row, dict) for row in found] == [True] * 5 + [False] * 4
    assert str(found[5]) == "pictures of over 4,000,000 pixels in one request; send several requests"
    assert len(calls) == 5


def test_what_is_held_is_bounded_and_given_back() -> None:
    with pytest.raises(Problem) as refused:
        decoded(pictures("0.001", "0.001"), bodies=15)
    assert refused.value.status == 503


def test_a_decoder_that_died_is_said() -> None:
    with pytest.raises(Problem, match="was ended; try again") as refused:
        decoded(pictures("dies"))
    assert refused.value.status == 503


def test_a_slow_request_holds_no_other_up() -> None:
    """Beside requests that fill the slow lane, quick ones are answered."""

    class Blocking(Timed):
        def decode(self, medium: Medium, *, seconds: float) -> Decoded:
            if self.niceness == 15:
                gate.wait(20)
            return super().decode(medium, seconds=seconds)

    import threading

    gate, calls = threading.Event(), []

    async def run() -> None:
        queue = DecoderQueue(Limits(), lambda niceness: Blocking(niceness, calls))
        work: Callable[[str], Any] = lambda seconds: _all(queue, pictures(seconds))  # noqa: E731
        slow = [asyncio.create_task(work("1")) for _ in range(10)]
        async with asyncio.timeout(10):
            for _ in range(5):
                assert isinstance((await work("0.01"))[0], dict)
        assert not any(task.done() for task in slow)
        gate.set()
        assert all(isinstance(found[0], dict) for found in await asyncio.gather(*slow))
        queue.close()

    asyncio.run(run())


async def _all(queue: DecoderQueue, rows: list[dict[str, Any]]) -> list[Any]:
    async with queue.decoded(rows, side=None) as found:
        return found
