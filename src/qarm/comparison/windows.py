"""Windows of the log, in order: one for pairs and alignment, one for the ranker's rows, one for the test."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from qarm.config import CompareConfig, SplitConfig
from qarm.data.interactions import Log
from qarm.data.splits import Split, split_log
from qarm.errors import InputError

__all__ = ["Windows", "cut_windows", "sample_users"]


@dataclass(frozen=True)
class Windows:
    """Parts of a log for each purpose.

    split: training, validation and test part; pairs: the events that pairs are mined from; rows: the events
    that the ranker is trained on, all of the training part from the protocol's second edition on.
    """

    split: Split
    pairs: Log
    rows: Log


def cut_windows(log: Log, split: SplitConfig, compare: CompareConfig, *, seed: int) -> Windows:
    """Windows by the protocol (docs/protocol.md).

    Args:
        split: `kind`, `test` and `valid` of `split_log`.
        compare: windows: three halves the training part by order, of each user, or of the log where `kind` is
            time, and pairs come from the earlier half; edition: 1 trains the ranker on the later half only;
            cold_items: share of the training items that lose their events before the test part, and of others
            that keep those of the validation part only (edition 2).
        seed: of that draw.

    Raises:
        InputError: a window without events.
    """
    parts = split_log(
        log,
        kind=split.kind,
        test=split.test,
        valid=split.valid,
        cold_items=compare.cold_items,
        cold_valid_items=compare.cold_items if compare.edition > 1 else 0.0,
        seed=seed,
    )
    if compare.windows == "one":
        return Windows(parts, parts.train, parts.train)
    kind: Literal["time", "user_tail"] = "time" if split.kind == "time" else "user_tail"
    halves = split_log(parts.train, kind=kind, test=0.5, valid=0.0)
    if not len(halves.train.positives()) or not len(halves.test.positives()):
        raise InputError("a window has no positive event; give more events, or set compare.windows to one")
    return Windows(parts, halves.train, halves.test if compare.edition == 1 else parts.train)


def sample_users(log: Log, *, users: int) -> tuple[Log, Log]:
    """The events of `users` users, of all when there are fewer, and the events of the other users.

    Users stand in the order of a hash of their ids: the sample depends on no seed, and a user's membership
    hardly on which other users there are.
    """
    order = sorted(log.users, key=lambda user: blake2b(user.encode()).digest())
    return log.only_users(order[:users]), log.only_users(order[users:])
