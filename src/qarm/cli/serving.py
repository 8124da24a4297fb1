"""Commands of the service: export and serve."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from qarm.cli.arguments import FinishedRun, Json
from qarm.cli.output import print_figures
from qarm.serving.limits import Limits

__all__ = ["app"]

app = App()


@app.command
def export(
    run: FinishedRun,
    *,
    out: Annotated[Path, Parameter(help="Bundle folder to make.")],
    variant: Annotated[str | None, Parameter(help="Whose ranker; default: the last there is.")] = None,
    items: Annotated[
        list[Path] | None,
        Parameter(
            help="The run's item table, and those of appended items.", negative="", consume_multiple=True
        ),
    ] = None,
    media: Annotated[bool, Parameter(help="Copy pictures and sounds, for pages.", negative="")] = False,
    histories: Annotated[
        bool, Parameter(help="Put users' histories in, for recommendations by user id.")
    ] = True,
    portable: Annotated[
        bool, Parameter(help="Add fusion head and RQ codes as torch.export programs.", negative="")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put what a service needs of a run into one folder, verified by hash when it is loaded."""
    from qarm.serving.export.bundle_writer import export_bundle

    made = export_bundle(
        run,
        out,
        variant=variant,
        items=tuple(items or ()),
        media=media,
        histories=histories,
        portable=portable,
    )
    print_figures("export", out, made.content(), as_json=as_json)


@app.command
def serve(
    bundle: Annotated[Path, Parameter(help="What qarm export wrote, or a link to it.")],
    *,
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
    allow_host: Annotated[
        tuple[str, ...],
        Parameter(help="Host name that requests may be sent to, beside localhost and HOST; may be repeated."),
    ] = (),
    public_without_token: Annotated[
        bool, Parameter(help="Serve without a token where other machines reach HOST.", negative=())
    ] = False,
    threads: Annotated[int, Parameter(help="Threads of the encoder, one a text.")] = 2,
    max_connections: Annotated[int, Parameter(help="Most connections at a time.")] = Limits.connections,
    max_body: Annotated[int, Parameter(help="Most bytes of a request.")] = Limits.body,
    max_batch: Annotated[int, Parameter(help="Most items of a request.")] = Limits.batch,
    max_pixels: Annotated[int, Parameter(help="Most pixels of a picture.")] = Limits.pixels,
    max_seconds: Annotated[float, Parameter(help="Longest sound.")] = Limits.sound_seconds,
    max_waiting: Annotated[int, Parameter(help="Most items that wait for the encoder.")] = Limits.waiting,
) -> None:
    """Serve a bundle: codes for new items, known items, scores. SIGHUP loads BUNDLE again."""
    from qarm.serving.app import read_token
    from qarm.serving.app import serve as serve_bundle

    limits = Limits(
        connections=max_connections,
        body=max_body,
        batch=max_batch,
        pixels=max_pixels,
        sound_seconds=max_seconds,
        waiting=max_waiting,
    )
    serve_bundle(
        bundle,
        host=host,
        port=port,
        store=store,
        bundles=bundles,
        token=read_token(token_file),
        allow_hosts=allow_host,
        public_without_token=public_without_token,
        threads=threads,
        limits=limits,
        announce=lambda address: print(f"serving {bundle} at {address}", flush=True),
    )
