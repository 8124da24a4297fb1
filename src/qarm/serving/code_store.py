"""Code store: codes of new items in an embedded database that only appends and survives a kill."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qarm.core.atomic_io import make_folder
from qarm.errors import ArtifactError, shown
from qarm.quantizer.code_prefix import prefix_text, text_range

__all__ = ["FILE", "ContentConflict", "NewCode", "Store", "StoreError", "content_digest", "damaged_rows"]

FILE = "codes.sqlite"
FORMAT = 1
# of no row that ever was, so that a removed one leaves its number
LAST = "(SELECT ifnull(max(number), 0) FROM {table})"
NEXT = f"1 + max({LAST.format(table='codes')}, {LAST.format(table='deleted')})"
# Rows are only ever added, or removed after a line in `deleted`; the database itself refuses anything else.
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
CREATE TABLE IF NOT EXISTS deleted (
  number INTEGER PRIMARY KEY,
  item_id TEXT NOT NULL,
  bundle TEXT NOT NULL,
  content BLOB NOT NULL,
  time TEXT NOT NULL
);
DROP TRIGGER IF EXISTS no_delete;
CREATE TRIGGER IF NOT EXISTS no_delete_without_line BEFORE DELETE ON codes
  WHEN NOT EXISTS (SELECT 1 FROM deleted WHERE deleted.number = OLD.number)
  BEGIN SELECT RAISE(ABORT, 'published codes never move'); END;
"""
CHECKSUM = "ALTER TABLE codes ADD COLUMN checksum BLOB"  # rows of earlier versions have none
INSERT = (
    "INSERT INTO codes"  # noqa: S608 - constants
    " (number, item_id, bundle, version, content, code, rq, vq, vector, facts, checksum)"
    f" VALUES ({NEXT}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
COLUMNS = "item_id, bundle, version, content, rq, vq, vector, facts, checksum"


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


class StoreError(Exception):
    """The store cannot take or give rows; full: its disk has no space left."""

    def __init__(self, detail: str, *, full: bool = False) -> None:
        super().__init__(detail)
        self.full = full


class Store:
    """A SQLite file in write-ahead mode, each commit flushed to the disk before it is answered.

    One object holds a connection to write and one to read; each is for one thread at a time.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            make_folder(folder)
        except ArtifactError as error:
            raise ArtifactError(f"--store {error}") from None
        try:
            self._writer = _opened(self.path)
            self._writer.executescript(SCHEMA)
            if "checksum" not in {row[1] for row in self._writer.execute("PRAGMA table_info(codes)")}:
                self._writer.execute(CHECKSUM)
            (version,) = self._writer.execute("PRAGMA user_version").fetchone()
            if version not in (0, FORMAT):
                raise ArtifactError(
                    f"{self.path}: format {version}, need {FORMAT}; use the qarm that wrote it"
                )
            self._writer.execute(f"PRAGMA user_version = {FORMAT}")
            self._reader = _opened(self.path)
            self._reader.execute("PRAGMA query_only = ON")
            self._files = self._identities()
        except (sqlite3.Error, OSError) as error:
            raise ArtifactError(
                f"{self.path}: cannot be used as a store ({error}); give another --store"
            ) from None

    def close(self) -> None:
        """End of the store's connections to its file."""
        self._reader.close()
        self._writer.close()

    def _identities(self) -> list[tuple[int, int]]:
        """What the operating system knows the database and its log by."""
        paths = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return [(found.st_dev, found.st_ino) for found in (path.stat() for path in paths)]

    def check_files(self) -> None:
        """Check that the files that this object writes are still those of the store.

        Raises:
            StoreError: they were removed or replaced, so that what is written would be lost.
        """
        try:
            same = self._identities() == self._files
        except OSError:
            same = False
        if not same:
            raise StoreError(
                f"{self.path.name} was removed or replaced under the service; put it back and start again"
            )

    def append(self, requests: Sequence[Sequence[NewCode]]) -> list[list[NewCode] | ContentConflict]:
        """Add the items of several requests, flushed to the disk at once.

        An item that is stored for this bundle with the same content stays as it is and counts as added. A
        request with an item whose id has another content adds nothing.

        Returns:
            for each request what is stored of its items, in order, or `ContentConflict`.

        Raises:
            StoreError: nothing was added: the disk is full, or the files are not writable or gone.
        """
        self.check_files()
        with _writing(self._writer):
            stored = [self._append(rows) for rows in requests]
        self.check_files()
        return stored

    def probe(self) -> None:
        """Write what is there already.

        Raises:
            StoreError: it cannot be written.
        """
        self.check_files()
        with _writing(self._writer):
            self._writer.execute(f"PRAGMA user_version = {FORMAT}")

    def delete(self, item_id: str) -> int:
        """Number of rows of an item that were removed, each after a line in the table `deleted`.

        Raises:
            StoreError: nothing was removed.
        """
        self.check_files()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with _writing(self._writer):
            self._writer.execute(
                "INSERT INTO deleted (number, item_id, bundle, content, time)"
                " SELECT number, item_id, bundle, content, ? FROM codes WHERE item_id = ?",
                (now, item_id),
            )
            removed = self._writer.execute("DELETE FROM codes WHERE item_id = ?", (item_id,)).rowcount
        self.check_files()
        return removed

    def deletions(self) -> list[tuple[str, str, str]]:
        """Item, bundle and time of every removed row, in the order of the rows."""
        return list(self._reader.execute("SELECT item_id, bundle, time FROM deleted ORDER BY number"))

    def _append(self, rows: Sequence[NewCode]) -> list[NewCode] | ContentConflict:
        self._writer.execute("SAVEPOINT request")
        self._writer.executemany(
            INSERT,
            map(_values, rows),
        )
        current = [_find(self._writer, row.item_id, row.bundle) for row in rows]
        stored = [row for row in current if row is not None]
        taken = [now.item_id for row, now in zip(rows, stored, strict=True) if now.content != row.content]
        if taken:
            self._writer.execute("ROLLBACK TO request")
        self._writer.execute("RELEASE request")
        return ContentConflict(taken) if taken else stored

    def find(self, item_id: str, bundle: str) -> NewCode | None:
        """What is stored of an item for a bundle."""
        with _reading(self.path):
            return _find(self._reader, item_id, bundle)

    def latest(self, item_id: str) -> NewCode | None:
        """What was last stored of an item, for whichever bundle."""
        query = f"SELECT {COLUMNS} FROM codes WHERE item_id = ? ORDER BY number DESC LIMIT 1"  # noqa: S608
        with _reading(self.path):
            row = self._reader.execute(query, (item_id,)).fetchone()
            return None if row is None else _code(row)

    def of_bundle(self, bundle: str) -> list[NewCode]:
        """What is stored for a bundle, in the order in which it came."""
        query = f"SELECT {COLUMNS} FROM codes WHERE bundle = ? ORDER BY number"  # noqa: S608
        with _reading(self.path):
            return [_code(row) for row in self._reader.execute(query, (bundle,))]

    def state(self) -> int:
        """A number that changes whenever rows are added or removed, by whatever process."""
        with _reading(self.path):
            (version,) = self._reader.execute("PRAGMA data_version").fetchone()
        return int(version)

    def under(self, prefix: Sequence[int], bundle: str, *, first: int, count: int) -> list[str]:
        """Items of a bundle whose RQ code begins with a prefix, in the order in which they came."""
        where, values = _range(prefix, bundle)
        query = f"SELECT item_id FROM codes WHERE {where} ORDER BY number LIMIT ? OFFSET ?"  # noqa: S608
        with _reading(self.path):
            return [item for (item,) in self._reader.execute(query, (*values, count, first))]

    def count(self, prefix: Sequence[int], bundle: str) -> int:
        """Number of items of a bundle whose RQ code begins with a prefix."""
        where, values = _range(prefix, bundle)
        query = f"SELECT count(*) FROM codes WHERE {where}"  # noqa: S608 - `where` holds no value
        with _reading(self.path):
            (items,) = self._reader.execute(query, values).fetchone()
        return int(items)


def damaged_rows(folder: Path) -> list[str]:
    """What is damaged in a store, a sentence each: its file, or rows that their checksums do not fit.

    Nothing is changed, and a service may use the store meanwhile.
    """
    path = folder / FILE
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            (state,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            columns = {row[1] for row in connection.execute("PRAGMA table_info(codes)")}
            if state != "ok":
                return [f"{path}: {state}"]
            if "checksum" not in columns:
                return [] if "item_id" in columns else [f"{path}: it has no table of codes"]
            rows = connection.execute(f"SELECT {COLUMNS} FROM codes ORDER BY number")  # noqa: S608
            return [f"{path}: the row of item {row[0]!r}" for row in rows if not _is_whole(row)]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return [f"{path}: not readable ({error})"]


def content_digest(
    texts: Mapping[str, str | None],
    image: bytes | None,
    audio: bytes | None,
    features: Mapping[str, object] | None = None,
) -> bytes:
    """SHA-256 over an item's texts and features, by name, and its media; null fields do not count."""
    media = [None if part is None else hashlib.sha256(part).hexdigest() for part in (image, audio)]
    given = {name: text for name, text in texts.items() if text is not None}
    own = {name: value for name, value in (features or {}).items() if value is not None}
    parts = [given, media, own] if own else [given, media]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


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
    rq = row.rq.astype("<i4").tobytes()
    vq = None if row.vq is None else row.vq.astype("<i4").tobytes()
    rest = (rq, vq, row.vector.astype("<f4").tobytes(), json.dumps(dict(row.facts)))
    first = (row.item_id, row.bundle, row.version, row.content)
    return (*first, prefix_text(row.rq.tolist()), *rest, _checksum((*first, *rest)))


def _checksum(values: tuple[Any, ...]) -> bytes:
    """SHA-256 over a row's values, each with its length."""
    made = hashlib.sha256()
    for value in values:
        part = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        made.update(b"%d:%b" % (len(part), part))
    return made.digest()


def _is_whole(row: tuple[Any, ...]) -> bool:
    *values, checksum = row
    return checksum is None or checksum == _checksum(tuple(values))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What the database cannot read is its damage, or that of a text in it."""
    try:
        yield
    except (sqlite3.Error, ValueError) as error:
        raise StoreError(f"{path.name} is damaged ({error}); restore the store from a copy") from error


@contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction, on the disk at its end.

    Raises:
        StoreError: it could not be written, and nothing of it was.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        full = "full" in str(error)
        raise StoreError("no space left" if full else f"it cannot be written ({error})", full=full) from error
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _code(row: tuple[Any, ...]) -> NewCode:
    item_id, bundle, version, content, rq, vq, vector, facts, _ = row
    if not _is_whole(row):
        raise StoreError(f"the row of item {item_id!r} is damaged; restore the store from a copy")
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
