"""Hostile HTTP requests to a service, with the time of `/healthz` and the service's memory meanwhile."""

import asyncio
import base64
import contextlib
import io
import json
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

__all__ = ["Attack", "Report", "idle_connections", "picture_bomb", "slow_head"]

MIB = 2**20
LONGEST, MEMORY_MB = 0.250, 1536.0
HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"


@dataclass
class Report:
    """Answers by kind and status; health: seconds of each `/healthz`; memory: MB at each."""

    statuses: Counter[str] = field(default_factory=Counter)
    health: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether `/healthz` was quick, memory small, and no answer a fault of the service."""
        quick = bool(self.health) and max(self.health) <= LONGEST
        return quick and max(self.memory, default=0.0) <= MEMORY_MB and not self.faults

    def __str__(self) -> str:
        health = f"healthz: {len(self.health)} answers, longest {max(self.health, default=0) * 1e3:.0f} ms"
        memory = f"memory: at most {max(self.memory, default=0):.0f} MB"
        kinds = "\n".join(f"  {kind}: {count}" for kind, count in sorted(self.statuses.items()))
        return "\n".join([health, memory, kinds, *self.faults])


class Attack:
    """Hostile requests to one service, a few at a time.

    Args:
        host, port: of the service; pid: its process, None where its memory is not measured.
    """

    def __init__(self, host: str, port: int, *, pid: int | None = None, seed: int = 0) -> None:
        self.host, self.port, self.pid = host, port, pid
        self.random = random.Random(seed)
        self.report = Report()

    async def run(self, requests: int = 200, *, at_once: int = 4) -> Report:
        """Send so many requests, each kind in turn, while `/healthz` is asked ten times a second."""
        watching = asyncio.create_task(self._watch())
        gate = asyncio.Semaphore(at_once)
        kinds = list(self.kinds().items())

        async def one(number: int) -> None:
            name, work = kinds[number % len(kinds)]
            async with gate:
                try:
                    status = await asyncio.wait_for(work(), 60)
                except (OSError, EOFError):
                    status = "cut"
                except TimeoutError:
                    status = "no answer in 60 s"
            self.report.statuses[f"{name}: {status}"] += 1
            if status == "500" or status.startswith("no answer"):
                self.report.faults.append(f"{name}: {status}")

        await asyncio.gather(*(one(number) for number in range(requests)))
        await asyncio.sleep(0.5)
        watching.cancel()
        return self.report

    def kinds(self) -> dict[str, Callable[[], Awaitable[str]]]:
        """Requests by name; each returns the status of its answer."""
        empty = b'{"items":[' + b"{}," * (4 * MIB) + b"{}]}"
        ids = b'{"candidates":[' + b'"a",' * (3 * MIB) + b'"a"]}'
        return {
            "16 MiB of empty items": lambda: self.post("/v1/codes", empty),
            "12 MiB of candidates": lambda: self.post("/v1/score", ids),
            "deep arrays": lambda: self.post("/v1/codes", b"[" * (8 * MIB)),
            "a string of quotes": lambda: self.post("/v1/codes", b'{"a":"' + b'\\"' * (4 * MIB) + b'"}'),
            "an endless body at 404": lambda: self._endless("/nothing", JSON),
            "an endless body at 415": lambda: self._endless("/v1/codes", b"Content-Type: text/plain\r\n"),
            "Content-Length and Transfer-Encoding": lambda: self._send(
                b"POST /v1/codes HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: 4\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            "a charset that is none": lambda: self._send(
                b"POST /v1/codes HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n"
                b"Content-Type: multipart/form-data; boundary=x; charset=punycode\r\n\r\n{}"
            ),
            "control characters in a path": lambda: self._send(
                b"GET /v1/items/a%0d%0ab HTTP/1.1\r\n" + HOST + b"\r\n"
            ),
            "a wrong range": lambda: self._send(
                b"GET /explorer/media/x.png HTTP/1.1\r\n" + HOST + b"Range: bytes=9-1\r\n\r\n"
            ),
            "no HTTP": lambda: self._send(
                bytes(self.random.randrange(256) for _ in range(200)) + b"\r\n\r\n"
            ),
            "another host": lambda: self._send(b"GET /v1/items HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
            "another origin": lambda: self.post("/v1/codes", b"{}", b"Origin: http://evil.example\r\n"),
            "a head of 1 MiB": lambda: self._send(
                b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * MIB + b"\r\n\r\n"
            ),
            "half a body": self._half_body,
            "50 silent connections": self._silent,
            "a picture bomb": lambda: self.post("/v1/codes", picture_bomb()),
        }

    async def post(self, path: str, body: bytes, more: bytes = b"") -> str:
        """Status of the answer to a JSON body."""
        head = f"POST {path} HTTP/1.1\r\n".encode() + HOST + JSON + more
        return await self._send(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def _send(self, request: bytes) -> str:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(request)
            answer = asyncio.create_task(reader.readline())
            with contextlib.suppress(OSError):  # it was answered before all was sent
                await writer.drain()
            return _status(await answer)
        finally:
            writer.transport.abort()

    async def _endless(self, path: str, kind: bytes) -> str:
        _, writer = await asyncio.open_connection(self.host, self.port)
        head = f"POST {path} HTTP/1.1\r\n".encode() + HOST + kind
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk, sent = b"10000\r\n" + b"x" * 65536 + b"\r\n", 0
        try:
            while sent < 64 * MIB:
                writer.write(chunk)
                await writer.drain()
                sent += len(chunk)
        except OSError:
            return "cut"
        finally:
            writer.transport.abort()
        self.report.faults.append(f"{path}: {sent / MIB:.0f} MiB were read on")
        return "read on"

    async def _half_body(self) -> str:
        request = b"POST /v1/codes HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: 50\r\n\r\n{"
        return await self._send(request)

    async def _silent(self) -> str:
        opened = [await asyncio.open_connection(self.host, self.port) for _ in range(50)]
        await asyncio.sleep(1)
        for _, writer in opened:
            writer.transport.abort()
        return "opened"

    async def _watch(self) -> None:
        while True:
            started = time.perf_counter()
            try:
                status = await self._send(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
            except (OSError, EOFError) as error:
                status = repr(error)
            self.report.health.append(time.perf_counter() - started)
            if status != "200":
                self.report.faults.append(f"healthz: {status}")
            if self.pid is not None:
                self.report.memory.append(_memory_mb(self.pid))
            await asyncio.sleep(0.1)


def _status(line: bytes) -> str:
    parts = line.split()
    return parts[1].decode() if len(parts) > 1 else "cut"


def _memory_mb(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", rollup, flags=re.M)
    return int(found[1]) / 1024 if found else 0.0


def picture_bomb(pictures: int = 16) -> bytes:
    """A request of pictures of one bit a pixel that are small in bytes and large in pixels."""
    made = io.BytesIO()
    Image.new("1", (4000, 3990)).save(made, "PNG")
    image = base64.b64encode(made.getvalue()).decode()
    return json.dumps({"items": [{"image": image} for _ in range(pictures)]}).encode()


async def idle_connections(host: str, port: int, count: int) -> None:
    """Hold so many silent connections, opened anew when they are cut, until this is cancelled."""

    async def one() -> None:
        while True:
            try:
                reader, _ = await asyncio.open_connection(host, port)
                await reader.read()
            except OSError:
                pass
            await asyncio.sleep(0.1)

    await asyncio.gather(*(one() for _ in range(count)))


async def slow_head(host: str, port: int) -> None:
    """Send a head a byte a second, again and again, until this is cancelled."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
            for sign in b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 1000:
                writer.write(bytes([sign]))
                await writer.drain()
                await asyncio.sleep(1)
        except OSError:
            pass
        await asyncio.sleep(0.1)
