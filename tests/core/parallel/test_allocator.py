"""Memory that training keeps for its next step: no page is asked for twice, and all of it goes back."""

import platform
import subprocess
import sys

import pytest
import torch

from qarm.core.parallel.allocator import kept_memory

FEW = 128  # pages of the block below, where they are as large as 2 MiB
# in a process of its own: what runs tests may run them in a thread beside the main one
STEPS = """
import resource, torch
from qarm.core.parallel.allocator import kept_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with kept_memory():
    print(pages(), min(pages() for _ in range(10)))
print(pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory its own way")
def test_memory_is_kept_inside_and_goes_back_afterwards() -> None:
    """Pages that the kernel hands out while a block is taken, filled, freed: first, at best, afterwards."""
    told = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True).stdout
    first, later, afterwards = map(int, told.split())
    assert first > FEW / 2
    assert later < FEW / 4
    assert afterwards > FEW / 2


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("qarm.core.parallel.allocator.ctypes", None)
    with kept_memory():
        assert torch.ones(3).sum() == 3
