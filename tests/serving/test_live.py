"""The service as a process of its own, started by the README's command: curl, encode, signals, kills."""

import base64
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from httpx2 import Client
from PIL import Image
from tests.serving.fakes import expected

from qarm.quantizer.coder import encode, new_vectors
from qarm.serving.code_store import Store

README = Path(__file__).parent.parent.parent / "README.md"
HERE = Path(__file__).parents[2]
STARTED = re.compile(r"(http://127\.0\.0\.1:\d+)\s*$")


def shell_lines() -> list[str]:
    """The commands of the README's section, continued lines joined."""
    section = README.read_text(encoding="utf-8").split("\n## Serve\n")[1].split("\n## ")[0]
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", section, flags=re.M | re.S))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


@dataclass
class Live:
    """A running server: its process, address, and the folder that it runs in."""

    process: subprocess.Popen[str]
    address: str
    folder: Path

    def workers(self, module: str = "encoder_process") -> list[int]:
        """Processes of a module that any of its threads has started, the oldest first."""
        lists = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        children = [int(child) for found in lists for child in found.read_text().split()]
        return sorted(child for child in children if module in _command(child))

    def encoder(self) -> int:
        """The encoder; the other process of its module waits on standby, and has coded nothing."""
        return self.workers()[0]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it has just ended
        return ""


def started(command: list[str], folder: Path) -> Live:
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    found = STARTED.search(line)
    assert found, f"{line}{process.stdout.read()}"
    return Live(process, found[1], folder)


@pytest.fixture(scope="module")
def live(exported: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    (folder / "runs" / "demo").mkdir(parents=True)
    (folder / "runs" / "demo" / "world").symlink_to(world)
    (folder / "runs" / "bundle").symlink_to(exported)
    (line,) = [line for line in shell_lines() if line.startswith("qarm serve")]
    command = line.replace("8000", "0").split()
    made = started([sys.executable, "-m", *command], folder)
    yield made
    made.process.kill()
    made.process.wait()
    made.process.stdout.close()


@pytest.fixture
def client(live: Live) -> Iterator[Client]:
    with Client(base_url=live.address, timeout=60) as made:
        yield made


def test_the_readmes_curl(live: Live) -> None:
    commands = [line for line in shell_lines() if line.startswith("curl")]
    answers = {}
    for line in commands:
        assert "127.0.0.1:8000" in line
        given = shlex.split(line.replace("127.0.0.1:8000", live.address.removeprefix("http://")))
        done = subprocess.run(
            [*given, "-w", "\n%{http_code}"], cwd=live.folder, capture_output=True, text=True
        )
        answer, status = done.stdout.rsplit("\n", 1)
        assert (done.returncode, status) == (0, "200"), f"{line}: {answer}{done.stderr}"
        answers[re.search(r"8000(/[^\s'?]*)", line)[1] + str(len(answers))] = answer
    assert len(answers) >= 8
    made = {name: json.loads(text) for name, text in answers.items() if not name.startswith("/metrics")}
    assert [made[name]["items"][0]["stored"] for name in ("/v1/codes0", "/v1/codes1")] == [True, True]
    assert len(made["/v1/items/i000012"]["nearest"]) == 5
    assert made["/v1/codes/33"]["total"] > 0
    assert "scarf" in made["/v1/items4"]["items"][0]["title"]
    assert [item["item_id"] for item in made["/v1/score5"]["items"]] == ["i00003", "i00004"]


def test_new_items_get_the_codes_of_qarm_encode(client: Client, run: Path, world: Path) -> None:
    """Text, picture and sound, one by one by form and all at once; and what has only some of them."""
    table = world / "new.parquet"
    codes, vectors, rows = encode(run, table), new_vectors(run, table), pl.read_parquet(table).to_dicts()
    assert len(rows) == 8
    fields = ("title", "description")
    for number, row in enumerate(rows):
        files = {name: (world / row[f"{name}_path"]).read_bytes() for name in ("image", "audio")}
        texts = {"item_id": row["item_id"], **{name: row[name] for name in fields}}
        (found,) = client.post("/v1/codes", data=texts, files=files).json()["items"]
        assert found["rq"] == codes.rq[number].tolist()
        assert found["vq"] == codes.vq[number].tolist()
        assert found["stored"]
        assert np.abs(np.array(found["vector"], dtype=np.float32) - vectors.vectors[number]).max() < 1e-6
    bare = pl.read_parquet(table).with_columns(
        image_path=pl.lit(None, pl.String), audio_path=pl.lit(None, pl.String)
    )
    bare.write_parquet(world / "bare.parquet")
    expected_codes = encode(run, world / "bare.parquet")
    batch = {"items": [{"text": {name: row[name] for name in fields}} for row in rows]}
    answer = client.post("/v1/codes", json=batch).json()
    assert [item["rq"] for item in answer["items"]] == expected_codes.rq.tolist()
    assert [item["vq"] for item in answer["items"]] == expected_codes.vq.tolist()
    assert answer["version"] == expected_codes.version


def test_sighup_loads_the_bundle_again(live: Live, client: Client, exported: Path) -> None:
    """Requests go on all the while; the encoder's process is another one afterwards."""
    before = live.encoder()
    link = live.folder / "runs" / "bundle"
    link.unlink()
    link.symlink_to(exported)
    live.process.send_signal(signal.SIGHUP)
    item = {"item_id": "during", "text": {"title": "during the swap"}}
    deadline = time.monotonic() + 280
    while before in live.workers():
        assert client.post("/v1/codes", json=item).status_code == 200
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert client.post("/v1/codes", json=item).status_code == 200
    assert len(live.workers()) == 2


def test_without_its_encoder_it_still_reads(live: Live, client: Client) -> None:
    """The process on standby takes the place of one that was killed."""
    os.kill(live.encoder(), signal.SIGKILL)
    killed = time.monotonic()
    refused = client.post("/v1/codes", json={"text": {"title": "while it is away"}})
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert client.get("/v1/items/i00001").status_code == 200
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < killed + 120
        time.sleep(0.05)
    assert client.post("/v1/codes", json={"text": {"title": "again"}}).status_code == 200


def test_64_pictures_of_one_bit_cost_their_request_alone(live: Live, client: Client) -> None:
    """Small in bytes, a thousand million pixels: refused after five, while texts are coded."""
    encoder, began = live.encoder(), time.monotonic()
    picture = io.BytesIO()
    Image.new("1", (4000, 3990)).save(picture, "PNG")
    with ThreadPoolExecutor(1) as pool:
        bomb = pool.submit(_code, live.address, [picture.getvalue()] * 64)
        texts = 0
        while not bomb.done():
            assert client.post("/v1/codes", json={"text": {"title": f"beside {texts}"}}).status_code == 200
            texts += 1
            assert time.monotonic() < began + 200
        answer = bomb.result()
    assert (texts > 2, live.encoder()) == (True, encoder)
    assert answer["errors"][0] == {
        "pointer": "/items/5",
        "detail": "pictures of over 64,000,000 pixels in one request; send several requests",
    }


def _code(address: str, pictures: list[bytes]) -> dict[str, Any]:
    items = [{"image": base64.b64encode(picture).decode()} for picture in pictures]
    with Client(base_url=address, timeout=150) as client:
        return dict(client.post("/v1/codes", json={"items": items}).json())


def test_sigterm_ends_it_with_zero_and_what_was_kept_is_there(live: Live) -> None:
    live.process.send_signal(signal.SIGTERM)
    assert live.process.wait(240) == 0
    store = Store(live.folder / "runs" / "bundle.store")
    assert {"n00001", "n00002", "during"} <= set(store.under((), _version(live), first=0, count=99))
    store.close()


def test_a_second_sigterm_ends_it_at_once_with_its_processes(exported: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qarm", "serve", "--bundle", str(exported), "--port", "0"]
    made = started([*command, "--store", str(tmp_path / "store")], tmp_path)
    children = [*made.workers(), *made.workers("decoder_process")]
    host, port = made.address.removeprefix("http://").split(":")
    head = f"POST /v1/codes HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port))) as open_request:
        open_request.sendall(head.encode() + b"Content-Length: 9\r\n\r\n{")
        time.sleep(0.5)
        made.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            made.process.wait(1)
        made.process.send_signal(signal.SIGTERM)
        assert made.process.wait(5) == -signal.SIGTERM
    made.process.stdout.close()
    assert children
    until = time.monotonic() + 20
    while any("encoder_process" in _command(child) for child in children):
        assert time.monotonic() < until
        time.sleep(0.1)


def _version(live: Live) -> str:
    from qarm.serving.bundle import Bundle

    return Bundle.load(live.folder / "runs" / "bundle").version


# ---- kill -9 ------------------------------------------------------------------------------------

SERVER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.serving.fakes import Fakes
import uvicorn
made = Fakes(Path(sys.argv[1]))
config = uvicorn.Config(made.app, port=0, log_level="error")
server = uvicorn.Server(config)
socket = config.bind_socket()
socket.listen(100)
print(f"http://127.0.0.1:{socket.getsockname()[1]}", flush=True)
server.run(sockets=[socket])
"""


def test_a_kill_after_the_answer_loses_no_code(tmp_path: Path) -> None:
    """Of thirty answered items each is there, whole, when the process has died."""
    running = started([sys.executable, "-c", SERVER, str(tmp_path), str(HERE)], tmp_path)
    acknowledged: list[dict[str, Any]] = []
    with Client(base_url=running.address, timeout=60) as client:
        for number in range(30):
            item = {"item_id": f"n{number}", "text": {"title": f"t{number}"}}
            acknowledged += client.post("/v1/codes", json=item).json()["items"]
    running.process.kill()
    running.process.wait()
    running.process.stdout.close()
    store = Store(tmp_path / "store")
    assert len(acknowledged) == 30
    for item in acknowledged:
        assert item["stored"]
        found = store.find(item["item_id"], "version-of-one")
        assert found.rq.tolist() == item["rq"]
        made = expected(found.facts["title"])
        assert found.vector.tolist() == made.vector.tolist() == item["vector"]
    store.close()
