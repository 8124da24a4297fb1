"""A bundle and an encoder that are quick and can be followed by hand."""

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fastapi import FastAPI

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import ArtifactError, InputError
from qarm.recommender.retrieval.blend import Blend
from qarm.recommender.retrieval.counting import ContentKnn
from qarm.recommender.retrieval.histories import Histories
from qarm.recommender.retrieval.recommender import Recommender
from qarm.recommender.retrieval.storage import StoredRetriever
from qarm.schemas.results import RankerShape
from qarm.schemas.retrieval import CountingSettings
from qarm.serving.app import build_app
from qarm.serving.bundle_manager import BundleManager
from qarm.serving.child_process import ProcessDiedError
from qarm.serving.code_store import Store
from qarm.serving.decoder_process import Decoded, Medium, decode
from qarm.serving.decoder_queue import DecoderQueue
from qarm.serving.encoder_process import Coded
from qarm.serving.limits import Limits
from qarm.serving.prometheus_metrics import Metrics
from qarm.serving.service import Service
from qarm.serving.store_queue import StoreQueue

TOKEN = "a-token-for-the-tests"  # noqa: S105
HOSTS = ("testserver", "test", "127.0.0.1")  # that the test clients name
DIM, LEVELS = 4, 3


class FakeBundle:
    """Items `i0` to `i11` with the codes [n // 4, n % 4, n]; vectors lie on a circle, in order."""

    def __init__(self, folder: Path, *, items: int = 12) -> None:
        self.folder, self.version = folder, f"version-of-{folder.name}"
        self.item_ids = [f"i{n}" for n in range(items)]
        angles = np.arange(items) * 0.1
        vectors = np.stack([np.cos(angles), np.sin(angles), *[np.zeros(items)] * 2], axis=1)
        numbers = np.arange(items)
        rq = np.stack([numbers // 4, numbers % 4, numbers], axis=1).astype(np.int32)
        self.codes = Codes(self.item_ids, rq, rq[:, :2], version=3)
        self.vectors = Embeddings(self.item_ids, vectors.astype(np.float32))
        self.text_fields, self.picture_side = ["title", "description"], None
        self.scorer = FakeScorer(self.item_ids)
        self.recommender: Recommender | None = fake_recommender(self.item_ids, self.vectors.vectors)
        self.users: int | None = len(self.recommender.users)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self.item_ids

    def row(self, item_id: str) -> int:
        return self.item_ids.index(item_id)

    def facts(self, item_id: str) -> dict[str, str | None]:
        return {"item_id": item_id, "title": f"Hat No. {item_id[1:]}", "image": None}

    def nearest_raw(self, item_id: str) -> list[str]:
        return [other for other in self.item_ids if other != item_id][:10]

    def nearest(self, vectors: np.ndarray, count: int) -> tuple[list[list[str]], np.ndarray]:
        cosines = vectors @ self.vectors.vectors.T
        order = np.argsort(-cosines, axis=1)[:, :count]
        return [[self.item_ids[row] for row in line] for line in order], np.take_along_axis(cosines, order, 1)

    def under(self, prefix: Sequence[int]) -> list[str]:
        length = len(prefix)
        return [
            i
            for i, rq in zip(self.item_ids, self.codes.rq.tolist(), strict=True)
            if rq[:length] == list(prefix)
        ]


def fake_recommender(item_ids: list[str], vectors: np.ndarray) -> Recommender:
    """Content-kNN alone; `u1` has `i0` and `i1`, `u2` has `i9`; `i5` and then `i6` are the popular ones."""
    part = ContentKnn.of(vectors)
    blend = Blend({"content-knn": part}, {"content-knn": 1.0}, np.zeros(len(item_ids), bool))
    recent = np.zeros(len(item_ids), np.int64)
    recent[5:7] = 9, 4
    histories = Histories.of([[0, 1], [9]])
    counting = CountingSettings()
    return Recommender(
        StoredRetriever(blend, list(item_ids), recent, recent, ["u1", "u2"], histories, counting)
    )


class FakeScorer:
    """Trained with the items below `i10`; a logit is the item's number minus the length of the history.

    A new item counts as the first of its codes; each known value of a user feature adds 100, gaps their sum.
    """

    def __init__(self, item_ids: list[str]) -> None:
        self.item_ids, self.variant = item_ids, "id+rq+vq"
        self.why_not_new: str | None = None
        self.ranker = SimpleNamespace(
            shape=RankerShape(
                items=10, known=9, dim=4, hidden=(4,), dropout=0, id_dropout=0, history=2, labels=("liked",)
            ),
            values={"age": ["18", "25"], "member": ["false", "true"]},
            long_history=1000,
        )

    def is_cold(self, item_id: str) -> bool:
        return item_id not in self.item_ids[:10]

    def unknown(self, item_ids: Sequence[str]) -> list[str]:
        return [item for item in dict.fromkeys(item_ids) if item not in self.item_ids]

    def score(self, candidates: Any, histories: Any, **read: Any) -> list[np.ndarray]:
        new = read.get("new")
        number = {} if new is None else dict(zip(new.item_ids, new.rq[:, 0].tolist(), strict=True))
        number |= {item: int(item[1:]) for item in self.item_ids}
        (user,), (gaps,) = read["users"] or [{}], read["gaps"] or [[]]
        known = sum(user.get(name) in values for name, values in self.ranker.values.items())
        more = 100 * known + sum(gaps) + 1000 * (read["label"] is not None)
        return [
            np.array([number[c] - len(past) + more for c in items], dtype=np.float32)
            for items, past in zip(candidates, histories, strict=True)
        ]


class FakeWorker:
    """Codes come from a hash of the title; "die" ends it, "bug" breaks it, "bad" cannot be coded."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.starts = 0
        self.stopped = False
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()
        self.seconds = 0.0

    def start(self) -> None:
        self.starts += 1

    def stop(self) -> None:
        self.stopped = True

    def code(self, rows: Sequence[Any]) -> list[Coded | InputError]:
        self.calls.append(len(rows))
        self.begun.set()
        assert self.go.wait(20)
        time.sleep(self.seconds)
        if any(row.get("title") == "die" for row in rows):
            raise ProcessDiedError("it ended")
        if any(row.get("title") == "bug" for row in rows):
            raise RuntimeError("secret of the house")
        return [self._one(row) for row in rows]

    def _one(self, row: Any) -> Coded | InputError:
        return (
            InputError("text: nothing to read") if row.get("title") == "bad" else expected(row.get("title"))
        )


class FakeDecoder:
    """Decodes in this process, without a budget; a picture of 1 x 1 ends it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.stopped = False

    def decode(self, medium: Medium, *, seconds: float) -> Decoded:
        self.seconds.append(seconds)
        found = decode(medium)
        if found.pixels == 1:
            raise ProcessDiedError("it ended")
        return found

    def stop(self) -> None:
        self.stopped = True


def expected(title: str | None) -> Coded:
    """What the worker makes of a title."""
    numbers = hashlib.sha256(str(title).encode()).digest()[:DIM]
    vector = np.array([n / 255 for n in numbers], dtype=np.float32)
    rq = np.array([n % 8 for n in numbers[:LEVELS]], dtype=np.int32)
    return Coded(vector, rq, rq[:2], version=3)


def load_fake(folder: Path) -> FakeBundle:
    if not (folder / "manifest.json").is_file():
        raise ArtifactError(f"{folder}: damaged")
    return FakeBundle(folder)


def fake_bundle(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


class Fakes:
    """An app over fakes: `app`, its `service`, and every worker that was made, by the bundle's name."""

    def __init__(
        self,
        folder: Path,
        *,
        token: str | None = None,
        limits: Limits | None = None,
        load: Callable[[Path], Any] = load_fake,
        hosts: Collection[str] = (),
    ) -> None:
        self.folder = folder
        self.bundles = folder / "bundles"
        first = fake_bundle(self.bundles / "one")
        self.workers: dict[str, list[FakeWorker]] = {}
        self.limits, metrics = limits or Limits(), Metrics()
        manager = BundleManager(
            load=load, worker=self._made, limits=self.limits, metrics=metrics, folder=self.bundles
        )
        store = StoreQueue(Store(folder / "store"))
        decoder = DecoderQueue(
            replace(self.limits, pixels=10_000, sound_seconds=2.0), lambda _: FakeDecoder()
        )
        self.service = Service(manager, store, decoder=decoder, limits=self.limits, metrics=metrics)
        self.app: FastAPI = build_app(self.service, first, token=token, hosts={*HOSTS, *hosts})

    def _made(self, folder: Path) -> FakeWorker:
        self.workers.setdefault(folder.name, []).append(FakeWorker())
        return self.workers[folder.name][-1]

    @property
    def worker(self) -> FakeWorker:
        return self.workers["one"][0]
