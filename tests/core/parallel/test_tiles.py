"""Tiles on threads: everything is done once, faults come out, settings are put back."""

import threading

import pytest
import torch

from qarm.core.parallel.tiles import over_tiles


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    return int(request.param)


def test_every_tile_comes_once(threads: int) -> None:
    states = over_tiles(103, 10, list, lambda state, start, stop: state.append((start, stop)))
    assert len(states) == threads
    tiles = sorted(tile for state in states for tile in state)
    assert tiles == [(start, min(start + 10, 103)) for start in range(0, 103, 10)]


def test_no_rows_no_calls(threads: int) -> None:
    assert over_tiles(0, 10, list, lambda state, start, stop: state.append(start)) == [[]]


def test_a_fault_in_a_tile_comes_out(threads: int) -> None:
    def work(_: None, start: int, stop: int) -> None:
        if start == 50:
            raise KeyError("tile 50")

    with pytest.raises(KeyError, match="tile 50"):
        over_tiles(103, 10, lambda: None, work)


def test_the_callers_number_of_threads_stays() -> None:
    before = torch.get_num_threads()
    seen: list[tuple[bool, int]] = []

    def work(_: None, start: int, stop: int) -> None:
        seen.append((threading.current_thread() is threading.main_thread(), torch.get_num_threads()))

    try:
        torch.set_num_threads(2)
        over_tiles(4, 1, lambda: None, work)
        assert torch.get_num_threads() == 2
        assert set(seen) == {(False, 1)}
    finally:
        torch.set_num_threads(before)
