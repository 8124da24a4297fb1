"""Store queue: access to the code store off the event loop; appends that wait together share one flush."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from qarm.serving.code_store import ContentConflict, NewCode, Store, StoreError

__all__ = ["StoreQueue"]

LOG = logging.getLogger("qarm.serving")
Made = TypeVar("Made")


class StoreQueue:
    """Access to a store off the event loop: appends that wait together share one flush, reads do not wait."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._waiting: list[tuple[Sequence[NewCode], asyncio.Future[list[NewCode] | ContentConflict]]] = []
        self._task: asyncio.Task[None] | None = None
        self._failed: StoreError | None = None

    async def append(self, rows: Sequence[NewCode]) -> list[NewCode]:
        """Rows as they are stored, when they are on the disk.

        Raises:
            ContentConflict: an id is stored with other content.
        """
        answer: asyncio.Future[list[NewCode] | ContentConflict] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush())
        stored = await answer
        if isinstance(stored, ContentConflict):
            raise stored
        return stored

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            jobs, self._waiting = self._waiting, []
            try:
                found = await loop.run_in_executor(
                    self._writing, self.store.append, [rows for rows, _ in jobs]
                )
                self._failed = None
            except Exception as error:  # noqa: BLE001 - goes to everyone who waits
                self._failed = error if isinstance(error, StoreError) else None
                for _, answer in jobs:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), one in zip(jobs, found, strict=True):
                if not answer.done():
                    answer.set_result(one)

    async def delete(self, item_id: str) -> int:
        """Number of rows of an item that were removed.

        Raises:
            StoreError: nothing was removed.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writing, self._delete, item_id)

    def _delete(self, item_id: str) -> int:
        removed = self.store.delete(item_id)
        LOG.warning("item %r was deleted from the store: %d rows", item_id, removed)
        return removed

    async def check(self) -> None:
        """Check that the store can take rows; after a failure, by writing.

        Raises:
            StoreError: its files are gone, or cannot be written.
        """
        if self._failed is None:
            await self._read(self.store.check_files)
            return
        await asyncio.get_running_loop().run_in_executor(self._writing, self.store.probe)
        self._failed = None

    async def find(self, item_id: str, bundle: str) -> NewCode | None:
        """What is stored of an item for a bundle, else what was last stored of it."""
        return await self._read(self._find, item_id, bundle)

    async def known(self, item_ids: Sequence[str], bundle: str) -> list[NewCode | None]:
        """What is stored of items for a bundle."""
        return await self._read(lambda: [self.store.find(item, bundle) for item in item_ids])

    async def of_bundle(self, bundle: str) -> list[NewCode]:
        """What is stored for a bundle, in the order in which it came."""
        return await self._read(self.store.of_bundle, bundle)

    async def state(self) -> int:
        """A number that changes whenever rows are added or removed."""
        return await self._read(self.store.state)

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
