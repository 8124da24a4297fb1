"""Memory allocator: glibc keeps what a training step frees for the next step."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept_memory"]

# parameters of mallopt(3): blocks beyond TRIM bytes at the top go back to the system; at most MAPPINGS blocks
# are mapped one by one, which the kernel fills with zeros anew each time
TRIM, MAPPINGS = -1, -4
KEEP = {TRIM: 2**31 - 1, MAPPINGS: 0}
USUAL = {TRIM: 64 << 20, MAPPINGS: 65_536}  # what glibc comes to by itself in a process with large arrays


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, large blocks of memory are used again and again; afterwards free ones go back to the system.

    With another C library it does nothing, and in a thread beside the main one only for blocks below 64 MB,
    all that glibc's arenas of such threads can hold. Results are the same either way, to the bit.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    for parameter, value in KEEP.items():
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in USUAL.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)
