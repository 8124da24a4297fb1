"""Connections of a real server: silent ones, slow ones, endless bodies, and what is no HTTP."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from tests.serving.fakes import Fakes

from qarm.serving.http.connections import BACKLOG, connection_class
from qarm.serving.limits import Limits

LIMITS = Limits(head_seconds=1.0, body_seconds=3.0, body=100_000, bodies=300_000, requests=8)
MOST = 20
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/codes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    fakes = Fakes(tmp_path, limits=LIMITS, hosts={"localhost"})
    config = uvicorn.Config(
        fakes.app, host="127.0.0.1", port=0, log_level="critical", ws="none", backlog=BACKLOG,
        http=connection_class(LIMITS, MOST), server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    until = time.monotonic() + 120
    while not server.started and thread.is_alive() and time.monotonic() < until:
        time.sleep(0.02)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join()


def connected(address: tuple[str, int], sent: bytes = b"") -> socket.socket:
    made = socket.create_connection(address, timeout=60)
    made.sendall(sent)
    return made


def read(client: socket.socket) -> bytes:
    """Everything until the service closes the connection."""
    parts = []
    while part := client.recv(2**16):
        parts.append(part)
    return b"".join(parts)


def answered(address: tuple[str, int], sent: bytes) -> tuple[int, dict[str, object]]:
    """Status and document of the only answer."""
    with connected(address, sent) as client:
        text = read(client)
    assert text.count(b"HTTP/1.1 ") == 1, text
    head, _, body = text.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def alive(address: tuple[str, int]) -> bool:
    with connected(address, GET) as client:
        return client.recv(2**16).startswith(b"HTTP/1.1 200")


def test_silent_and_half_sent_requests_hold_nobody_up(address: tuple[str, int]) -> None:
    silent = [connected(address) for _ in range(2 * MOST)]
    assert alive(address)
    half = [connected(address, POST + b"Content-Length: 50\r\n\r\n{") for _ in range(2 * MOST)]
    assert alive(address)
    for client in (*silent, *half):
        client.close()
    assert alive(address)


def test_a_head_that_does_not_end_is_cut(address: tuple[str, int]) -> None:
    started = time.monotonic()
    status, found = answered(address, b"GET /healthz HTTP/1.1\r\nX: ")
    assert (status, found["status"]) == (408, 408)
    assert time.monotonic() - started < 30


def test_a_body_that_nobody_reads_is_cut(address: tuple[str, int]) -> None:
    endless = b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    for head in (
        b"POST /nothing HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /v1/codes HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
    ):
        sent = 0
        with connected(address, head + endless) as client, pytest.raises((ConnectionError, TimeoutError)):
            for _ in range(4096):
                client.sendall(chunk)
                sent += len(chunk)
        assert sent < 40 * 2**20  # what the sockets hold, and no more
    assert alive(address)


def test_what_is_no_http_gets_a_problem(address: tuple[str, int]) -> None:
    both = POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET
    assert answered(address, both)[0] == 400
    for sent in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"):
        status, found = answered(address, sent)
        assert (status, found["title"]) == (400, "Bad Request")
