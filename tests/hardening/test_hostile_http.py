"""A small sample of the hostile requests, to a real server over fakes."""

import asyncio
import threading
import time
from pathlib import Path

import uvicorn
from tests.serving.fakes import Fakes

from hardening.hostile_http import Attack, Report
from qarm.serving.http.connections import BACKLOG, connection_class
from qarm.serving.limits import Limits

LIMITS = Limits(head_seconds=2.0, body_seconds=2.0)
SLOW = 5.0  # seconds of /healthz here, where the client shares the process and the machine is busy


def test_each_kind_is_answered_or_cut(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path, limits=LIMITS, hosts={"127.0.0.1"})
    http = connection_class(LIMITS, 100)
    config = uvicorn.Config(
        fakes.app, host="127.0.0.1", port=0, log_level="critical", ws="none", backlog=BACKLOG, http=http
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    until = time.monotonic() + 120
    while not server.started and thread.is_alive() and time.monotonic() < until:
        time.sleep(0.02)
    attack = Attack("127.0.0.1", server.servers[0].sockets[0].getsockname()[1])
    kinds = len(attack.kinds())
    report = asyncio.run(attack.run(kinds, at_once=2))
    server.should_exit = True
    thread.join()
    assert report.faults == []
    assert report.statuses.total() == kinds
    assert max(report.health) < SLOW
    answered = {kind.split(": ")[0]: kind.split(": ")[1] for kind in report.statuses}
    assert answered["16 MiB of empty items"] == answered["12 MiB of candidates"] == "422"
    assert answered["another host"] == "421"
    assert answered["half a body"] == "408"


def test_a_slow_or_broken_service_does_not_pass() -> None:
    assert not Report().passed
    assert Report(health=[0.2], memory=[100.0]).passed
    assert not Report(health=[0.3], memory=[100.0]).passed
    assert not Report(health=[0.2], memory=[2000.0]).passed
    assert not Report(health=[0.2], memory=[100.0], faults=["500"]).passed
