"""Requests that break rules of the protocol or try to cost much: a problem document, and quickly."""

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.serving.fakes import Fakes, expected
from tests.serving.http.test_routes import problem

from qarm.serving.http.problems import Problem
from qarm.serving.http.request_parsing import _check_tokens

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


@pytest.fixture
def client(fakes: Fakes) -> Iterator[TestClient]:
    with TestClient(fakes.app) as made:
        yield made


@pytest.mark.parametrize("path", ["/v1/codes", "/v1/score"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"items":[' + b"{}," * 5_000_000 + b"{}]}",
        b'{"candidates":[' + b'"",' * 5_000_000 + b'""]}',
        b"[" * 10_000_000,
        b'{"a":' * 3_000_000,
        b"[" + b"1," * 8_000_000 + b"1]",
    ],
)
def test_a_body_of_millions_of_values_is_refused_before_it_is_parsed(
    client: TestClient, path: str, body: bytes
) -> None:
    started = time.process_time()
    problem(client.post(path, content=body[: 16 * 2**20], headers=JSON), 422, "too-many-values")
    assert time.process_time() - started < 2.0  # parsing took 13


def test_what_stands_in_strings_is_no_value() -> None:
    def counted(body: bytes, most: int) -> bool:
        try:
            asyncio.run(_check_tokens(body, most))
        except Problem:
            return False
        return True

    text = b'{"text": "' + b"{},[]:" * 200_000 + b'\\" \\\\"}'
    assert counted(text, 5)
    assert counted(b'{"a": "b"}', 4)
    assert not counted(b'{"a": "b"}', 3)
    assert not counted(b'{"a": "\\\\", "b": "c"}', 6)  # the backslash is the escaped one
    assert counted(b'{"a": "\\", b: c"}', 4)
    assert not counted(b"{}," * 2**16, 1000)


def test_heads_that_are_wrong(client: TestClient) -> None:
    for path in ("/v1/items/a%0D%0Ab", "/v1/items/a%00", "/%0a"):
        problem(client.get(path), 400, None)
    refused = client.post("/v1/codes", json={"item_id": "a\r\nb", "text": {"title": "x"}})
    assert problem(refused, 422, "invalid-item")["errors"][0]["pointer"] == "/item_id"
    both = {"Content-Length": "2", "Transfer-Encoding": "chunked", **JSON}
    problem(client.post("/v1/codes", content=b"{}", headers=both), 400, None)
    for kind in ("application/json; charset=punycode", "multipart/form-data; boundary=x; charset=punycode"):
        problem(client.post("/v1/codes", content=b"{}", headers={"Content-Type": kind}), 415, None)


def test_head_is_answered_as_get_without_a_body(client: TestClient) -> None:
    for path in ("/healthz", "/v1/items/i1", "/explorer/", "/"):
        got, asked = client.get(path), client.head(path)
        assert (asked.status_code, asked.content) == (200, b"")
        assert asked.headers["content-length"] == got.headers["content-length"]
    assert client.head("/v1/score").status_code == 405


def test_errors_in_plain_text_become_problems(fakes: Fakes, client: TestClient) -> None:
    media = fakes.bundles / "one" / "media"
    media.mkdir()
    name = f"{hashlib.sha256(b'x' * 10).hexdigest()}.png"
    (media / name).write_bytes(b"x" * 10)
    fakes.service.bundles.current.bundle.folder = fakes.bundles / "one"
    for wrong, status in (("bytes=20-30", 416), ("bytes=x-y", 400)):
        refused = client.get(f"/explorer/media/{name}", headers={"Range": wrong})
        problem(refused, status, None)
    assert client.get(f"/explorer/media/{name}", headers={"Range": "bytes=0-3"}).content == b"xxxx"
    (media / name).write_bytes(b"y" * 10)
    problem(client.get(f"/explorer/media/{name}"), 503, "media-damaged")
    (media / name).unlink()
    (media / name).symlink_to("/etc/hostname")
    problem(client.get(f"/explorer/media/{name}"), 503, "media-damaged")


def test_the_pages_work_offline(client: TestClient) -> None:
    for path, word in (("/", "explorer/"), ("/docs", "POST /v1/codes")):
        page = client.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert word in page.text
        assert "http://" not in page.text.replace("http://testserver", "")
        assert "<script" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]


def test_a_store_that_is_full_or_gone_is_not_ready(fakes: Fakes, client: TestClient) -> None:
    store = fakes.service.store.store
    assert client.get("/readyz").status_code == 200
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    large = {"item_id": "n1", "text": {"title": "x" * 15_000}}
    problem(client.post("/v1/codes", json=large), 507, "store-full")
    store._writer.execute("PRAGMA max_page_count = 1000000")
    assert client.get("/readyz").status_code == 200  # it tried again
    assert client.post("/v1/codes", json=large).status_code == 200
    store.path.unlink()
    problem(client.get("/readyz"), 503, "store-unusable")
    problem(client.post("/v1/codes", json={"item_id": "n2", "text": {"title": "x"}}), 503, "store-unusable")
    assert client.get("/v1/items/i1").status_code == 200


def test_stored_items_can_be_deleted_and_published_ones_cannot(client: TestClient) -> None:
    client.post("/v1/codes", json={"item_id": "a/b", "text": {"title": "x"}})
    assert client.delete("/v1/items/a/b").json() == {"item_id": "a/b", "deleted": 1}
    problem(client.get("/v1/items/a/b"), 404, "no-such-item")
    problem(client.delete("/v1/items/a/b"), 404, "no-such-item")
    problem(client.delete("/v1/items/i1"), 409, "already-published")
    assert client.post("/v1/codes", json={"item_id": "a/b", "text": {"title": "y"}}).status_code == 200


def text_part(content: bytes, kind: str | None = None) -> bytes:
    head = b'Content-Disposition: form-data; name="title"\r\n'
    head += b"" if kind is None else f"Content-Type: {kind}\r\n".encode()
    return b"--x\r\n" + head + b"\r\n" + content + b"\r\n--x--\r\n"


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "text/plain; charset=UTF-8", 'text/plain;charset="utf8"']
)
def test_texts_of_forms_are_utf8(client: TestClient, kind: str | None) -> None:
    form = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/v1/codes", content=text_part("\u00e9t\u00e9".encode(), kind), headers=form)
    assert answer.json()["items"][0]["rq"] == expected("\u00e9t\u00e9").rq.tolist()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xe9", None),
        (b"a", "text/plain; charset=punycode"),
        (b"a", "text/plain; charset=utf-16"),
        (b"\xe9", "text/plain; charset=latin-1"),
    ],
)
def test_texts_of_other_encodings_are_not_guessed(
    client: TestClient, content: bytes, kind: str | None
) -> None:
    form = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/v1/codes", content=text_part(content, kind), headers=form)
    assert answer.status_code == 400
    assert answer.json()["detail"] == "the text 'title' is not in UTF-8; encode it so"
