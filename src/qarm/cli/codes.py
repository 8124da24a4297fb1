"""Commands of the codes: quantize with its versions, monitor, encode, export-codes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from qarm.cli.arguments import (
    AllowUnreadable,
    FinishedRun,
    Json,
    NewItems,
    Output,
    Settings,
    load_settings,
    run_first,
)
from qarm.cli.output import fail, figure, print_figures, show_stages
from qarm.cli.run_log import run_messages
from qarm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qarm.config import Config
    from qarm.pipeline.verification import Damage
    from qarm.schemas.base import Schema

__all__ = ["app"]

app = App()
OUTPUT = Output()
DRIFTED = 3  # exit code of `monitor`


@app.command
def quantize(
    config: Annotated[
        Path | None,
        Parameter(help="YAML file; with --append, --refit and --rollback the run folder."),
    ] = None,
    *,
    out: Annotated[
        Path | None, Parameter(help="Run folder, where CONFIG is a file; of --vectors the new folder.")
    ] = None,
    append: Annotated[
        Path | None, Parameter(help="Code these new items too; no published code moves.")
    ] = None,
    refit: Annotated[
        bool, Parameter(help="Fit again from the old centroids: a new version.", negative="")
    ] = False,
    rollback: Annotated[int | None, Parameter(help="Make this earlier version the current one.")] = None,
    vectors: Annotated[
        Path | None,
        Parameter(help="Code these vectors (.npy or table), without a run; out is a new folder."),
    ] = None,
    allow_unreadable: AllowUnreadable = False,
    settings: Settings = None,
    output: Output = OUTPUT,
) -> None:
    """Residual k-means and nearest-rows codes of every item. Runs the stages before it too.

    --append, --refit and --rollback go on with the run's own settings, and run no other stage; other settings
    than those are refused. --vectors needs neither items nor interactions, and writes a folder of codes.
    """
    from qarm.pipeline import run_stages
    from qarm.quantizer.versions.lifecycle import append_items, refit_codes, roll_back

    named = {"--append": append, "--refit": refit or None, "--rollback": rollback, "--vectors": vectors}
    tasks = [name for name, value in named.items() if value is not None]
    if len(tasks) > 1:
        raise InputError(f"got {' and '.join(tasks)}, need at most one of them; run one after the other")
    if vectors is not None:
        _code_vectors(vectors, out, load_settings(config, settings), output)
        return
    config, run = _config_and_run(config, out, task=tasks[0] if tasks else None)
    if not tasks:
        with run_messages(run, output):
            show_stages(run_stages(load_settings(config, settings), run, last="quantize"), output)
        return
    given = _checked_settings(config, settings, run, task=tasks[0])
    result: Schema
    if append is not None:
        result = append_items(run, append, allow_unreadable=allow_unreadable)
    elif rollback is not None:
        result = roll_back(run, rollback)
    else:
        result = refit_codes(run, config=given)
    if not output.quiet:
        print_figures(tasks[0].removeprefix("--"), run / "codes", result.content(), as_json=output.as_json)


def _code_vectors(vectors: Path, out: Path | None, config: "Config", output: Output) -> None:
    """Codes of given vectors, in a folder of their own."""
    from qarm.quantizer.versions.vector_codes import quantize_vectors

    if out is None:
        raise InputError("no folder for the codes; give one: qarm quantize --vectors VECTORS --out FOLDER")
    figures = quantize_vectors(vectors, out, config.quantizer, seed=config.seed)
    if not output.quiet:
        print_figures("quantize", out, figures, as_json=output.as_json)


def _config_and_run(config: Path | None, out: Path | None, *, task: str | None) -> tuple[Path | None, Path]:
    """The YAML file and the run folder; with a task the first argument may be the run folder."""
    if config is not None and config.is_dir():
        if task is None:
            raise InputError(f"{config} is a folder, need a YAML file: qarm quantize CONFIG --out {config}")
        if out is not None and out.resolve() != config.resolve():
            raise InputError(f"got two run folders, {config} and {out}; leave out --out")
        return None, config
    if out is None:
        usage = "CONFIG --out RUN" if task is None else f"RUN {task}"
        raise InputError(f"no run folder; give one: qarm quantize {usage}")
    if config is None and task is None:
        raise InputError(f"no config; give one: qarm quantize CONFIG --out {out}")
    return config, out


def _checked_settings(
    config: Path | None, settings: list[str] | None, run: Path, *, task: str
) -> "Config | None":
    """The settings given, after a check that they are those of the run; None where none were given."""
    from qarm.data.saved_settings import check_settings

    if config is None and not settings:
        return None
    given = load_settings(config, settings)
    only = None if config is not None else [setting.partition("=")[0] for setting in settings or []]
    check_settings(run, given, only=only, task=task)
    return given


LEGEND = """\
stability_excess  how much the shares of the codes have shifted, beyond what chance does; 0 is no shift
energy_ratio      energy that the codes leave, over that at fit time; above 1 they fit worse
hottest_ratio     share of the code with most new items, over the highest that chance gives
limits            {limits}; {items:,} new items, {items_at_fit:,} at fit time"""


@app.command
def monitor(
    run: FinishedRun,
    items: NewItems,
    *,
    stability_excess: Annotated[float, Parameter(help="Highest that passes.")] = 0.25,
    energy_ratio: Annotated[float, Parameter(help="Highest that passes.")] = 1.25,
    hottest_ratio: Annotated[float, Parameter(help="Highest that passes.")] = 3.0,
    as_json: Json = False,
) -> None:
    """Compare new items with fit time; exits with 3 where they have drifted too far."""
    from qarm.quantizer.versions.lifecycle import drift

    run_first("qarm monitor", run, items)
    limits = {
        "stability_excess": stability_excess,
        "energy_ratio": energy_ratio,
        "hottest_ratio": hottest_ratio,
    }
    report = drift(run, items, thresholds=limits)
    if as_json:
        print(json.dumps(report.content()))
    else:
        for level in report.levels:
            print(
                f"level {level.level}  {'  '.join(f'{key}={figure(getattr(level, key))}' for key in limits)}"
            )
        shown = ", ".join(f"{name} {limit:g}" for name, limit in limits.items())
        print(LEGEND.format(limits=shown, items=report.items, items_at_fit=report.items_at_fit))
    if report.exceeded:
        fail("\n".join(report.exceeded), DRIFTED)


@app.command
def encode(
    run: FinishedRun,
    items: NewItems,
    *,
    out: Annotated[Path, Parameter(help="Table to write: .parquet, .csv, .tsv, .jsonl or .arrow.")],
    allow_unreadable: AllowUnreadable = False,
    as_json: Json = False,
) -> None:
    """Code items that a run has never seen, with its frozen encoder and codebooks."""
    from qarm.core.tables.writer import checked_ending
    from qarm.quantizer.coder import encode as encode_items

    checked_ending(out)
    run_first("qarm encode", run, items)
    codes = encode_items(run, items, allow_unreadable=allow_unreadable)
    codes.write(out)
    print_figures("encode", out, {"items": len(codes), "levels": codes.rq.shape[1]}, as_json=as_json)


@app.command
def verify(
    folder: Annotated[
        Path, Parameter(help="A run, what export or export-codes wrote, a store, a comparison or a cache.")
    ],
    *,
    repair: Annotated[
        bool, Parameter(help="Remove damaged files that the next run makes again.", negative="")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare every file with the hash that was written with it; exits with 1 where one is damaged."""
    from qarm.pipeline.verification import find_damage
    from qarm.pipeline.verification import repair as remove

    damaged = find_damage(folder)
    removed = [str(path) for path in remove(folder, damaged)] if repair else []
    left = [one.text for one in damaged if not repair or one.remove is None]
    if as_json:
        found = [one.text for one in damaged]
        print(json.dumps({"path": str(folder), "damaged": found, "removed": removed}))
    elif removed:
        print("\n".join(["removed; the same command as before makes them again:", *removed]))
    if left:
        fail("\n".join(["damaged or missing:", *left, _way_out(damaged, repair=repair)]), 1)
    if not as_json and not damaged:
        print(f"{folder}: every file is as it was written")


def _way_out(damaged: "Sequence[Damage]", *, repair: bool) -> str:
    """What to do about damaged files."""
    lost = [one for one in damaged if one.remove is None]
    rest = "cannot be made again: restore from a copy, and remove nothing"
    if repair or len(lost) == len(damaged):
        return f"These {rest}." if lost else ""
    some = f"; {len(lost)} of them {rest}" if lost else ""
    return f"qarm verify --repair removes {len(damaged) - len(lost)} that the next run makes again{some}."


@app.command(name="export-codes")
def export_codes(
    run: FinishedRun,
    *,
    to: Annotated[Literal["parquet", "jsonl", "redis"], Parameter(help="Format.")],
    out: Annotated[Path, Parameter(help="Folder to make.")],
    since: Annotated[int | None, Parameter(help="Only what changed since this version of the codes.")] = None,
    valid_from: Annotated[
        str | None, Parameter(help="ISO 8601 time in the tables; default: when the run wrote the codes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write item to codes and code to items for feature stores and rankers elsewhere."""
    from qarm.serving.export.codes import export_codes as write

    made = write(run, out, to=to, since=since, valid_from=valid_from)
    print_figures("codes", out, made.content(), as_json=as_json)
