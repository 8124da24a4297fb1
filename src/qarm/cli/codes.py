"""Commands of the codes: quantize with its versions, monitor, encode, export-codes."""

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from qarm.cli.arguments import ConfigFile, Json, RunFolder, Settings, load_settings
from qarm.cli.output import fail, figure, print_figures, show_stages
from qarm.errors import InputError

__all__ = ["app"]

app = App()


@app.command
def quantize(
    config: ConfigFile,
    *,
    out: RunFolder,
    append: Annotated[
        Path | None, Parameter(help="Code these new items too; no published code moves.")
    ] = None,
    refit: Annotated[
        bool, Parameter(help="Fit again from the old centroids: a new version.", negative="")
    ] = False,
    rollback: Annotated[int | None, Parameter(help="Make this earlier version the current one.")] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Residual k-means and nearest-rows codes of every item. Runs the stages before it too."""
    from qarm.pipeline import run_stages
    from qarm.quantizer.versions.lifecycle import append_items, refit_codes, roll_back

    actions = [
        name for name, given in (("--append", append), ("--refit", refit), ("--rollback", rollback)) if given
    ]
    if len(actions) > 1:
        raise InputError(f"got {' and '.join(actions)}, need at most one of them; run one after the other")
    show_stages(run_stages(load_settings(config, settings), out, last="quantize"), as_json=as_json)
    if append is not None:
        print_figures("append", out / "codes", append_items(out, append).content(), as_json=as_json)
    if refit:
        print_figures("refit", out / "codes", refit_codes(out).content(), as_json=as_json)
    if rollback is not None:
        print_figures("rollback", out / "codes", roll_back(out, rollback).content(), as_json=as_json)


@app.command
def monitor(
    items: Annotated[Path, Parameter(help="Table of new items, columns as in the run's config.")],
    *,
    run: Annotated[Path, Parameter(help="A finished run folder.")],
    as_json: Json = False,
) -> None:
    """Compare new items with fit time; exits with 1 where they have drifted too far."""
    from qarm.quantizer.versions.lifecycle import drift

    report = drift(run, items)
    if as_json:
        print(json.dumps(report.content()))
    else:
        for level in report.levels:
            shown = ("stability_index", "stability_excess", "energy_ratio", "hottest", "hottest_ratio")
            print(
                f"level {level.level}  {'  '.join(f'{key}={figure(getattr(level, key))}' for key in shown)}"
            )
    if report.exceeded:
        fail("\n".join(report.exceeded), 1)


@app.command
def encode(
    items: Annotated[Path, Parameter(help="Table of new items, columns as in the run's config.")],
    *,
    run: Annotated[Path, Parameter(help="A finished run folder.")],
    out: Annotated[Path, Parameter(help="Table to write: .parquet, .csv, .tsv, .jsonl or .arrow.")],
    as_json: Json = False,
) -> None:
    """Code items that a run has never seen, with its frozen encoder and codebooks."""
    from qarm.core.tables.writer import checked_ending
    from qarm.quantizer.coder import encode as encode_items

    checked_ending(out)
    codes = encode_items(run, items)
    codes.write(out)
    print_figures("encode", out, {"items": len(codes), "levels": codes.rq.shape[1]}, as_json=as_json)


@app.command
def verify(
    folder: Annotated[Path, Parameter(help="A run folder, or what export or export-codes wrote.")],
    *,
    as_json: Json = False,
) -> None:
    """Compare every file with the hash that was written with it; exits with 1 where one is damaged."""
    from qarm.data.verification import damaged_files

    damaged = damaged_files(folder)
    if as_json:
        print(json.dumps({"path": str(folder), "damaged": damaged}))
    if damaged:
        fail("\n".join(["damaged or missing:", *damaged]), 1)
    if not as_json:
        print(f"{folder}: every file is as it was written")


@app.command(name="export-codes")
def export_codes(
    run: Annotated[Path, Parameter(help="A finished run folder.")],
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
