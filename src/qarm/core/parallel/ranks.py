"""Variables of torchrun: how many processes it started, and which of them this is."""

import os

from qarm.errors import InputError

__all__ = ["launched", "rank"]

RANK, SIZE = "RANK", "WORLD_SIZE"
MEETING = ("MASTER_ADDR", "MASTER_PORT")


def rank() -> int:
    """Number of this process among torchrun's, 0 where it is alone; an empty variable counts as unset."""
    return _number(RANK, 0)


def launched() -> bool:
    """Whether torchrun started this process as one of several; torch is not imported.

    Raises:
        InputError: a variable is no number, or those by which the processes meet are missing.
    """
    size = _number(SIZE, 1)
    if size == 1 or not os.environ.get(RANK):
        return False
    missing = [name for name in MEETING if not os.environ.get(name)]
    if missing or not rank() < size:
        raise InputError(
            f"got {SIZE}={size} and {RANK}={rank()}, need a rank below the size, and {' and '.join(MEETING)}"
            f"{' (missing: ' + ', '.join(missing) + ')' if missing else ''}; start with torchrun, which sets "
            f"them, or unset {SIZE}"
        )
    return True


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or (name == SIZE and int(text) < 1):
        raise InputError(f"got {name}={text!r} in the environment, need a whole number; unset it")
    return int(text)
