"""Load test of the service, open loop, on one machine: `python benchmarks/load.py` (`make load`).

Starts `qarm serve` on a loopback port and sends 200 requests a second, at times drawn before the first
request (a Poisson process), whatever the answers: nine in ten read (an item, the items under a prefix, a
search), one in ten has a new text to code and to store. A latency counts from the time at which the request
was due, so that a slow answer also counts for the requests behind it. Warm-up is separate. The server's
anonymous memory is that of its two processes; its growth is the slope of a straight line through samples,
once every five seconds.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np
import polars as pl

from hardening.hostile_http import Attack, idle_connections, picture_bomb, slow_head

ROOT = Path(__file__).parent.parent
LOOPBACK = "127.0.0.1"
CODES_P99, READS_P99, GROWTH = 0.200, 0.030, 1.0  # seconds, seconds, MB a minute
SAMPLED = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, default=ROOT / "runs" / "demo", help="a finished run, exported first"
    )
    parser.add_argument("--bundle", type=Path, help="an exported bundle, instead of --run")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--warm-up", type=float, default=20)
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--threads", type=int, default=2, help="of the encoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--beside", action="store_true", help="500 silent connections, a slow head, bombs")
    parser.add_argument("--hostile", type=int, help=argparse.SUPPRESS)  # the process of `--beside`
    asked = parser.parse_args()
    if asked.hostile:
        asyncio.run(hostile(asked.hostile))
    with tempfile.TemporaryDirectory(prefix="qarm-load-") as folder:
        bundle = asked.bundle or export(asked.run, Path(folder) / "bundle")
        store = Path(folder) / "store"
        server, port = start(bundle, store, threads=asked.threads)
        try:
            load = Load(bundle, port, server.pid, rate=asked.rate, seed=asked.seed)
            with hostile_clients(port) if asked.beside else contextlib.nullcontext():
                asyncio.run(load.run(asked.warm_up, asked.seconds))
            server.send_signal(signal.SIGTERM)
            ended = server.wait(60)
        finally:
            server.kill()
        with sqlite3.connect(store / "codes.sqlite") as database:
            (kept,) = database.execute("SELECT count(*) FROM codes").fetchone()
        database.close()
    print(f"asked {asked.rate:g} a second for {asked.seconds:g} s after {asked.warm_up:g} s of warm-up")
    sys.exit(0 if print_figures(load, kept=kept, ended=ended) else 1)


@contextlib.contextmanager
def hostile_clients(port: int) -> Iterator[None]:
    """Hostile clients in a process of their own, so that they hold only the service up, not the load."""
    process = subprocess.Popen([sys.executable, __file__, "--hostile", str(port)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def hostile(port: int) -> None:
    """500 silent connections, a head of a byte a second, and a picture bomb after the other."""
    await asyncio.gather(idle_connections(LOOPBACK, port, 500), slow_head(LOOPBACK, port), bombs(port))


async def bombs(port: int) -> None:
    """A picture bomb after the other, as soon as each is answered."""
    attack, bomb = Attack(LOOPBACK, port), picture_bomb()
    while True:
        with contextlib.suppress(OSError, EOFError):
            await attack.post("/v1/codes", bomb)
        await asyncio.sleep(1)


def export(run: Path, bundle: Path) -> Path:
    items = sorted(run.glob("world/items.parquet"))
    given = [part for path in items for part in ("--items", str(path))]
    command = [sys.executable, "-m", "qarm", "export", str(run), "--out", str(bundle), *given]
    subprocess.run(command, check=True)
    return bundle


def start(bundle: Path, store: Path, *, threads: int) -> tuple[subprocess.Popen[str], int]:
    command = [
        sys.executable,
        "-m",
        "qarm",
        "serve",
        "--bundle",
        str(bundle),
        "--host",
        LOOPBACK,
        "--port",
        "0",
    ]
    command += ["--store", str(store), "--threads", str(threads)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = server.stdout.readline() if server.stdout else ""
    port = re.search(r":(\d+)$", line.strip())
    if port is None:
        sys.exit(f"the server did not start: {line}")
    return server, int(port[1])


# ---- what is asked --------------------------------------------------------------------------------


class Traffic:
    """Requests as bytes; the same seed, the same requests."""

    def __init__(self, bundle: Path, *, seed: int) -> None:
        self.random = random.Random(seed)
        config = json.loads((bundle / "bundle.json").read_text())["config"]
        self.fields = config["data"]["items"]["text"]
        self.items = pl.read_parquet(bundle / "items.parquet").to_dicts()
        self.codes = pl.read_parquet(bundle / "codes" / "codes.parquet")["rq"].to_list()
        self.new = 0

    def one(self) -> tuple[str, bytes]:
        """`codes` or `reads`, and the request."""
        choice = self.random.random()
        if choice < 0.1:
            return "codes", self._new_text()
        if choice < 0.7:
            path = f"/v1/items/{quote(self.random.choice(self.items)['item_id'])}"
        elif choice < 0.9:
            rq = self.random.choice(self.codes)
            path = f"/v1/codes/{'-'.join(map(str, rq[: self.random.randint(1, len(rq))]))}"
        else:
            words = (str(self.random.choice(self.items).get(self.fields[0])) or "a").split()
            path = f"/v1/items?query={quote(self.random.choice(words))}"
        return "reads", f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n".encode()

    def _new_text(self) -> bytes:
        """Each field from another item, and a number that no other text has."""
        self.new += 1
        text = {name: self.random.choice(self.items).get(name) for name in self.fields}
        text[self.fields[0]] = f"{text[self.fields[0]] or ''} {self.new}"
        body = json.dumps({"item_id": f"load-{self.new}", "text": text}).encode()
        head = f"POST /v1/codes HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Outcomes:
    """Outcomes of the requests of one kind: seconds from due to done, and errors."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Load:
    """Open loop: a request is sent when it is due, on a free connection or a new one."""

    def __init__(self, bundle: Path, port: int, server: int, *, rate: float, seed: int) -> None:
        self.traffic, self.port, self.server, self.rate = Traffic(bundle, seed=seed), port, server, rate
        self.random = random.Random(seed + 1)
        self.outcomes = {"codes": Outcomes(), "reads": Outcomes()}
        self.stored = 0
        self.connections = 0
        self.memory: list[tuple[float, float]] = []
        self._free: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def run(self, warm_up: float, seconds: float) -> None:
        waiting: set[asyncio.Task[None]] = set()
        started = time.perf_counter()
        due, counted = 0.0, False
        watching: asyncio.Task[None] | None = None
        while (due := due + self.random.expovariate(self.rate)) < warm_up + seconds:
            if not counted and due >= warm_up:
                counted = True
                watching = asyncio.create_task(self._watch())
            kind, request = self.traffic.one()
            delay = started + due - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            task = asyncio.create_task(self._ask(kind, request, started + due, counted=counted))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        if waiting:
            await asyncio.wait(waiting, timeout=30)
        if watching is not None:
            watching.cancel()
        for late in waiting:
            late.cancel()
            self.outcomes["reads"].errors.append("no answer in 30 s after the end")
        for _, writer in self._free:
            writer.close()

    async def _ask(self, kind: str, request: bytes, due: float, *, counted: bool) -> None:
        try:
            status = await self._answer(request)
        except (OSError, EOFError, ValueError) as error:
            status = repr(error)
        seconds = time.perf_counter() - due
        self.stored += kind == "codes" and status == "200"
        outcome = self.outcomes[kind]
        if status != "200":
            outcome.errors.append(status)
        elif counted:
            outcome.seconds.append(seconds)

    async def _answer(self, request: bytes) -> str:
        while self._free and self._free[-1][0].at_eof():  # closed by the server while nobody used it
            self._free.pop()[1].close()
        if self._free:
            reader, writer = self._free.pop()
        else:
            reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
            self.connections += 1
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        if length is None:
            raise ValueError("an answer without a length")
        await reader.readexactly(int(length[1]))
        if "connection: close" in head:
            writer.close()
        else:
            self._free.append((reader, writer))
        return head.split(" ", 2)[1]

    async def _watch(self) -> None:
        while True:
            self.memory.append((time.perf_counter() / 60, anonymous_mb(self.server)))
            await asyncio.sleep(SAMPLED)

    def growth(self) -> float:
        """MB a minute."""
        minutes, sizes = np.array(self.memory).T
        return float(np.polyfit(minutes - minutes[0], sizes, 1)[0])


def anonymous_mb(pid: int) -> float:
    """Anonymous memory of a process and its children."""
    total = 0
    for one in (pid, *children_of(pid)):
        rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        total += int(re.search(r"^Anonymous:\s+(\d+) kB", rollup, flags=re.M)[1])
    return total / 1024


def children_of(pid: int) -> list[int]:
    """Processes that any thread of a process has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in lists for child in children.read_text().split()]


def print_figures(load: Load, *, kept: int, ended: int) -> bool:
    """Print the figures; True when every limit is met."""
    met = []

    def line(what: str, value: str, need: str, good: bool) -> None:
        met.append(good)
        print(f"{what:<34} {value:>14}   need {need:<18} {'met' if good else 'NOT MET'}")

    errors = [error for outcome in load.outcomes.values() for error in outcome.errors]
    for name, most in (("codes", CODES_P99), ("reads", READS_P99)):
        seconds = np.array(load.outcomes[name].seconds)
        p50, p99 = np.percentile(seconds, [50, 99])
        print(
            f"{name}: {len(seconds):,} answers, p50 {p50 * 1e3:.1f} ms, longest {seconds.max() * 1e3:.0f} ms"
        )
        line(f"{name} p99", f"{p99 * 1e3:.1f} ms", f"<= {most * 1e3:.0f} ms", bool(p99 <= most))
    line("errors", f"{len(errors):,}", "0", not errors)
    for error in sorted(set(errors)):
        print(f"  {errors.count(error):,} x {error}")
    first, last = load.memory[0][1], load.memory[-1][1]
    growth = load.growth()
    line("anonymous memory grows by", f"{growth:.2f} MB/min", f"< {GROWTH:g} MB/min", growth < GROWTH)
    print(f"  {first:.0f} MB at first, {last:.0f} MB at last; {load.connections} connections")
    line("codes answered and kept", f"{load.stored:,} / {kept:,}", "equal", load.stored == kept)
    line("server's exit code", str(ended), "0", ended == 0)
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores shared with the load; load average {os.getloadavg()[0]:.1f}")
    return all(met)


if __name__ == "__main__":
    main()
