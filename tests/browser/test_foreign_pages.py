"""Pages of other origins in a real browser: none writes to a service without a token, or reads from it."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
STORE = """async ([address, item]) => {
  const rate = 16000, wav = new DataView(new ArrayBuffer(44 + 2 * rate));
  const text = (at, word) => [...word].forEach((sign, n) => wav.setUint8(at + n, sign.charCodeAt(0)));
  text(0, "RIFF"); wav.setUint32(4, 36 + 2 * rate, true); text(8, "WAVEfmt "); wav.setUint32(16, 16, true);
  wav.setUint16(20, 1, true); wav.setUint16(22, 1, true); wav.setUint32(24, rate, true);
  wav.setUint32(28, 2 * rate, true); wav.setUint16(32, 2, true); wav.setUint16(34, 16, true);
  text(36, "data"); wav.setUint32(40, 2 * rate, true);
  for (let n = 0; n < rate; n++) wav.setInt16(44 + 2 * n, 9000 * Math.sin(n / 5), true);
  const form = new FormData();
  form.set("item_id", item);
  form.set("audio", new File([wav.buffer], "a.wav"));
  try { await fetch(address + "/v1/codes", {method: "POST", mode: "no-cors", body: form}); } catch (error) {}
}"""
READ = """async address => {
  try { return await (await fetch(address + "/v1/items")).text(); } catch (error) { return "refused"; }
}"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and logs nothing."""

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[str]:
    """Address of an empty page of another origin."""
    (tmp_path / "index.html").write_text("<!doctype html><title>foreign</title>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def bare(chromium: Browser) -> Iterator[Page]:
    """A page whose failed requests are no fault of the test."""
    context = chromium.new_context()
    context.set_default_timeout(150_000)
    yield context.new_page()
    context.close()


def stored(page: Page, service: str, item: str) -> bool:
    return bool(page.request.get(f"{service}/v1/items/{item}").ok)


def test_only_the_services_own_page_stores_and_reads(bare: Page, foreign: str, service: str) -> None:
    """The same script from both origins; "localhost" is another one than 127.0.0.1, too."""
    bare.goto(foreign)
    bare.evaluate(STORE, [service, "by-foreign"])
    assert bare.evaluate(READ, service) == "refused"
    bare.goto(f"{service.replace('127.0.0.1', 'localhost')}/explorer/")
    bare.evaluate(STORE, [service, "by-localhost"])
    assert not stored(bare, service, "by-foreign")
    assert not stored(bare, service, "by-localhost")
    bare.goto(f"{service}/explorer/")
    bare.evaluate(STORE, [service, "by-own"])
    assert '"total"' in bare.evaluate(READ, service)
    assert stored(bare, service, "by-own")
    assert bare.request.delete(f"{service}/v1/items/by-own").ok
    assert not stored(bare, service, "by-own")


def test_a_name_that_is_made_to_lead_here_reads_nothing(bare: Page, service: str) -> None:
    """DNS rebinding: the browser asks this address with the attacker's name as Host."""
    port = service.rpartition(":")[2]
    answer = bare.request.get(f"{service}/v1/items", headers={"Host": f"evil.example:{port}"})
    assert answer.status == 421
