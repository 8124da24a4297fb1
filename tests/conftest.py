"""Sealed tests (no network, no home folder), small logs and examples, a log whose users keep to one group."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import settings

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log
from qarm.recommender.examples import Examples

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton
settings.register_profile("sealed", database=None, deadline=None, derandomize=True)
settings.load_profile("sealed")

OWN = {"127.0.0.1", "::1", "localhost"}
GROUPS, PER_GROUP, COLD = 4, 8, 2  # of `toy`


@pytest.fixture(autouse=True, scope="session")
def _no_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp("home")))
        for name in [name for name in os.environ if name.startswith("QARM_")]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in OWN:
            raise AssertionError(f"a test wanted the network: {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs two processes of torchrun; unless `check` is off, a fault shows what they printed."""

    def run(*arguments: object, check: bool = True) -> "subprocess.CompletedProcess[str]":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [*launcher, *map(str, arguments)]
        settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def make_log() -> Callable[..., Log]:
    """Builds a log from (user, item, time) or (user, item, time, label); rows count from `first`."""

    def make(events: Iterable[tuple[Any, ...]], *, first: int = 0) -> Log:
        rows = [(str(u), str(i), t, *(rest or (1,)), first + n) for n, (u, i, t, *rest) in enumerate(events)]
        schema = {
            "user_id": pl.String,
            "item_id": pl.String,
            "time": pl.Int64,
            "label": pl.Int8,
            "row": pl.Int64,
        }
        return Log(pl.DataFrame(rows, schema=schema, orient="row").sort("user_id", "time", "row"))

    return make


@pytest.fixture(scope="session")
def make_examples() -> Callable[..., Examples]:
    """Builds examples from events (candidates, labels, history), the history oldest first."""

    def make(
        events: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]],
        *,
        items: int = 10,
        users: Sequence[int] | None = None,
        cold: Sequence[int] = (),
    ) -> Examples:
        sizes = [len(candidates) for candidates, _, _ in events]
        lengths = np.array([len(history) for _, _, history in events], dtype=np.int64)
        end = np.repeat(np.cumsum(lengths), sizes).astype(np.int64)
        candidates = np.array([i for part, _, _ in events for i in part], dtype=np.int32)
        owners = np.arange(len(events)) if users is None else np.asarray(users)
        return Examples(
            user_ids=[f"u{n}" for n in range(len(events))],
            item_ids=[f"i{n:02d}" for n in range(items)],
            users=np.repeat(owners, sizes).astype(np.int32),
            items=candidates,
            labels=np.array([y for _, part, _ in events for y in part], dtype=np.int8),
            times=np.zeros(len(candidates), dtype=np.int64),
            events=np.repeat(np.arange(len(events)), sizes).astype(np.int64),
            cold=np.isin(candidates, cold),
            history=np.array([i for _, _, part in events for i in part], dtype=np.int32),
            start=end - np.repeat(lengths, sizes),
            end=end,
            begin=end - np.repeat(lengths, sizes),
        )

    return make


@pytest.fixture(scope="session")
def toy(make_log: Callable[..., Log]) -> tuple[Log, Codes, Embeddings]:
    """32 users with 16 events each, nine in ten within the user's own group of items.

    The first code of an item is its group, and so is its nearest pool entry; the last two items of each
    group have no event before time 130 (of 160).
    """
    random = np.random.default_rng(0)
    ids = [f"g{group}-{place}" for group in range(GROUPS) for place in range(PER_GROUP)]
    group = np.repeat(np.arange(GROUPS), PER_GROUP)
    place = np.tile(np.arange(PER_GROUP), GROUPS)
    events = []
    for user in range(32):
        for step in range(16):
            time = 10 * step + user % 10
            open_to_all = (place < PER_GROUP - COLD) | (time >= 130)
            chance = np.where(group == user % GROUPS, 9.0, 1 / 3) * open_to_all
            item = random.choice(len(ids), p=chance / chance.sum())
            events.append((f"u{user:02d}", ids[item], time))
    rq = np.stack([group, place % 3], axis=1).astype(np.int32)
    vq = np.stack([group, 4 + random.integers(0, 6, len(ids))], axis=1).astype(np.int32)
    vectors = np.eye(GROUPS)[group] + 0.1 * random.normal(size=(len(ids), GROUPS))
    return make_log(events), Codes(ids, rq, vq), Embeddings(ids, vectors.astype(np.float32))
