"""Comparison of all variants and seeds by docs/protocol.md, with intervals; `qarm compare`, resumable."""

import platform
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from qarm.comparison.code_sources import CodeSources
from qarm.comparison.evidence import write_evidence
from qarm.comparison.file_hashes import checked, enter
from qarm.comparison.results import compare_seeds
from qarm.comparison.rivals.retrieval_arms import SeedRetrieval, compare_retrieval
from qarm.comparison.rivals.torch_rechub import need_rechub
from qarm.comparison.seed_run import SeedRun
from qarm.comparison.settings_search import tuned_settings
from qarm.comparison.tables import comparison_tables
from qarm.comparison.variants import DEFAULT, FAMILIES, Variant, parse_variant
from qarm.comparison.windows import cut_windows
from qarm.config import Config
from qarm.core.atomic_io import read_model, write_json, write_text
from qarm.core.formats import comparison_key
from qarm.core.run_folder import run_lock
from qarm.data.run_inputs import Run
from qarm.errors import InputError, Problems
from qarm.schemas.base import FORMAT
from qarm.schemas.comparison import Compared, ComparedKey, ComparedTiming, Searched

__all__ = ["compare_variants", "seed_run"]

WRITTEN = ("results.json", "results.md", "index.html")
UNKEYED = {"peer", "seeds", "retrieval"}  # change no other cell
SECTIONS = ("data", "split", "pairs", "encoder", "quantizer", "ranker", "compare")


def compare_variants(config: Config, folder: Path, *, progress: Callable[[str], None] = print) -> Compared:
    """Results of the comparison, which is run into `folder/compare`, as in its `results.json`.

    Beside it lie `results.md`, `evidence/` with every judged row and score, from which
    benchmarks/recompute.py computes the figures again, and, with the extra `report`, `index.html`. Finished
    rankers are kept, and the same call resumes from them; other settings or data are refused.

    Args:
        config: of every stage; `compare` says what is compared.
        folder: a run folder.
        progress: called with a line for each finished ranker.

    Raises:
        InputError: a variant is unknown, the tables are wrong, or the folder belongs to another comparison.
        MissingExtraError: `compare.peer` is on and torch-rechub is not installed.
    """
    variants = _variants(config)
    if config.compare.peer:
        need_rechub()
    with run_lock(folder):
        run, out = Run(config, folder), folder / "compare"
        _claim(out, run)
        clock = counted = time.perf_counter()
        seeds: list[SeedRun] = []
        arms: list[SeedRetrieval] = []
        for number in config.compare.seeds:
            seed = seed_run(run, out, variants, seed=number)
            seed.tuned = seeds[0].tuned if seeds else tuned_settings(seed, out, progress)
            seed.run(_progress_of_seed(progress, number, clock))
            if config.compare.retrieval:
                arms.append(SeedRetrieval(seed.sources, config.retriever, out / f"seed-{number}"))
                arms[-1].run()
                progress(f"seed {number}  retrieval arms  {time.perf_counter() - clock:.0f} s")
            seed.sources.clear()
            seeds.append(seed)
            counted = _time(out, counted)
        results = compare_seeds(seeds, primary=config.compare.primary)
        if arms:
            results.retrieval = compare_retrieval(arms)
        if (out / "search.json").is_file():
            results.search = read_model(checked(out, out / "search.json"), Searched)
        results.searches = {
            family: read_model(checked(out, file), Searched)
            for family in FAMILIES
            if (file := out / "search" / f"{family}.json").is_file()
        }
        evidence = write_evidence(seeds, out / "evidence")
        write_json(out / "results.json", results)
        write_text(out / "results.md", comparison_tables(results))
        if find_spec("plotly") is not None and find_spec("jinja2") is not None:
            from qarm.report.comparison import comparison_page

            write_text(out / "index.html", comparison_page(results, name=folder.name))
        enter(out, *evidence, *(out / name for name in WRITTEN if (out / name).is_file()))
        _time(out, counted)
        return results


def seed_run(run: Run, folder: Path, variants: Sequence[Variant], *, seed: int) -> SeedRun:
    """Untrained run of one seed in `folder/seed-<n>`, with its windows, code sources and variants."""
    catalog, log = run.tables
    windows = cut_windows(log, run.config.split, run.config.compare, seed=seed)
    sources = CodeSources(catalog, windows, run.config, cache=run.cache, seed=seed)
    return SeedRun(sources, run.config, folder / f"seed-{seed}", variants=variants)


def _variants(config: Config) -> list[Variant]:
    problems, variants = Problems(), []
    names = config.compare.variants or list(DEFAULT)
    for name in names:
        try:
            variants.append(parse_variant(name))
        except InputError as error:
            problems.extend(error)
    missing = [name for name in config.compare.primary if name not in names]
    if missing:
        problems.add(f"compare.primary names {', '.join(missing)}, which is not compared; add it to variants")
    if len(set(names)) < len(names):
        problems.add(f"compare.variants = {names} names one twice; remove it")
    for family in config.compare.tuned.keys() - FAMILIES.keys():
        problems.add(f"compare.tuned names {family!r}, need one of {', '.join(FAMILIES)}")
    problems.raise_any()
    return variants


def _claim(out: Path, run: Run) -> None:
    """Write the key of the settings and tables that the folder belongs to, or check that it is the same."""
    read = [run.hash_of(name) for name in ("items", "interactions", *(["users"] if run.has_users else []))]
    compare = run.config.compare.model_dump(mode="json", exclude=UNKEYED)
    settings = run.settings(SECTIONS) | {"compare": compare}
    file, key = out / "key.json", ComparedKey(format=FORMAT, key=comparison_key(settings, read))
    if file.is_file():
        kept = read_model(checked(out, file), ComparedKey)
        if kept.key != comparison_key(settings, read, version=kept.format):
            raise InputError(
                f"{out} holds a comparison of other data or settings; give another --out, or, "
                "where the first edition of docs/protocol.md began it, compare.edition=1"
            )
    write_json(file, key)
    enter(out, file)


def _progress_of_seed(progress: Callable[[str], None], number: int, clock: float) -> Callable[[str], None]:
    return lambda name: progress(f"seed {number}  {name}  {time.perf_counter() - clock:.0f} s")


def _processor() -> str:
    """The processor's name in /proc/cpuinfo on Linux, else as Python reports it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _time(out: Path, since: float) -> float:
    """The time now; adds the seconds since `since` to those of all calls, beside the machine's name."""
    file, now = out / "timing.json", time.perf_counter()
    before = read_model(file, ComparedTiming).seconds if file.is_file() else 0.0
    seconds = round(before + now - since, 1)
    write_json(file, ComparedTiming(seconds=seconds, processor=_processor(), threads=torch.get_num_threads()))
    return now
