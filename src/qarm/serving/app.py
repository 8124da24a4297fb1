"""Service app, and the process that serves it until it is stopped."""

import asyncio
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from qarm.errors import ArtifactError, InputError, MissingExtraError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from qarm.serving.limits import Limits
    from qarm.serving.service import Service

__all__ = ["TOKEN_VARIABLE", "build_app", "build_service", "read_token", "serve"]

TOKEN_VARIABLE = "QARMSERVE_TOKEN"  # noqa: S105 - a name; QARM_... would be a key of the config
SHORTEST_TOKEN = 16
PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "prometheus_client": "prometheus-client",
    "python_multipart": "python-multipart",
}
TITLE = "qarm"
ABOUT = "Codes for new items, known items, scores, recommendations. Errors are RFC 9457 problem documents."
END_SECONDS = 15  # for requests that have begun when the service is asked to stop; the encoder has 5 more
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
IDLE_SECONDS = 75  # longer than proxies keep a connection, so that they close it, not we


def serve(
    bundle: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    store: Path | None = None,
    bundles: Path | None = None,
    token: str | None = None,
    allow_hosts: Sequence[str] = (),
    public_without_token: bool = False,
    threads: int = 2,
    limits: "Limits | None" = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT; SIGHUP loads the bundle's path again.

    A first SIGTERM or SIGINT waits for open requests, a second one does not.

    Args:
        bundle: folder of a bundle, or a link to one.
        port: 0 takes a free one.
        store: folder of the codes of new items; by default beside `bundle`, its name with `.store`.
        bundles: folder of bundles that the admin's routes may swap in.
        token: that requests must bring.
        allow_hosts: names that requests may be sent to, beside this machine's own and `host`; with a token
            and without any, all.
        public_without_token: serve without a token where other machines reach `host`.
        threads: of the encoder.
        announce: is given the address, once the service is ready.

    Raises:
        InputError: an argument is wrong.
        ArtifactError: the bundle or the store cannot be used, or the address is taken.
    """
    for module, package in PACKAGES.items():
        if find_spec(module) is None:
            raise MissingExtraError(package, "serve")
    if token is None and not public_without_token and not _is_loopback(host):
        raise InputError(
            f"--host {host} is reached from other machines, and there is no token; give --token-file FILE, "
            "or --public-without-token where something else keeps strangers out"
        )
    import torch

    from qarm.serving.limits import Limits

    torch.set_num_threads(1)  # what is left to this process is small; the encoder has its own
    if bundles is not None and not bundles.is_dir():
        raise InputError(f"--bundles {bundles}: no such folder; give the one whose subfolders are bundles")
    home = store or bundle.absolute().with_name(f"{bundle.name}.store")
    service = build_service(bundle, home, bundles=bundles, threads=threads, limits=limits or Limits())
    hosts = None if token is not None and not allow_hosts else {*LOCAL_HOSTS, host, *allow_hosts}
    app = build_app(service, bundle, token=token, hosts=hosts)
    asyncio.run(_serve(app, service, bundle, host=host, port=port, announce=announce))


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address, or each address of a name."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host or "0.0.0.0", None)}  # noqa: S104 - refused
    except OSError:
        raise InputError(f"--host {host}: no such address; give one of this machine's") from None
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)


def build_service(
    bundle: Path, store: Path, *, bundles: Path | None = None, threads: int = 1, limits: "Limits"
) -> "Service":
    """A service of real parts, not started.

    Raises:
        ArtifactError: the store cannot be used.
    """
    from qarm.serving.bundle import Bundle
    from qarm.serving.bundle_manager import BundleManager
    from qarm.serving.code_store import Store
    from qarm.serving.decoder_queue import DecoderQueue
    from qarm.serving.encoder_process import EncoderProcess
    from qarm.serving.prometheus_metrics import Metrics
    from qarm.serving.service import Service
    from qarm.serving.store_queue import StoreQueue

    metrics = Metrics()
    manager = BundleManager(
        load=Bundle.load,
        worker=lambda folder: EncoderProcess(folder, limits=limits, threads=threads),
        limits=limits,
        metrics=metrics,
        folder=bundles,
    )
    if not bundle.is_dir():
        raise InputError(f"{bundle}: no such folder; make one with: qarm export RUN --out {bundle}")
    decoder = DecoderQueue(limits)
    return Service(manager, StoreQueue(Store(store)), decoder=decoder, limits=limits, metrics=metrics)


def build_app(
    service: "Service",
    bundle: Path,
    *,
    token: str | None = None,
    hosts: Collection[str] | None = LOCAL_HOSTS,
) -> "FastAPI":
    """The ASGI app: it starts the service on `bundle`, and closes it.

    Args:
        hosts: names that requests may be sent to; None: any.
    """
    from fastapi import FastAPI

    from qarm.serving.http import openapi, problems
    from qarm.serving.http import schemas as wire
    from qarm.serving.http.access import OriginMiddleware, TokenMiddleware
    from qarm.serving.http.explorer import explorer_routes
    from qarm.serving.http.middleware import BodyLimitMiddleware, ErrorMiddleware
    from qarm.serving.http.pages import page_routes
    from qarm.serving.http.routes import admin_routes, routes

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await service.bundles.start(bundle)
            yield
        finally:
            await service.close()

    app = FastAPI(
        title=TITLE,
        version="1",
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.add_handlers(app)
    app.include_router(admin_routes(service, token=token is not None))
    app.include_router(routes(service))
    app.include_router(page_routes(lambda: app.openapi()))
    app.include_router(explorer_routes(lambda: service.bundles.current.bundle))
    requests = (wire.NewItem, wire.ItemBatch, wire.ScoreRequest, wire.RecommendRequest, wire.BundleName)
    openapi.describe(app, (*requests, wire.ProblemDocument), token=token is not None)
    app.add_middleware(BodyLimitMiddleware, limits=service.limits)
    app.add_middleware(TokenMiddleware, token=token)
    app.add_middleware(OriginMiddleware, hosts=hosts)
    app.add_middleware(ErrorMiddleware, metrics=service.metrics)  # the last one added stands outermost
    return app


async def _serve(
    app: "FastAPI",
    service: "Service",
    bundle: Path,
    *,
    host: str,
    port: int,
    announce: Callable[[str], None],
) -> None:
    import uvicorn

    from qarm.serving.http.connections import BACKLOG, connection_class, log_rarely, most_connections

    class Server(uvicorn.Server):
        """Stops as `_serve` says; uvicorn's own way would end the process before the store is closed."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            """Start of the server, announced when it listens."""
            await super().startup(sockets)
            for one in sockets or ():  # they listen from now on
                announce(f"http://{host}:{one.getsockname()[1]}")

    config = uvicorn.Config(
        app,
        http=connection_class(service.limits, most_connections(service.limits)),
        ws="none",
        backlog=BACKLOG,
        host=host,
        port=port,
        log_level="error",  # a line for each request that is no HTTP would fill the disk
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=END_SECONDS,
    )
    server = Server(config)
    async with app.router.lifespan_context(app):  # outside uvicorn, so that its errors keep their kind
        loop = asyncio.get_running_loop()
        log_rarely(loop)
        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            """Load the bundle again (SIGHUP)."""
            task = asyncio.create_task(_reload(service, bundle))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        def stop(number: int, frame: object) -> None:
            """Stop after open requests are answered; the next signal ends the process, as a kill does."""
            server.should_exit = True
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

        # not through the loop, whose queue of signals is full, and drops some, when it is far behind
        if hasattr(signal, "SIGHUP"):  # Windows has none
            signal.signal(signal.SIGHUP, lambda number, frame: loop.call_soon_threadsafe(reload))
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        await server.serve(sockets=[_listening(config)])


def _listening(config: "uvicorn.Config") -> socket.socket:
    try:
        sock = config.bind_socket()
    except SystemExit:
        address = f"{config.host}:{config.port}"
        raise ArtifactError(f"{address} cannot be listened on; is it taken? give another --port") from None
    # accepted ones inherit it; asyncio leaves it out for uvicorn's sockets, whose protocol is 0, and then
    # the second half of an answer waits 40 ms for the first half to be acknowledged
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def _reload(service: "Service", bundle: Path) -> None:
    from qarm.serving.http.problems import Problem

    try:
        loaded = await service.bundles.swap(bundle)
    except Problem as error:
        print(f"qarm: the bundle stays as it is: {error.detail}", file=sys.stderr, flush=True)
        return
    print(
        f"qarm: {loaded.folder.name} is in use, version {loaded.bundle.version[:12]}",
        file=sys.stderr,
        flush=True,
    )


def read_token(path: Path | None) -> str | None:
    """The token, from a file or from the variable QARMSERVE_TOKEN; None without either.

    Raises:
        InputError: the file cannot be read, or the token is too short to be one.
    """
    try:
        token = os.environ.get(TOKEN_VARIABLE) if path is None else path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {path}: cannot be read ({error})") from None
    if token is None:
        return None
    if len(token) < SHORTEST_TOKEN or not token.isascii() or any(sign.isspace() for sign in token):
        raise InputError(
            f"the token has {len(token)} signs, need {SHORTEST_TOKEN} or more of ASCII without spaces; "
            "try: openssl rand -hex 24"
        )
    return token
