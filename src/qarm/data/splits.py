"""Splits of a log into training, validation and test parts, by time or within each user."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from qarm.data.interactions import Log
from qarm.errors import InputError, Problems

__all__ = ["Split", "split_log"]

Kind = Literal["time", "user_tail", "last_out"]
TRAIN, VALID, TEST, UNUSED, UNUSED_LATER = 0, 1, 2, 3, 4
Parts = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Split:
    """The three parts of a log; cold_items: its items without a training event, sorted.

    left_out: events of items held out as cold, from before the test part; they belong to no part, nor do
    left_out_later, the test events of validation's cold items.
    """

    train: Log
    valid: Log
    test: Log
    cold_items: list[str]
    left_out: Log
    left_out_later: Log

    @property
    def explicit(self) -> bool:
        """Whether the log has labels 0 of its own."""
        return any(part.explicit for part in (self.train, self.valid, self.test))


def split_log(
    log: Log,
    *,
    kind: Kind = "time",
    test: float = 0.2,
    valid: float = 0.1,
    cold_items: float = 0.0,
    cold_valid_items: float = 0.0,
    seed: int = 0,
) -> Split:
    """Split all events, positive and negative, into train, valid and test.

    Args:
        log: the events.
        kind: "time" cuts once for all users, so that about the last `test` of the events are test and
            about `valid` before them validation; events at one moment stay together. "user_tail" cuts
            each user's events, shares rounded down; a user with too few for test stays in train, and row
            order breaks ties of time. "last_out" makes each user's last event test and the one before it
            validation, whatever the shares; a user with fewer than 3 events stays in train.
        test, valid: shares of the events, together below 1; 0 leaves a part empty on purpose.
        cold_items: this share of the training items, drawn evenly from rare to frequent, loses its
            events in train and valid.
        cold_valid_items: a second draw of others, which lose their events in train and test, so that
            validation has cold positives as the test does.
        seed: of these draws.

    Raises:
        InputError: an argument is out of range, or a part came out empty.
    """
    _check(log, kind, test, valid, cold_items, cold_valid_items)
    if kind == "time":
        parts = _by_time(log.frame["time"].to_numpy(), test, valid)
    else:
        parts = _by_user(log.frame, kind, test, valid)
    if cold_items:
        parts = _without_cold(log.frame, parts, cold_items, np.random.default_rng(seed))
    if cold_valid_items:
        share = cold_valid_items / (1 - cold_items)  # of all items, drawn from those that are left
        parts = _without_cold(log.frame, parts, share, np.random.default_rng([seed, 1]), kept=VALID)
    train, held_out, tested, unused, later = (
        replace(log, frame=log.frame.filter(parts == part))
        for part in (TRAIN, VALID, TEST, UNUSED, UNUSED_LATER)
    )
    split = Split(train, held_out, tested, sorted(set(log.items) - set(train.items)), unused, later)
    _check_parts(split, kind, test, valid)
    return split


def _check(
    log: Log, kind: str, test: float, valid: float, cold_items: float, cold_valid_items: float
) -> None:
    problems = Problems()
    if not len(log):
        problems.add("the log has no event to split")
    if kind not in get_args(Kind):
        problems.add(f"got split kind {kind!r}, need one of {', '.join(get_args(Kind))}")
    for name, share in (("test", test), ("valid", valid), ("cold_items", cold_items + cold_valid_items)):
        if not 0.0 <= share < 1.0:
            problems.add(f"got {name}={share:g}, need a share of at least 0 and below 1")
    if test + valid >= 1.0:
        problems.add(f"got test + valid = {test + valid:g}, need less than 1; lower one of them")
    problems.raise_any()


def _check_parts(split: Split, kind: str, test: float, valid: float) -> None:
    always = kind == "last_out"
    problems = Problems()
    parts = (
        ("train", split.train, True),
        ("valid", split.valid, always or valid),
        ("test", split.test, always or test),
    )
    for name, part, wanted in parts:
        if wanted and not len(part):
            problems.add(
                f"split {kind}: no event falls into {name}; give more events, or change split.{name}"
            )
    problems.raise_any()


def _by_time(times: npt.NDArray[np.int64], test: float, valid: float) -> Parts:
    parts, ordered = np.full(len(times), TRAIN, dtype=np.int8), np.sort(times)
    begins = np.flatnonzero(np.diff(ordered)) + 1  # where a later moment begins
    wanted = 0.0
    for part, share in ((TEST, test), (VALID, valid)):
        wanted += share * len(times)
        if share and len(begins):
            begin = begins[np.argmin(np.abs(len(times) - begins - wanted))]
            parts[(times >= ordered[begin]) & (parts == TRAIN)] = part
            begins = begins[begins < begin]
    return parts


def _by_user(frame: pl.DataFrame, kind: Kind, test: float, valid: float) -> Parts:
    counted = frame.select(size=pl.len().over("user_id"), place=pl.int_range(pl.len()).over("user_id"))
    sizes = counted["size"].to_numpy().astype(np.int64)
    from_end = sizes - counted["place"].to_numpy()  # 1 is the user's last event
    if kind == "last_out":
        last, last_two = (sizes >= 3) * 1, (sizes >= 3) * 2
    else:
        # 0.1 * 30 is 3.0000000000000004 and 0.29 * 100 is 28.999999999999996: both are meant as whole.
        last, last_two = (np.floor(sizes * share + 1e-9) for share in (test, test + valid))
        last_two = np.where((last > 0) | (test == 0.0), last_two, 0)
    return np.where(from_end <= last, TEST, np.where(from_end <= last_two, VALID, TRAIN)).astype(np.int8)


def _without_cold(
    frame: pl.DataFrame, parts: Parts, share: float, random: np.random.Generator, *, kept: int = TEST
) -> Parts:
    """The parts with the drawn items' events in one of them only: the others belong to no part."""
    counts = frame.filter(parts == TRAIN).group_by("item_id").len()
    ranked = counts.sort("len", "item_id")["item_id"]
    drawn = round(share * len(ranked))
    if not drawn:
        raise InputError(
            f"cold_items={share:g} of {len(ranked)} training items is none; raise split.cold_items"
        )
    # One item from each of `drawn` equal slices of the ranking: as many rare as frequent ones.
    edges = np.arange(drawn + 1) * len(ranked) // drawn
    places = random.integers(edges[:-1], edges[1:])
    cold = frame["item_id"].is_in(ranked.gather(places).implode()).to_numpy()
    removed = cold & (parts != kept) & (parts != UNUSED)
    return np.where(removed, np.where(parts == TEST, UNUSED_LATER, UNUSED), parts).astype(np.int8)
