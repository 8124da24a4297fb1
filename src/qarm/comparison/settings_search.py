"""Ranker settings of every family of variants: searched on validation, read back, or given as frozen."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml
from pydantic import ValidationError

from qarm.comparison.file_hashes import checked, enter
from qarm.comparison.seed_run import SeedRun
from qarm.comparison.successive_halving import FIRST_EPOCHS, apply_setting, grid_of, search_settings
from qarm.comparison.variants import FAMILIES, family_of
from qarm.config import RankerConfig
from qarm.core.atomic_io import read_model, write_json, write_text
from qarm.errors import InputError
from qarm.schemas.comparison import Searched, Setting

__all__ = ["tuned_settings"]

Progress = Callable[[str], None]


def tuned_settings(seed: SeedRun, out: Path, progress: Progress) -> dict[str, RankerConfig]:
    """Settings by family, chosen on validation of the first seed; a finished search is read from its file.

    Each family has a search of its own with the same number of settings and epochs, but for those that
    `compare.tuned` gives. What was chosen is written to `tuned.yaml`, to be frozen in a config.

    Raises:
        InputError: `compare.tuned` holds a value that the ranker refuses.
    """
    compare, families = seed.config.compare, {family_of(variant) for variant in seed.variants}
    if compare.edition == 1:
        return _first_edition(seed, out / "search.json", families, progress)
    base = seed.config.ranker.model_copy(update={"select": "gauc"})
    tuned = dict.fromkeys(families, base)
    frozen = {family: _frozen(family, base, setting) for family, setting in compare.tuned.items()}
    tuned |= {family: settings for family, settings in frozen.items() if family in families}
    if compare.search > 1:
        for family in (name for name in FAMILIES if name in families - frozen.keys()):
            file = out / "search" / f"{family}.json"
            tuned[family] = _searched(seed, base, family, _searched_names(seed, family), file, progress)
        _write_tuned(out, families, compare.tuned)
    return tuned


def _first_edition(
    seed: SeedRun, file: Path, families: set[str], progress: Progress
) -> dict[str, RankerConfig]:
    """One search for the two variants of `compare.primary`, whose settings all families take."""
    compare, ranker = seed.config.compare, seed.config.ranker
    if compare.search > 1:
        ranker = _searched(seed, ranker, "", list(compare.primary), file, progress)
        seed.config = seed.config.model_copy(update={"ranker": ranker})
    return dict.fromkeys(families, ranker)


def _searched_names(seed: SeedRun, family: str) -> list[str]:
    """The variant that a family is searched for: the first of its list that is compared, else its first."""
    names = [variant.name for variant in seed.variants if family_of(variant) == family]
    return [next((name for name in FAMILIES[family] if name in names), names[0])]


def _searched(
    seed: SeedRun, settings: RankerConfig, family: str, names: list[str], file: Path, progress: Progress
) -> RankerConfig:
    compare = seed.config.compare
    if not file.is_file():
        _, searched = search_settings(
            settings,
            compare.search,
            partial(seed.search_trial, names),
            seed=seed.seed,
            grid=grid_of(family, edition=compare.edition),
            first=FIRST_EPOCHS[compare.edition],
        )
        searched.variants = names
        write_json(file, searched)
        enter(seed.folder.parent, file)
        progress(f"ranker settings of {family or 'all variants'} searched: {searched.chosen}")
    return apply_setting(settings, read_model(checked(seed.folder.parent, file), Searched).chosen)


def _frozen(family: str, settings: RankerConfig, setting: Setting) -> RankerConfig:
    try:
        return apply_setting(settings, setting)
    except ValidationError as error:
        problems = [
            f"compare.tuned.{family}.{e['loc'][0]}: {e['msg']}, got {e['input']}" for e in error.errors()
        ]
        raise InputError(*problems) from None


def _write_tuned(out: Path, families: set[str], given: dict[str, Setting]) -> None:
    """The chosen settings as a part of a config."""
    files = {family: out / "search" / f"{family}.json" for family in FAMILIES if family in families}
    chosen = {
        family: given[family] if family in given else read_model(checked(out, file), Searched).chosen
        for family, file in files.items()
    }
    write_text(out / "tuned.yaml", yaml.safe_dump({"compare": {"tuned": chosen}}, sort_keys=False))
    enter(out, out / "tuned.yaml")
