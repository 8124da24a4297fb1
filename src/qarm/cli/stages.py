"""Commands of the stages: init, check, the stages one by one, run, compare, demo."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from qarm.cli.arguments import (
    ConfigFile,
    DryRun,
    Engine,
    Json,
    Output,
    RunFolder,
    Settings,
    load_settings,
)
from qarm.cli.output import print_results, show_plan, show_stages
from qarm.cli.run_log import run_messages

SIZE_HELP = "small: 2,000 items and 60,000 interactions; large: 20,000 items and 2 million."
TASTES_HELP = "users like a direction among each source's factors, or some groups of items."
OUTPUT = Output()

__all__ = ["app"]

app = App()


def _stage_command(last: str) -> Callable[..., None]:
    def command(
        config: ConfigFile,
        *,
        out: RunFolder,
        dry_run: DryRun = False,
        settings: Settings = None,
        output: Output = OUTPUT,
    ) -> None:
        _run(config, settings, out, output, dry_run=dry_run, last=last)

    return command


def _run(
    config: Path,
    settings: list[str] | None,
    out: Path,
    output: Output,
    *,
    dry_run: bool,
    last: str = "report",
    engine: Literal["local", "ray"] = "local",
) -> None:
    """Run of the stages up to a last one, or only their plan."""
    from qarm.pipeline import plan_stages, run_stages

    chosen = load_settings(config, settings)
    if dry_run:
        show_plan(plan_stages(chosen, out, last=last), as_json=output.as_json)
        return
    with run_messages(out, output):
        show_stages(run_stages(chosen, out, last=last, engine=engine), output)


for _name, _help in {
    "align": "Fine-tune the encoder on the pairs.",
    "embed": "Vectors of every item, before and after alignment.",
    "retrieve": "Fit and test the retrievers over the whole catalogue.",
    "train": "Train and test the ranker's variants.",
    "report": "Write the report page.",
}.items():
    app.command(_stage_command(_name), name=_name, help=f"{_help} Runs the stages before it too.")


@app.command
def mine(
    config: ConfigFile,
    *,
    out: RunFolder,
    engine: Engine = "local",
    dry_run: DryRun = False,
    settings: Settings = None,
    output: Output = OUTPUT,
) -> None:
    """Mine pairs of items that behave alike (Swing and User2Item). Runs the stages before it too."""
    _run(config, settings, out, output, dry_run=dry_run, last="mine", engine=engine)


@app.command
def run(
    config: ConfigFile,
    *,
    out: RunFolder,
    engine: Engine = "local",
    dry_run: DryRun = False,
    settings: Settings = None,
    output: Output = OUTPUT,
) -> None:
    """Run every stage, skipping what is fresh, and print the results."""
    _run(config, settings, out, output, dry_run=dry_run, engine=engine)
    if not (dry_run or output.as_json or output.quiet):
        print_results(out)


@app.command
def compare(config: ConfigFile, *, out: RunFolder, settings: Settings = None, as_json: Json = False) -> None:
    """Compare what the ranker may know of an item, by docs/protocol.md; goes on where it was stopped."""
    from qarm.comparison.compare import compare_variants
    from qarm.comparison.tables import comparison_summary

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    results = compare_variants(load_settings(config, settings), out, progress=progress)
    if as_json:
        primary = results.primary.content() if results.primary else None
        ahead = [gain.content() for gain in results.anchors_ahead]
        path = str(out / "compare" / "results.json")
        print(json.dumps({"path": path, "primary": primary, "anchors_ahead": ahead}))
        return
    print(f"{comparison_summary(results)}\n\nevery table: {out / 'compare' / 'results.md'}")


@app.command
def check(config: ConfigFile, *, settings: Settings = None, as_json: Json = False) -> None:
    """Check config, tables, media, split and encoders: all problems at once, times, and warnings."""
    from qarm.cli.input_report import report_lines
    from qarm.pipeline import check_input

    report = check_input(load_settings(config, settings))
    print(json.dumps(report.model_dump()) if as_json else "\n".join(report_lines(report)))


@app.command
def init(
    tables: Annotated[
        list[str],
        Parameter(help="Catalogue and log, and users where there are any, in any order.", negative=""),
    ],
    *,
    out: Annotated[Path, Parameter(help="YAML file to write.")],
    overwrite: Annotated[bool, Parameter(help="Replace the file where it exists.", negative="")] = False,
    as_json: Json = False,
) -> None:
    """Look at tables and write a config for them: columns, label and split, with the reason for each."""
    from qarm.cli.input_report import proposal_lines
    from qarm.pipeline import propose_config, write_proposal

    proposal = propose_config(tables)
    write_proposal(proposal, out, overwrite=overwrite)
    content = {"path": str(out), **proposal.model_dump(mode="json")}
    print(json.dumps(content) if as_json else "\n".join(proposal_lines(proposal, out)))


@app.command
def demo(
    *,
    out: RunFolder,
    size: Annotated[Literal["small", "large"], Parameter(help=SIZE_HELP)] = "small",
    tastes: Annotated[Literal["directions", "groups"], Parameter(help=TASTES_HELP)] = "directions",
    settings: Settings = None,
    output: Output = OUTPUT,
) -> None:
    """Generate the demo world and run every stage on it."""
    from qarm.core.run_folder import run_lock
    from qarm.demo import build_world
    from qarm.pipeline import run_stages

    world = out / "world"
    config = load_settings(None, [f"data.root={world}", *(settings or [])])
    with run_messages(out, output):
        with run_lock(out):
            build_world(world, size=size, tastes=tastes, seed=config.seed)
        show_stages(run_stages(config, out), output)
    if not (output.as_json or output.quiet):
        print_results(out)
