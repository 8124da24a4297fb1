"""Memory that training keeps for its next step: no page is asked for twice, and all of it goes back."""

import platform
import resource

import pytest
import torch

from qarm.engines.memory import kept_memory

FEW = 128  # pages of the block below, where they are as large as 2 MiB


def pages_of_a_step() -> int:
    """Pages that the kernel hands out while a large block is taken, filled and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory its own way")
def test_memory_is_kept_inside_and_goes_back_afterwards() -> None:
    with kept_memory():
        pages_of_a_step()
        assert pages_of_a_step() < FEW / 4
    assert pages_of_a_step() > FEW / 2


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("qarm.engines.memory.ctypes", None)
    with kept_memory():
        assert torch.ones(3).sum() == 3
