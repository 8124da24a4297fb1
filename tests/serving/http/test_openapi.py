"""Whatever a client makes up from the OpenAPI page, the service neither fails nor tells of its inside."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from starlette.testclient import TestClient
from tests.serving.fakes import TOKEN, Fakes

from qarm.serving.http.problems import PROBLEM_TYPE

EXAMPLES = 12  # of each operation and of each mode
SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
KINDS = ["application/json", "multipart/form-data; boundary=x", "multipart/form-data", "text/x", ""]
HEADS = [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF", b"fLaC"]
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with TestClient(
        Fakes(tmp_path_factory.mktemp("fuzz"), token=TOKEN).app, raise_server_exceptions=True
    ) as made:
        yield made


def sound(response: Any) -> None:
    """No server error, and errors are problem documents without a traceback."""
    assert response.status_code < 500, response.text
    assert "Traceback" not in response.text
    if response.status_code >= 400:
        kind = response.headers["content-type"]
        assert kind in (PROBLEM_TYPE, [PROBLEM_TYPE])
        assert response.json()["status"] == response.status_code


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app behind a real server, as clients send more over a socket than a test client lets through."""
    app = Fakes(tmp_path_factory.mktemp("served"), token=TOKEN).app
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_operations(client: TestClient, address: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    statuses: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        label = f"{operation.method.upper()} {operation.path}"
        takes = operation.path_parameters or operation.query or operation.body
        if label.endswith(("/bundle", "/rollback")) or (mode == GenerationMode.NEGATIVE and not takes):
            continue  # the first load bundles; what takes nothing cannot be given something wrong

        statuses[label] = _statuses(operation.as_strategy(generation_mode=mode), address)
    assert {"GET /v1/items/{item_id}", "POST /v1/codes", "POST /v1/score"} <= set(statuses)
    if mode == GenerationMode.POSITIVE:
        assert 200 in statuses["GET /v1/items"]


def _statuses(cases: Any, address: str) -> set[int]:
    found = set()

    @SETTINGS
    @given(case=cases)
    def run(case: Any) -> None:
        response = case.call(base_url=address, headers=HEADERS)
        sound(response)
        found.add(response.status_code)

    run()
    return found


@SETTINGS
@given(
    body=st.binary(max_size=200),
    kind=st.sampled_from(
        ["application/json", "multipart/form-data; boundary=x", "multipart/form-data", "text/x", ""]
    ),
    path=st.sampled_from(["/v1/codes", "/v1/score", "/v1/admin/bundle"]),
)
def test_bodies(client: TestClient, body: bytes, kind: str, path: str) -> None:
    sound(client.post(path, content=body, headers={**HEADERS, "Content-Type": kind}))


@SETTINGS
@given(
    content=st.binary(max_size=300),
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF", b"fLaC"]),
)
def test_pictures_and_sounds(client: TestClient, content: bytes, head: bytes) -> None:
    for name in ("image", "audio"):
        sound(client.post("/v1/codes?store=false", files={name: head + content}, headers=HEADERS))


@SETTINGS
@given(path=st.text(max_size=40), query=st.text(max_size=20))
def test_paths(client: TestClient, path: str, query: str) -> None:
    for start in ("/v1/items/", "/v1/codes/", "/", "/v1/items?query="):
        sound(client.get(start + quote(path + query, errors="replace"), headers=HEADERS))


def test_raw_requests_are_answered_or_closed(tmp_path: Path) -> None:
    """Scopes that no client would send: odd methods, headers that are no text."""
    fakes = Fakes(tmp_path)

    async def ask(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> int:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "headers": headers,
        }
        scope |= {"query_string": b"%ff=\xff", "http_version": "1.1", "scheme": "http", "client": None}
        await fakes.app(
            {**scope, "server": ("test", 80), "asgi": {"version": "3.0"}, "root_path": ""}, receive, send
        )
        return int(sent[0]["status"])

    async def run() -> list[int]:
        odd = [(b"content-type", b"\xff\xfe"), (b"content-length", b"-5"), (b"authorization", b"\xff")]
        async with fakes.app.router.lifespan_context(fakes.app):
            return [
                await ask(method, path, headers)
                for method in ("GET", "POST", "ODD")
                for path in ("/v1/codes", "/v1/items", "/v1/items/\x00", "/metrics")
                for headers in ([], odd, [(b"content-length", b"9" * 30)])
            ]

    assert all(200 <= status < 500 for status in asyncio.run(run()))
