"""Code store: codes of new items in an embedded database that only appends and survives a kill."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from qarm.core.atomic_io import make_folder
from qarm.errors import ArtifactError, shown
from qarm.quantizer.code_prefix import prefix_text, text_range

__all__ = ["ContentConflict", "NewCode", "Store", "StoreQueue", "content_digest"]

FILE = "codes.sqlite"
FORMAT = 1
# Rows are only ever added; the database itself refuses anything else.
SCHEMA = """
CREATE TABLE IF NOT EXISTS codes (
  number INTEGER PRIMARY KEY,
  item_id TEXT NOT NULL,
  bundle TEXT NOT NULL,
  version INTEGER NOT NULL,
  content BLOB NOT NULL,
  code TEXT NOT NULL,
  rq BLOB NOT NULL,
  vq BLOB,
  vector BLOB NOT NULL,
  facts TEXT NOT NULL,
  UNIQUE (item_id, bundle)
);
CREATE INDEX IF NOT EXISTS by_code ON codes (bundle, code, number);
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON codes
  BEGIN SELECT RAISE(ABORT, 'published codes never move'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON codes
  BEGIN SELECT RAISE(ABORT, 'published codes never move'); END;
"""
COLUMNS = "item_id, bundle, version, content, rq, vq, vector, facts"


@dataclass(frozen=True)
class NewCode:
    """Codes of one new item.

    bundle: version of the bundle that made them; version: of its codebooks; content: SHA-256 of what the item
    was; rq int32 [levels], vq int32 [nearest] or None, vector float32 [d]; facts: its texts.
    """

    item_id: str
    bundle: str
    version: int
    content: bytes
    rq: npt.NDArray[np.int32]
    vq: npt.NDArray[np.int32] | None
    vector: npt.NDArray[np.float32]
    facts: Mapping[str, str | None]


class ContentConflict(Exception):  # noqa: N818 - a state of affairs, told as status 409
    """Items whose ids are stored with another content."""

    def __init__(self, item_ids: Sequence[str]) -> None:
        super().__init__(f"items {shown(item_ids)} are stored with other content")
        self.item_ids = list(item_ids)


class Store:
    """A SQLite file in write-ahead mode, each commit flushed to the disk before it is answered.

    One object holds a connection to write and one to read; each is for one thread at a time.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            make_folder(folder)
            self._writer = _opened(self.path)
            self._writer.executescript(SCHEMA)
            (found,) = self._writer.execute("PRAGMA user_version").fetchone()
            if found not in (0, FORMAT):
                raise ArtifactError(f"{self.path}: format {found}, need {FORMAT}; use the qarm that wrote it")
            self._writer.execute(f"PRAGMA user_version = {FORMAT}")
            self._reader = _opened(self.path)
            self._reader.execute("PRAGMA query_only = ON")
        except (sqlite3.Error, OSError) as error:
            raise ArtifactError(
                f"{self.path}: cannot be used as a store ({error}); give another --store"
            ) from None

    def close(self) -> None:
        """End of the store's connections to its file."""
        self._reader.close()
        self._writer.close()

    def append(self, requests: Sequence[Sequence[NewCode]]) -> list[list[NewCode] | ContentConflict]:
        """Add the items of several requests, flushed to the disk at once.

        An item that is stored for this bundle with the same content stays as it is and counts as added. A
        request with an item whose id has another content adds nothing.

        Returns:
            for each request what is stored of its items, in order, or `ContentConflict`.
        """
        with self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            return [self._append(rows) for rows in requests]

    def _append(self, rows: Sequence[NewCode]) -> list[NewCode] | ContentConflict:
        self._writer.execute("SAVEPOINT request")
        self._writer.executemany(
            "INSERT INTO codes (item_id, bundle, version, content, code, rq, vq, vector, facts)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            map(_values, rows),
        )
        found = [_find(self._writer, row.item_id, row.bundle) for row in rows]
        stored = [row for row in found if row is not None]
        taken = [now.item_id for row, now in zip(rows, stored, strict=True) if now.content != row.content]
        if taken:
            self._writer.execute("ROLLBACK TO request")
        self._writer.execute("RELEASE request")
        return ContentConflict(taken) if taken else stored

    def find(self, item_id: str, bundle: str) -> NewCode | None:
        """What is stored of an item for a bundle."""
        return _find(self._reader, item_id, bundle)

    def latest(self, item_id: str) -> NewCode | None:
        """What was last stored of an item, for whichever bundle."""
        query = f"SELECT {COLUMNS} FROM codes WHERE item_id = ? ORDER BY number DESC LIMIT 1"  # noqa: S608
        row = self._reader.execute(query, (item_id,)).fetchone()
        return None if row is None else _code(row)

    def under(self, prefix: Sequence[int], bundle: str, *, first: int, count: int) -> list[str]:
        """Items of a bundle whose RQ code begins with a prefix, in the order in which they came."""
        where, values = _range(prefix, bundle)
        query = f"SELECT item_id FROM codes WHERE {where} ORDER BY number LIMIT ? OFFSET ?"  # noqa: S608
        return [item for (item,) in self._reader.execute(query, (*values, count, first))]

    def count(self, prefix: Sequence[int], bundle: str) -> int:
        """Number of items of a bundle whose RQ code begins with a prefix."""
        where, values = _range(prefix, bundle)
        query = f"SELECT count(*) FROM codes WHERE {where}"  # noqa: S608 - `where` holds no value
        (found,) = self._reader.execute(query, values).fetchone()
        return int(found)


def content_digest(texts: Mapping[str, str | None], image: bytes | None, audio: bytes | None) -> bytes:
    """SHA-256 over an item's texts, by name, and its media; fields that are null do not count."""
    media = [None if part is None else hashlib.sha256(part).hexdigest() for part in (image, audio)]
    given = {name: text for name, text in texts.items() if text is not None}
    return hashlib.sha256(json.dumps([given, media], sort_keys=True).encode()).digest()


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _find(connection: sqlite3.Connection, item_id: str, bundle: str) -> NewCode | None:
    query = f"SELECT {COLUMNS} FROM codes WHERE item_id = ? AND bundle = ?"  # noqa: S608
    row = connection.execute(query, (item_id, bundle)).fetchone()
    return None if row is None else _code(row)


def _range(prefix: Sequence[int], bundle: str) -> tuple[str, tuple[str, ...]]:
    """Condition on a row's code, and its values: the prefix itself, or a longer code that begins with it."""
    if not prefix:
        return "bundle = ?", (bundle,)
    low, high = text_range(prefix)
    return "bundle = ? AND (code = ? OR (code > ? AND code < ?))", (bundle, prefix_text(prefix), low, high)


def _values(row: NewCode) -> tuple[Any, ...]:
    return (
        row.item_id,
        row.bundle,
        row.version,
        row.content,
        prefix_text(row.rq.tolist()),
        row.rq.astype("<i4").tobytes(),
        None if row.vq is None else row.vq.astype("<i4").tobytes(),
        row.vector.astype("<f4").tobytes(),
        json.dumps(dict(row.facts)),
    )


def _code(row: tuple[Any, ...]) -> NewCode:
    item_id, bundle, version, content, rq, vq, vector, facts = row
    return NewCode(
        item_id,
        bundle,
        version,
        content,
        np.frombuffer(rq, dtype="<i4"),
        None if vq is None else np.frombuffer(vq, dtype="<i4"),
        np.frombuffer(vector, dtype="<f4"),
        json.loads(facts),
    )


Made = TypeVar("Made")


class StoreQueue:
    """Access to a store off the event loop: appends that wait together share one flush, reads do not wait."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._waiting: list[tuple[Sequence[NewCode], asyncio.Future[list[NewCode] | ContentConflict]]] = []
        self._task: asyncio.Task[None] | None = None

    async def append(self, rows: Sequence[NewCode]) -> list[NewCode]:
        """Rows as they are stored, when they are on the disk.

        Raises:
            ContentConflict: an id is stored with other content.
        """
        answer: asyncio.Future[list[NewCode] | ContentConflict] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush())
        found = await answer
        if isinstance(found, ContentConflict):
            raise found
        return found

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            jobs, self._waiting = self._waiting, []
            try:
                found = await loop.run_in_executor(
                    self._writing, self.store.append, [rows for rows, _ in jobs]
                )
            except Exception as error:  # noqa: BLE001 - goes to everyone who waits
                for _, answer in jobs:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), one in zip(jobs, found, strict=True):
                if not answer.done():
                    answer.set_result(one)

    async def find(self, item_id: str, bundle: str) -> NewCode | None:
        """What is stored of an item for a bundle, else what was last stored of it."""
        return await self._read(self._find, item_id, bundle)

    async def known(self, item_ids: Sequence[str], bundle: str) -> list[NewCode | None]:
        """What is stored of items for a bundle."""
        return await self._read(lambda: [self.store.find(item, bundle) for item in item_ids])

    async def under(
        self, prefix: Sequence[int], bundle: str, *, first: int, count: int
    ) -> tuple[int, list[str]]:
        """How many items of a bundle are under a prefix, and a page of them."""
        return await self._read(self._under, prefix, bundle, first, count)

    async def close(self) -> None:
        """Wait for what is being written, then close the store."""
        if self._task is not None:
            await self._task
        await self._read(lambda: None)
        self._writing.shutdown()
        self._reading.shutdown()
        self.store.close()

    def _find(self, item_id: str, bundle: str) -> NewCode | None:
        return self.store.find(item_id, bundle) or self.store.latest(item_id)

    def _under(self, prefix: Sequence[int], bundle: str, first: int, count: int) -> tuple[int, list[str]]:
        found = self.store.under(prefix, bundle, first=first, count=count) if count > 0 else []
        return self.store.count(prefix, bundle), found

    async def _read(self, function: Callable[..., Made], *given: Any) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._reading, function, *given)
