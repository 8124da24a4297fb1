"""Sealed tests (no network, no home folder), and small logs and examples written out by hand."""

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import settings

from qarm.data.interactions import Log
from qarm.recommender.examples import Examples

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton
settings.register_profile("sealed", database=None, deadline=None, derandomize=True)
settings.load_profile("sealed")

OWN = {"127.0.0.1", "::1", "localhost"}


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
