"""A tiny run with a hostile item, its report, its bundle behind the real server, and Chromium."""

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import uvicorn
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, expect, sync_playwright

from qarm.config import load_config
from qarm.demo import WorldSpec, build_world
from qarm.pipeline import run_stages
from qarm.serving.app import build_app, build_service
from qarm.serving.bundle import export_bundle
from qarm.serving.limits import Limits

SCREENSHOTS = os.environ.get("QARM_SCREENSHOTS")  # read before the tests' seal takes it away
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
HOSTILE = '<img src=x onerror="document.title=`owned`">'
CANCELLED = "net::ERR_ABORTED"  # by the browser itself, when it leaves a page or has enough of a sound
PATIENCE = 150_000  # milliseconds; a busy machine is no failure
SMALL = {
    "pairs.user2item.epochs": "1",
    "encoder.text": "null",
    "encoder.image": "null",
    "encoder.epochs": "1",
    "encoder.min_steps": "1",
    "retriever.min_steps": "1",
    "retriever.epochs": "1",
    "encoder.dim": "16",
    "encoder.hidden": "16",
    "quantizer.width": "4",
    "quantizer.nearest": "5",
    "ranker.variants": "[id, id+rq]",
    "ranker.epochs": "1",
    "ranker.dim": "4",
    "ranker.negatives.eval": "5",
}


@pytest.fixture(scope="session")
def hostile() -> str:
    """Title of an item."""
    return HOSTILE


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 items; the third has a hostile title and text and no picture."""
    folder = tmp_path_factory.mktemp("browser") / "world"
    build_world(folder, seed=1, spec=WorldSpec(items=60, users=40, events_per_user=14))
    items = pl.read_parquet(folder / "items.parquet").with_row_index("row")
    third = pl.col("row") == 2
    items.with_columns(
        title=pl.when(third).then(pl.lit(HOSTILE)).otherwise("title"),
        description=pl.when(third).then(pl.lit(f"</script>{HOSTILE}")).otherwise("description"),
        image_path=pl.when(~third).then("image_path"),
    ).drop("row").write_parquet(folder / "items.parquet")
    return folder


@pytest.fixture(scope="session")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the sounds alone, so that no weights are read."""
    folder = tmp_path_factory.mktemp("browser") / "run"
    list(run_stages(load_config(flags={"data.root": str(world), **SMALL}, environment={}), folder))
    return folder


@pytest.fixture(scope="session")
def service(run: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the real server on the run's bundle."""
    folder = tmp_path_factory.mktemp("browser")
    export_bundle(run, folder / "bundle", items=(world / "items.parquet",), media=True)
    app = build_app(build_service(folder / "bundle", folder / "store", limits=Limits()), folder / "bundle")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    until = time.monotonic() + 180
    while not server.started and thread.is_alive() and time.monotonic() < until:
        time.sleep(0.05)
    assert server.started, "the server did not start"
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    assert path, (
        f"these tests need a browser, none of {', '.join(NAMES)} is installed; try: apt install chromium"
    )
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--mute-audio"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A desktop page; the test fails on a console error, an uncaught one, or a failed request."""
    yield from _watched(chromium, width=1280, height=900)


@pytest.fixture
def phone(chromium: Browser) -> Iterator[Page]:
    yield from _watched(chromium, width=390, height=844)


def _watched(browser: Browser, *, width: int, height: int) -> Iterator[Page]:
    faults: list[str] = []

    def told(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(message.text)

    def failed(request: Request) -> None:
        if request.failure != CANCELLED:
            faults.append(f"{request.url[:200]}: {request.failure}")

    def answered(response: Response) -> None:
        if response.status >= 400:
            faults.append(f"{response.url[:200]}: {response.status}")

    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.on("console", told)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", failed)
    page.on("response", answered)
    yield page
    context.close()
    assert faults == []


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures for a person to look at go; named at the end."""
    folder = Path(SCREENSHOTS) if SCREENSHOTS else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    SHOTS.append(folder)
    return folder


SHOTS: list[Path] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for folder in SHOTS:
        terminalreporter.write_line(f"screenshots: {folder}")
