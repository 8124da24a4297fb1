"""Progress of long loops: a message for every tenth, none for short loops, none where it is quiet."""

import logging

import pytest

from qarm.core.parallel import progress
from qarm.core.parallel.progress import LOGGER, Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_message_for_every_tenth(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    with Progress(total=1_000, desc="train id+rq, seed 0", unit="epoch") as bar:
        for _ in range(1_000):
            clock[0] += 1.0
            bar.update()
    assert len(caplog.messages) == 10
    assert caplog.messages[0] == "train id+rq, seed 0: 10 % (100 of 1,000 epochs, 100 s)"
    assert caplog.messages[-1] == "train id+rq, seed 0: 100 % (1,000 of 1,000 epochs, 1000 s)"


def test_a_loop_that_goes_on_counts_from_there(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    with Progress(total=10, initial=5, desc="align") as bar:
        clock[0] = 9.0
        bar.update()
    assert caplog.messages == ["align: 60 % (6 of 10 steps, 9 s)"]


@pytest.mark.parametrize(("pause", "quiet"), [(0.001, False), (5.0, True)])
def test_short_and_quiet_loops_say_nothing(
    clock: list[float], caplog: pytest.LogCaptureFixture, pause: float, quiet: bool
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    seen = []
    for value in Progress(range(20), desc="swing", quiet=quiet):
        clock[0] += pause
        seen.append(value)
    assert seen == list(range(20))
    assert not caplog.messages


def test_an_iterable_that_ends_early_is_closed(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    for value in Progress(iter(range(20)), total=20, desc="user2item"):
        clock[0] += 3.0
        if value == 5:
            break
    assert [message.split(" (")[0] for message in caplog.messages] == ["user2item: 10 %", "user2item: 20 %"]
