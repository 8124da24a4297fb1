"""Bundle manager: the current bundle, the one before, and swaps without a dropped request."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from qarm.errors import InputError, QarmError
from qarm.serving.encoder_process import Worker
from qarm.serving.encoder_queue import EncoderQueue
from qarm.serving.http.problems import Problem
from qarm.serving.http.schemas import Listed
from qarm.serving.limits import Limits
from qarm.serving.prometheus_metrics import Metrics

if TYPE_CHECKING:
    from qarm.serving.bundle import Bundle

__all__ = ["BundleManager", "LoadedBundle"]

MANIFEST = "manifest.json"


class LoadedBundle:
    """A loaded bundle with its encoder; users: requests that may still ask it."""

    def __init__(self, folder: Path, bundle: "Bundle", encoder: EncoderQueue) -> None:
        self.folder, self.bundle, self.encoder = folder, bundle, encoder
        self.users = 0
        self._unused = asyncio.Event()
        named = bundle.text_fields[:1]
        facts = [bundle.facts(item) for item in bundle.item_ids]
        titles = [" ".join(str(item.get(field) or "") for field in named) for item in facts]
        self.titles = pl.DataFrame(
            {"item_id": bundle.item_ids, "title": titles}, schema={"item_id": pl.String, "title": pl.String}
        )
        self._search_text = (self.titles["item_id"] + "\n" + self.titles["title"]).str.to_lowercase()

    def left(self) -> None:
        """One user less."""
        self.users -= 1
        self._unused.set()

    async def close(self) -> None:
        """Stop the encoder when nobody may ask it any more."""
        while self.users:
            self._unused.clear()
            await self._unused.wait()
        await self.encoder.close()

    def search(self, query: str, *, first: int, count: int) -> tuple[int, list[Listed]]:
        """Items whose id or title contains a text, whatever its case: their number, and a page of them."""
        rows = self.titles.filter(self._search_text.str.contains(query.lower(), literal=True))
        page = rows.slice(first, count).iter_rows(named=True)
        return rows.height, [Listed(**row) for row in page]


class BundleManager:
    """Loaded bundles: one answers at a time. A request takes it once and stays with it.

    Args:
        load: opens a bundle, after its files were verified.
        worker: makes the encoder of a bundle's folder.
        folder: bundles that may be swapped in by name; None: none may.
    """

    def __init__(
        self,
        *,
        load: Callable[[Path], "Bundle"],
        worker: Callable[[Path], Worker],
        limits: Limits,
        metrics: Metrics,
        folder: Path | None = None,
    ) -> None:
        self._load, self._worker = load, worker
        self.limits, self.metrics, self.folder = limits, metrics, folder
        self._current: LoadedBundle | None = None
        self.previous: Path | None = None
        self._swapping = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        metrics.watch(lambda: 0 if self._current is None else self._current.encoder.waiting)

    @property
    def current(self) -> LoadedBundle:
        """The bundle that answers.

        Raises:
            Problem: 503, before the first one is loaded and after the last one was closed.
        """
        if self._current is None:
            raise Problem(503, "busy", "no bundle is loaded; try again", headers={"Retry-After": "1"})
        return self._current

    @contextmanager
    def use(self) -> Iterator[LoadedBundle]:
        """The bundle that answers, whose encoder stays open while the block runs, whatever is swapped in."""
        loaded = self.current
        loaded.users += 1
        try:
            yield loaded
        finally:
            loaded.left()

    def names(self) -> list[str]:
        """Bundles that may be swapped in."""
        if self.folder is None:
            return []
        return sorted(path.name for path in self.folder.iterdir() if (path / MANIFEST).is_file())

    async def swap_to_name(self, name: str) -> LoadedBundle:
        """Swap in the bundle of that name; the name is looked up among those that are there, never opened.

        Raises:
            Problem: 404, there is no such bundle; 409, it cannot be loaded, and the one before goes on.
        """
        known = {one: one for one in await asyncio.to_thread(self.names)}
        if name not in known or self.folder is None:
            raise Problem(
                404, "no-such-bundle", f"got {name!r}, need a name that GET /v1/admin/bundles lists"
            )
        return await self.swap(self.folder / known[name])

    async def back(self) -> LoadedBundle:
        """Swap in the bundle that answered before this one.

        Raises:
            Problem: 409, there was none, or it cannot be loaded any more.
        """
        if self.previous is None:
            raise Problem(409, "no-earlier-bundle", "this is the first bundle since the service was started")
        return await self.swap(self.previous)

    async def swap(self, folder: Path) -> LoadedBundle:
        """Load a bundle beside the one that answers, then let it answer; the old one ends what it has begun.

        Raises:
            Problem: 409, it cannot be loaded, and the one before goes on.
        """
        async with self._swapping:
            try:
                loaded = await self._opened(await asyncio.to_thread(folder.resolve))
            except (QarmError, OSError) as error:
                raise Problem(
                    409, "bundle-not-loaded", f"{folder.name} cannot be used: {_plain(error, folder)}"
                ) from error
            old, self._current = self._current, loaded
            if old is not None:
                self.previous = old.folder
                self.metrics.swaps.inc()
                leaving = asyncio.create_task(old.close())
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
            self.metrics.serves(loaded.bundle.version, len(loaded.bundle.item_ids))
            return loaded

    async def start(self, folder: Path) -> None:
        """Load the first bundle.

        Raises:
            QarmError: it cannot be loaded.
        """
        self._current = await self._opened(folder.resolve())
        self.metrics.serves(self.current.bundle.version, len(self.current.bundle.item_ids))

    async def _opened(self, folder: Path) -> LoadedBundle:
        bundle = await asyncio.to_thread(self._load, folder)
        encoder = EncoderQueue(self._worker(folder), limits=self.limits, metrics=self.metrics)
        await encoder.start()
        try:
            loaded = await asyncio.to_thread(LoadedBundle, folder, bundle, encoder)
        except BaseException:
            await encoder.close()
            raise
        gc.unfreeze()
        gc.collect()
        gc.freeze()  # so that no request waits while what stays is walked through
        return loaded

    async def close(self) -> None:
        """Answer what waits, then end every encoder."""
        async with self._swapping:
            old, self._current = self._current, None
            if old is not None:
                await old.close()
            await asyncio.gather(*self._leaving)


def _plain(error: Exception, folder: Path) -> str:
    """The message without the machine's paths."""
    if isinstance(error, InputError | QarmError):
        return str(error).replace(f"{folder.resolve()}", folder.name).replace(str(folder), folder.name)
    return "it is not readable"
