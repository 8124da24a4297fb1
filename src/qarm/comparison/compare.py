"""`qarm compare`: every variant and seed by docs/protocol.md, with intervals, resumable."""

import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from qarm.comparison.code_sources import Sources
from qarm.comparison.results import figures
from qarm.comparison.rivals.torch_rechub import need_rechub
from qarm.comparison.seed_run import Seed
from qarm.comparison.successive_halving import halved, with_setting
from qarm.comparison.tables import tables
from qarm.comparison.variants import DEFAULT, Variant, parse_variant
from qarm.comparison.windows import cut
from qarm.config import Config
from qarm.core.atomic_io import read_json, read_model, write_json, write_text
from qarm.core.formats import comparison_key
from qarm.core.run_folder import run_lock
from qarm.data.run_inputs import Run
from qarm.errors import InputError, Problems
from qarm.schemas.base import FORMAT
from qarm.schemas.comparison import ComparedKey

__all__ = ["compare_variants"]

SECTIONS = ("data", "split", "pairs", "encoder", "quantizer", "ranker", "compare")


def compare_variants(config: Config, folder: Path, *, told: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the comparison into `folder/compare`; returns the content of its `results.json`.

    Beside it lie `results.md` and, with the extra `report`, `index.html`. Finished cells are kept, and the
    same call goes on from them; other settings or data are refused.

    Args:
        config: of every stage; `compare` says what is compared.
        folder: a run folder.
        told: gets a line for each finished cell.

    Raises:
        InputError: a variant is unknown, the tables are wrong, or the folder belongs to another comparison.
        MissingExtraError: `compare.peer` is on and torch-rechub is not installed.
    """
    variants = _variants(config)
    if config.compare.peer:
        need_rechub()
    with run_lock(folder):
        run, out = Run(config, folder), folder / "compare"
        catalog, log = run.tables
        _claim(out, run)
        clock = counted = time.perf_counter()
        seeds: list[Seed] = []
        for number in config.compare.seeds:
            windows = cut(
                log,
                config.split.model_dump(include={"kind", "test", "valid"}),
                windows=config.compare.windows,
                cold_items=config.compare.cold_items,
                seed=number,
            )
            sources = Sources(catalog, windows, config, cache=run.cache, seed=number)
            seed = Seed(sources, config, out / f"seed-{number}", variants=variants)
            if not seeds and config.compare.search > 1:
                seed.config = config = _searched(seed, config, out / "search.json", told)
            seed.run(_teller(told, number, clock))
            sources.forget()
            seeds.append(seed)
            counted = _time(out, counted)
        found = figures(seeds, primary=config.compare.primary)
        if (out / "search.json").is_file():
            found["search"] = read_json(out / "search.json")
        write_json(out / "results.json", found)
        write_text(out / "results.md", tables(found))
        if find_spec("plotly") is not None and find_spec("jinja2") is not None:
            from qarm.report.comparison import comparison_page

            write_text(out / "index.html", comparison_page(found, name=folder.name))
        _time(out, counted)
        return found


def _variants(config: Config) -> list[Variant]:
    problems, found = Problems(), []
    names = config.compare.variants or list(DEFAULT)
    for name in names:
        try:
            found.append(parse_variant(name))
        except InputError as error:
            problems.extend(error)
    missing = [name for name in config.compare.primary if name not in names]
    if missing:
        problems.add(f"compare.primary names {', '.join(missing)}, which is not compared; add it to variants")
    if len(set(names)) < len(names):
        problems.add(f"compare.variants = {names} names one twice; remove it")
    problems.raise_any()
    return found


def _claim(out: Path, run: Run) -> None:
    """Write down what the folder belongs to, or see that it is this."""
    read = [run.hash_of(name) for name in ("items", "interactions", *(["users"] if run.has_users else []))]
    compare = run.config.compare.model_dump(mode="json", exclude={"peer", "seeds"})  # change no other cell
    settings = run.settings(SECTIONS) | {"compare": compare}
    file, made = out / "key.json", ComparedKey(format=FORMAT, key=comparison_key(settings, read))
    if file.is_file():
        there = read_model(file, ComparedKey)
        if there.key != comparison_key(settings, read, version=there.format):
            raise InputError(f"{out} holds a comparison of other data or settings; give another --out")
    write_json(file, made)


def _searched(seed: Seed, config: Config, file: Path, told: Callable[[str], None]) -> Config:
    """The config with the ranker settings that the search chose; a search on file is not made again."""
    if not file.is_file():
        trial = partial(seed.tried, config.compare.primary)
        _, found = halved(config.ranker, config.compare.search, trial, seed=seed.seed)
        write_json(file, found)
        told(f"ranker settings searched: {found['chosen']}")
    ranker = with_setting(config.ranker, read_json(file)["chosen"])
    return config.model_copy(update={"ranker": ranker})


def _teller(told: Callable[[str], None], number: int, clock: float) -> Callable[[str], None]:
    return lambda name: told(f"seed {number}  {name}  {time.perf_counter() - clock:.0f} s")


def _processor() -> str:
    """Its name, where Linux tells."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _time(out: Path, since: float) -> float:
    """Add the seconds since then to those of all calls, beside the machine's name; returns the time now."""
    file, now = out / "timing.json", time.perf_counter()
    before = read_json(file)["seconds"] if file.is_file() else 0.0
    machine = {"processor": _processor(), "threads": torch.get_num_threads()}
    write_json(file, {"seconds": round(before + now - since, 1), **machine})
    return now
