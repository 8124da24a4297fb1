"""Command line: arguments, a line for each stage, exit codes from errors."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter

from qarm.core.disk_errors import explained
from qarm.errors import InputError, QarmError

if TYPE_CHECKING:
    from qarm.config import Config
    from qarm.pipeline import Done

__all__ = ["app", "main"]

SETTINGS_HELP = "KEY=VALUE for any config key; `--KEY VALUE` (`--data.root shop`) is short for it."
SIZE_HELP = "small: 2,000 items and 60,000 interactions; large: 20,000 items and 2 million."
TASTES_HELP = "users like a direction among each source's factors, or some groups of items."
Settings = Annotated[list[str] | None, Parameter(name="--set", help=SETTINGS_HELP, negative="")]
ConfigFile = Annotated[Path, Parameter(help="YAML file; examples/ has some.")]
RunFolder = Annotated[Path, Parameter(help="Run folder: a folder per stage, made if need be.")]
Engine = Annotated[
    Literal["local", "ray"],
    Parameter(help="Where mining and embedding run: here, or on a Ray cluster; same bytes."),
]
Json = Annotated[bool, Parameter(name="--json", help="Print JSON, one object a line.", negative="")]

app = App(
    name="qarm",
    help="From a catalogue and a click log to aligned vectors, trainable codes and a recommender.",
    help_format="plaintext",
    version_flags=["--version"],
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with 0 (done), 2 (wrong input, one message) or 1 (anything else)."""
    # threads that spin while they wait cost a busy machine more than they gain
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    tokens = _expand_settings(sys.argv[1:] if arguments is None else arguments)
    try:
        with explained("the disk"):
            app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _fail(f"{error}\nqarm --help lists the commands and their options.", 2)
    except QarmError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped; the same command goes on from here", 130)


def _fail(message: str, code: int) -> NoReturn:
    print(f"qarm: {message}", file=sys.stderr)
    sys.exit(code)


def _expand_settings(tokens: Sequence[str]) -> list[str]:
    """Rewrite `--data.root X` and `--data.root=X` to `--set data.root=X`; `--seed` counts too."""
    expanded: list[str] = []
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        key, equals, value = token.removeprefix("--").partition("=")
        if not (token.startswith("--") and ("." in key or key == "seed")):
            expanded.append(token)
            continue
        if not equals:
            if not rest:
                _fail(f"--{key} needs a value", 2)
            value = rest.pop(0)
        expanded += ["--set", f"{key}={value}"]
    return expanded


def _load(config: Path | None, settings: list[str] | None) -> "Config":
    from qarm.config import load_config

    flags = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting}: need KEY=VALUE")
        flags[key] = value
    return load_config(config, flags=flags)


def _show(stages: Iterable["Done"], *, as_json: bool) -> None:
    fresh, quiet = True, os.environ.get("RANK", "0") != "0"  # of torchrun's processes the first one tells
    for done in stages:
        fresh &= done.fresh
        if quiet:
            continue
        if as_json:
            print(json.dumps({**vars(done), "path": str(done.path)}), flush=True)
            continue
        figures = "  ".join(f"{key}={_figure(value)}" for key, value in done.rows.items())
        took = "fresh" if done.fresh else f"{done.seconds:.1f} s"
        print(f"{done.stage:<9} {done.path}  {figures}  {took}", flush=True)
    if fresh and not as_json and not quiet:
        print("nothing to do: every stage is fresh")


def _figure(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _stage_command(last: str) -> Callable[..., None]:
    def command(
        config: ConfigFile, *, out: RunFolder, settings: Settings = None, as_json: Json = False
    ) -> None:
        from qarm.pipeline import run_stages

        _show(run_stages(_load(config, settings), out, last=last), as_json=as_json)

    return command


for _name, _help in {
    "align": "Fine-tune the encoder on the pairs.",
    "embed": "Vectors of every item, before and after alignment.",
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
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Mine pairs of items that behave alike (Swing and User2Item). Runs the stages before it too."""
    from qarm.pipeline import run_stages

    _show(run_stages(_load(config, settings), out, last="mine", engine=engine), as_json=as_json)


@app.command
def run(
    config: ConfigFile,
    *,
    out: RunFolder,
    engine: Engine = "local",
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Run every stage, skipping what is fresh, and print the results."""
    from qarm.pipeline import run_stages

    _show(run_stages(_load(config, settings), out, engine=engine), as_json=as_json)
    if not as_json:
        _print_results(out)


def _print_results(out: Path) -> None:
    from qarm.report.tables import results_table

    print(f"\n{results_table(out)}\n\nreport: {out / 'report' / 'index.html'}")


@app.command
def compare(config: ConfigFile, *, out: RunFolder, settings: Settings = None, as_json: Json = False) -> None:
    """Compare what the ranker may know of an item, by docs/protocol.md; goes on where it was stopped."""
    from qarm.comparison.compare import compare_variants
    from qarm.comparison.tables import comparison_summary

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    results = compare_variants(_load(config, settings), out, progress=progress)
    if as_json:
        primary = results.primary.content() if results.primary else None
        print(json.dumps({"path": str(out / "compare" / "results.json"), "primary": primary}))
        return
    print(f"{comparison_summary(results)}\n\nevery table: {out / 'compare' / 'results.md'}")


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
    _show(run_stages(_load(config, settings), out, last="quantize"), as_json=as_json)
    if append is not None:
        _print_figures("append", out / "codes", append_items(out, append).content(), as_json=as_json)
    if refit:
        _print_figures("refit", out / "codes", refit_codes(out).content(), as_json=as_json)
    if rollback is not None:
        _print_figures("rollback", out / "codes", roll_back(out, rollback).content(), as_json=as_json)


def _print_figures(step: str, path: Path, figures: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": str(path), **figures}))
    else:
        print(f"{step:<9} {path}  {'  '.join(f'{key}={_figure(value)}' for key, value in figures.items())}")


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
                f"level {level.level}  {'  '.join(f'{key}={_figure(getattr(level, key))}' for key in shown)}"
            )
    if report.exceeded:
        _fail("\n".join(report.exceeded), 1)


@app.command
def check(config: ConfigFile, *, settings: Settings = None, as_json: Json = False) -> None:
    """Check the config, the tables and the media; reports all problems at once."""
    from qarm.pipeline import check_input

    report = check_input(_load(config, settings)).model_dump()
    if as_json:
        print(json.dumps(report))
        return
    for key, value in report.items():
        if not isinstance(value, dict):
            print(f"{key}: {value:,}")
            continue
        print(f"{key}: {len(value):,}")
        for item, reason in value.items():
            print(f"  {item}: {reason}")


@app.command
def demo(
    *,
    out: RunFolder,
    size: Annotated[Literal["small", "large"], Parameter(help=SIZE_HELP)] = "small",
    tastes: Annotated[Literal["directions", "groups"], Parameter(help=TASTES_HELP)] = "directions",
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Generate the demo world and run every stage on it."""
    from qarm.core.run_folder import run_lock
    from qarm.demo import build_world
    from qarm.pipeline import run_stages

    world = out / "world"
    config = _load(None, [f"data.root={world}", *(settings or [])])
    with run_lock(out):
        build_world(world, size=size, tastes=tastes, seed=config.seed)
    _show(run_stages(config, out), as_json=as_json)
    if not as_json:
        _print_results(out)


@app.command
def encode(
    items: Annotated[Path, Parameter(help="Table of new items, columns as in the run's config.")],
    *,
    run: Annotated[Path, Parameter(help="A finished run folder.")],
    out: Annotated[Path, Parameter(help="Parquet file to write.")],
    as_json: Json = False,
) -> None:
    """Code items that a run has never seen, with its frozen encoder and codebooks."""
    from qarm.quantizer.coder import encode as encode_items

    codes = encode_items(run, items)
    codes.write(out)
    _print_figures("encode", out, {"items": len(codes), "levels": codes.rq.shape[1]}, as_json=as_json)


@app.command
def export(
    run: Annotated[Path, Parameter(help="A finished run folder.")],
    *,
    out: Annotated[Path, Parameter(help="Bundle folder to make.")],
    variant: Annotated[str | None, Parameter(help="Whose ranker; default: the last there is.")] = None,
    items: Annotated[
        list[Path] | None,
        Parameter(help="The run's item table, and those of appended items.", negative=""),
    ] = None,
    media: Annotated[bool, Parameter(help="Copy pictures and sounds, for pages.", negative="")] = False,
    portable: Annotated[
        bool, Parameter(help="Add fusion head and RQ codes as torch.export programs.", negative="")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put what a service needs of a run into one folder, verified by hash when it is loaded."""
    from qarm.serving.export.bundle_writer import export_bundle

    made = export_bundle(run, out, variant=variant, items=tuple(items or ()), media=media, portable=portable)
    _print_figures("export", out, made, as_json=as_json)


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

    _print_figures("codes", out, write(run, out, to=to, since=since, valid_from=valid_from), as_json=as_json)


@app.command
def serve(
    *,
    bundle: Annotated[Path, Parameter(help="What qarm export wrote, or a link to it.")],
    host: Annotated[str, Parameter(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on; 0 takes a free one.")] = 8000,
    store: Annotated[
        Path | None, Parameter(help="Folder of the codes of new items; default: beside BUNDLE, with .store.")
    ] = None,
    bundles: Annotated[
        Path | None, Parameter(help="Folder of bundles that the admin may swap in by name.")
    ] = None,
    token_file: Annotated[
        Path | None, Parameter(help="File with the token that requests must bring; or QARMSERVE_TOKEN.")
    ] = None,
    threads: Annotated[int, Parameter(help="Threads of the encoder, one a text.")] = 2,
    max_body: Annotated[int, Parameter(help="Most bytes of a request.")] = 16 * 2**20,
    max_batch: Annotated[int, Parameter(help="Most items of a request.")] = 64,
    max_pixels: Annotated[int, Parameter(help="Most pixels of a picture.")] = 16_000_000,
    max_seconds: Annotated[float, Parameter(help="Longest sound.")] = 600.0,
    max_waiting: Annotated[int, Parameter(help="Most items that wait for the encoder.")] = 256,
) -> None:
    """Serve a bundle: codes for new items, known items, scores. SIGHUP loads BUNDLE again."""
    from qarm.serving.app import read_token
    from qarm.serving.app import serve as serve_bundle
    from qarm.serving.limits import Limits

    limits = Limits(
        body=max_body, batch=max_batch, pixels=max_pixels, sound_seconds=max_seconds, waiting=max_waiting
    )
    serve_bundle(
        bundle,
        host=host,
        port=port,
        store=store,
        bundles=bundles,
        token=read_token(token_file),
        threads=threads,
        limits=limits,
        announce=lambda address: print(f"serving {bundle} at {address}", flush=True),
    )
