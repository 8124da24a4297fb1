"""Proposal of a config for a shop's tables: columns, label and split, with the reason for each."""

import os
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

import polars as pl

from qarm.config import Config
from qarm.core.atomic_io import write_text
from qarm.core.paths import as_path
from qarm.core.tables import address, as_numbers, media_folder
from qarm.data.interactions import Log
from qarm.data.run_inputs import Run
from qarm.data.splits import Split, split_log
from qarm.errors import InputError, shown
from qarm.pipeline.column_detection import choose_label, is_named
from qarm.pipeline.config_text import config_content, config_text
from qarm.pipeline.content_detection import MEDIA_NAMES, choose_texts, media_columns
from qarm.pipeline.requirements import pair_requirements, unmet
from qarm.pipeline.table_roles import Opened, Roles, assign_roles
from qarm.schemas.proposal import Guess, Proposal

__all__ = ["propose_config", "write_proposal"]

EVENT_KINDS = ("event", "event_type", "action", "behavior", "behaviour", "interaction", "type")
WEIGHTS = ("weight", "price", "amount", "quantity", "revenue", "watch_time", "duration")
MOST_EVENT_KINDS = 20
MAX_UNKNOWN = 0.05  # the config's default
SHARES = ((0.2, 0.1), (0.1, 0.1), (0.3, 0.15), (0.4, 0.2))  # test, validation
NEAREST = 25  # the config's default


def propose_config(tables: Sequence[Path | str]) -> Proposal:
    """Config for a catalogue and a log, and a table of users where there is one, in any order.

    Args:
        tables: files, folders, patterns and addresses, as in `data.items.path`.

    Raises:
        InputError: a table cannot be read, or what a run needs cannot be guessed.
    """
    locations = [address(table) or str(as_path(table)) for table in tables]
    twice = sorted({location for location in locations if locations.count(location) > 1})
    if twice:
        raise InputError(f"got {shown(twice)} several times, need each table once")
    opened = [Opened.read(location) for location in locations]
    roles = assign_roles([one for one, _ in opened])
    notes = [note for _, notes in opened for note in notes]
    notes += [f"{location} is not used: no ids that match" for location in roles.unused]
    guesses = [*_items(roles, notes), *_interactions(roles), *_users(roles)]
    split, problems = _split(guesses)
    return Proposal(guesses=[*guesses, *split], notes=notes, problems=problems)


def write_proposal(proposal: Proposal, out: Path, *, overwrite: bool = False) -> None:
    """Config file with a comment for each key.

    Raises:
        InputError: the file is there already with other content, and `overwrite` is off.
    """
    text = config_text(proposal)
    same = out.is_file() and out.read_bytes() == text.encode()  # written anew: a kill may have left more
    if not overwrite and not same and os.path.lexists(out):
        raise InputError(f"{out}: is there already; give another name, or --overwrite")
    write_text(out, text)


def _items(roles: Roles, notes: list[str]) -> Iterator[Guess]:
    opened = roles.items
    count = opened.frame.height
    rival = f"; {roles.rival}" if roles.rival else ""
    yield _guess("items.path", opened.location, f"the catalogue: {count:,} rows{rival}", not rival)
    yield _guess("items.id", roles.id.column, roles.id.why, roles.id.sure)
    media = {kind: _media(opened, kind, notes) for kind in MEDIA_NAMES}
    texts = choose_texts(opened.table, [roles.id.column, *(column for column, _, _ in media.values())])
    why = "columns of words, joined in this order" if texts.columns else "no column of words"
    if texts.left_out:
        why += f"; left out: {shown(texts.left_out)}"
    yield _guess("items.text", list(texts.columns), why, not texts.left_out)
    if not texts.columns and not any(column for column, _, _ in media.values()):
        raise InputError(
            f"{opened.location}: no column of words, pictures or sounds among "
            f"{shown(opened.frame.columns, first=12)}; an item needs one that an encoder can read"
        )
    for kind, (column, why, sure) in media.items():
        yield _guess(f"items.{kind}", column, why, sure)


def _media(opened: Opened, kind: str, notes: list[str]) -> tuple[str | None, str, bool]:
    """Column of pictures or sounds, why, and whether there is no other."""
    folder = media_folder(opened.location)
    exists = None if folder is None else lambda name: (folder / name).is_file()
    found = list(media_columns(opened.frame, kind, exists))
    notes += [f"{opened.location}: column {name} is no {kind}: {reason}" for name, reason in found if reason]
    readable = [name for name, reason in found if reason is None]
    if not readable:
        return None, "none that can be read" if found else "none there", not found
    there = opened.frame.height - opened.frame[readable[0]].null_count()
    others = f"; {shown(readable[1:])} too" if readable[1:] else ""
    return readable[0], f"{there:,} of the items have one{others}", not others


def _interactions(roles: Roles) -> Iterator[Guess]:
    opened, when = roles.log, roles.when
    frame = opened.frame
    yield _guess("interactions.path", opened.location, f"the log: {frame.height:,} rows")
    yield _guess("interactions.user", roles.user.column, roles.user.why, roles.user.sure)
    yield _guess("interactions.item", roles.item.column, roles.item.why, roles.item.sure)
    yield _guess(f"interactions.{when[0]}", when[1].column, when[1].why, when[1].sure)
    if "time_format" in when[1].why:
        why = "set it to this or to '%m/%d/%Y'; the dates do not tell"
        yield _guess("interactions.time_format", "%d/%m/%Y", why, sure=False, active=False)
    taken = {roles.user.column, roles.item.column, when[1].column}
    rest = [name for name in frame.columns if name not in taken]
    yield from _labels(frame, rest)
    yield from _events(frame, rest)
    yield from _weights(frame, rest)
    if roles.known < 1.0 - MAX_UNKNOWN:
        most = ceil(100 * (1.0 - roles.known) + 1) / 100
        why = f"{1.0 - roles.known:.1%} of the events are on items that the catalogue lacks; they are dropped"
        yield _guess("interactions.max_unknown", most, why, sure=False)


def _labels(frame: pl.DataFrame, names: Sequence[str]) -> Iterator[Guess]:
    label, others = choose_label(frame, names)
    if label is None:
        yield _guess("interactions.label", None, "every event counts as positive")
    elif label.at_least is None:
        yield _guess("interactions.label", label.column, label.why, label.sure)
    else:
        least = int(label.at_least) if label.at_least == round(label.at_least) else label.at_least
        rule = {"column": label.column, "at_least": least}
        yield _guess("interactions.label", rule, label.why, label.sure)
        values = as_numbers(frame[label.column])
        if values is not None and (missing := values.null_count()):
            why = f"{missing:,} events without a grade are left out"
            bound = {label.column: {"at_least": float(values.min() or 0.0)}}  # type: ignore[arg-type] # of floats
            yield _guess("interactions.where", bound, why, sure=False)
    if others:
        auxiliary = {name: name for name in others}
        why = "the ranker can learn them too"
        yield _guess("interactions.labels", auxiliary, why, sure=False, active=False)


def _events(frame: pl.DataFrame, names: Sequence[str]) -> Iterator[Guess]:
    """A condition on the kind of the events, where there are several."""
    for name in names:
        if not is_named(name, EVENT_KINDS) or frame[name].dtype != pl.String:
            continue
        counts = frame[name].value_counts(sort=True)
        if 2 <= counts.height <= MOST_EVENT_KINDS:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in counts.iter_rows())
            why = f"all kinds of events count: {kinds}; this keeps one of them"
            value = {name: counts[name].drop_nulls().last()}
            yield _guess("interactions.where", value, why, sure=False, active=False)


def _weights(frame: pl.DataFrame, names: Sequence[str]) -> Iterator[Guess]:
    """A column of positive numbers; only one that is named a weight is set."""
    for name in names:
        values = as_numbers(frame[name]) if is_named(name, WEIGHTS) else None
        if values is not None and not values.null_count() and bool((values > 0).all()):
            set_it = is_named(name, WEIGHTS[:1])
            why = "positive numbers: what an event counts in the ranker's loss"
            yield _guess("interactions.weight", name, why, sure=set_it, active=set_it)
            return


def _users(roles: Roles) -> Iterator[Guess]:
    if roles.users is None:
        return
    yield _guess("users.path", roles.users.opened.location, "the users: their ids are those of the log")
    yield _guess("users.id", roles.users.id, "a value for each user")
    why = "columns of few values, which the ranker reads"
    yield _guess("users.features", list(roles.users.features), why, sure=False)


def _guess(key: str, value: object, why: str, sure: bool = True, *, active: bool = True) -> Guess:
    return Guess.model_validate(
        {"key": f"data.{key}", "value": value, "why": why, "sure": sure, "active": active}
    )


# ---- split and settings that depend on the number of items --------------------------------------


def _split(guesses: Sequence[Guess]) -> tuple[list[Guess], list[str]]:
    """Split in which each part can be used, and what the tables lack so that there is none."""
    config = Config.model_validate(config_content(guesses))
    try:
        log = Run(config, Path()).tables[1]
    except InputError as error:
        default = Guess(key="split.kind", value="time", why="the tables cannot be read yet", sure=False)
        return [default], error.problems
    chosen = _usable(log, config)
    if isinstance(chosen, list):
        default = Guess(key="split.kind", value="time", why="no split leaves usable parts", sure=False)
        return [default], chosen
    split, found = chosen
    found += _small(len(split.train.items))
    if not set(split.test.items) - set(split.train.items):
        why = "test has no cold item: this would hide some items from training, to measure the gain on them"
        found.append(Guess(key="split.cold_items", value=0.1, why=why, sure=False, active=False))
    return found, []


def _usable(log: Log, config: Config) -> tuple[Split, list[Guess]] | list[str]:
    """The first split whose parts have positives and whose training part can give pairs."""
    kinds = ["user_tail", "time"] if _within_users(log) else ["time", "user_tail"]
    reasons = list[str]()
    for kind in kinds:
        for test, valid in SHARES:
            try:
                split = split_log(log, kind=kind, test=test, valid=valid, seed=config.seed)  # type: ignore[arg-type]
            except InputError as error:
                reasons += error.problems
                continue
            empty = [name for name in ("valid", "test") if not len(getattr(split, name).positives())]
            lacking = unmet(pair_requirements(config, split))
            lacking += [f"split {kind}: no positive event falls into {name}" for name in empty]
            if not lacking:
                return split, _split_guesses(split, kind, test, valid, first=kind == "time")
            reasons += lacking
    return list(dict.fromkeys(reasons))


def _within_users(log: Log) -> bool:
    """Whether times are positions that begin anew with each user."""
    first = log.frame.group_by("user_id").agg(pl.col("time").min())["time"]
    return log.period is None and len(first) > 1 and float((first == first.min()).sum()) > len(first) / 2


def _split_guesses(split: Split, kind: str, test: float, valid: float, *, first: bool) -> list[Guess]:
    sizes = ", ".join(f"{name} {len(getattr(split, name)):,}" for name in ("train", "valid", "test"))
    positive = ", ".join(f"{name} {len(getattr(split, name).positives()):,}" for name in ("valid", "test"))
    how = "one cut in time for all users" if kind == "time" else "the last events of each user"
    return [
        Guess(key="split.kind", value=kind, why=how, sure=first),
        Guess(key="split.test", value=test, why=f"events: {sizes}"),
        Guess(key="split.valid", value=valid, why=f"positive events: {positive}"),
    ]


def _small(known: int) -> list[Guess]:
    """Settings that a small catalogue needs."""
    if known > NEAREST:
        return []
    why = f"a VQ code has fewer entries than the {known:,} items with a training event"
    return [Guess(key="quantizer.nearest", value=max(1, known // 4), why=why, sure=False)]
