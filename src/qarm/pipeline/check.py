"""Stage check, and `qarm check`: what the tables hold, and everything that a later stage would refuse."""

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path

from qarm.config import Config
from qarm.core.atomic_io import read_model, write_json
from qarm.core.scratch import Scratch
from qarm.data.log_profile import log_profile, thin_parts
from qarm.data.run_inputs import Run
from qarm.errors import InputError, Problems
from qarm.pipeline.expected_work import expected_work
from qarm.pipeline.requirements import (
    code_requirements,
    encoder_requirements,
    missing_extras,
    pair_requirements,
    unmet,
)
from qarm.schemas.base import Check, Figure
from qarm.schemas.check import InputReport

__all__ = ["check_input", "check_tables", "unmet_requirements"]


def check_tables(run: Run, work: Path) -> Mapping[str, Figure]:
    """Row counts of both tables, and media that cannot be read."""
    from qarm.data.media import check_media

    catalog, log = run.tables
    media = check_media(catalog)
    media.require(most=run.config.data.max_unreadable)
    report = Check(
        items=len(catalog),
        users=len(log.users),
        interactions=len(log),
        unknown_interactions=log.unknown,
        bad_images=media.images,
        bad_sounds=media.sounds,
    )
    if media.numbers:
        report.bad_numbers = media.numbers
    write_json(work / "check.json", report)
    counts = {"bad_images": len(report.bad_images), "bad_sounds": len(report.bad_sounds)}
    return report.model_dump(exclude={"bad_images", "bad_sounds", "bad_numbers"}) | counts


def check_input(config: Config) -> InputReport:
    """Report on the tables, the media, the split and the encoders, without a run folder.

    Raises:
        InputError: everything that this or a later stage would refuse.
    """
    problems, timings, warnings = Problems(), dict[str, float](), list[str]()
    for problem in missing_extras(config):
        problems.add(problem)
    with Scratch() as scratch:
        run = Run(config, scratch.path)
        try:
            (scratch.path / "check").mkdir()
            check_tables(run, scratch.path / "check")
        except InputError as error:
            problems.extend(error)
        else:
            stages = {"mine", "align", "quantize"}
            for problem in unmet_requirements(run, stages, timings=timings, warnings=warnings):
                problems.add(problem)
        problems.raise_any()
        check = read_model(scratch.path / "check" / "check.json", Check)
        profile = log_profile(run.tables[1], run.split)
        return InputReport(
            **dict(check),
            texts=run.tables[0].sample(),
            log=profile,
            expected=expected_work(run, sum(timings.values())),
            warnings=[*thin_parts(profile, run.split), *warnings],
        )


def unmet_requirements(
    run: Run,
    stages: Collection[str],
    *,
    timings: dict[str, float] | None = None,
    warnings: list[str] | None = None,
) -> list[str]:
    """What the stages would refuse, found before the first of them starts; needs a finished check.

    Args:
        run: the run.
        stages: the names of those that will be made.
        timings: gets the seconds for one item by encoder, which loads it; None: it is not loaded.
        warnings: gets what an encoder that is loaded does not read.
    """
    try:
        known, split = run.known, run.split
    except InputError as error:
        return error.problems
    requirements: list[Iterator[Callable[[], object]]] = []
    if "mine" in stages:
        requirements.append(pair_requirements(run.config, split))
    if "align" in stages:
        requirements.append(encoder_requirements(run.config, known, timings=timings, warnings=warnings))
    if "quantize" in stages:
        requirements.append(code_requirements(run.config, len(known)))
    return unmet(chain.from_iterable(requirements))
