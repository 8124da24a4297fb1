"""Three windows, in order: one for pairs and alignment, one for the ranker's rows, one for the test."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from qarm.data.interactions import Log
from qarm.data.splits import Split, split_log
from qarm.errors import InputError

__all__ = ["Windows", "cut", "drawn_users"]


@dataclass(frozen=True)
class Windows:
    """split: training, validation and test part; pairs: what pairs are mined from; rows: what the ranker
    trains on; both are parts of the training part, or all of it where one window serves both.
    """

    split: Split
    pairs: Log
    rows: Log


def cut(
    log: Log, split: Mapping[str, Any], *, windows: Literal["three", "one"], cold_items: float, seed: int
) -> Windows:
    """Cut a log by the protocol (docs/protocol.md).

    Args:
        split: `kind`, `test` and `valid` of `split_log`.
        windows: three halves the training part by order: of each user, or of the log where `kind` is time.
        cold_items: share of the training items that lose their events before the test part.
        seed: of that draw.

    Raises:
        InputError: a window without events.
    """
    parts = split_log(log, **{**split, "cold_items": cold_items}, seed=seed)
    if windows == "one":
        return Windows(parts, parts.train, parts.train)
    kind: Literal["time", "user_tail"] = "time" if split["kind"] == "time" else "user_tail"
    halves = split_log(parts.train, kind=kind, test=0.5, valid=0.0)
    if not len(halves.train.positives()) or not len(halves.test.positives()):
        raise InputError("a window has no positive event; give more events, or set compare.windows to one")
    return Windows(parts, halves.train, halves.test)


def drawn_users(log: Log, *, users: int) -> tuple[Log, Log]:
    """The events of so many of the log's users, of all when there are fewer, and the other users' events.

    Users stand in the order of a hash of their ids: who is drawn depends on no seed, and hardly on who else
    is there.
    """
    order = sorted(log.users, key=lambda user: blake2b(user.encode()).digest())
    return log.only_users(order[:users]), log.only_users(order[users:])
