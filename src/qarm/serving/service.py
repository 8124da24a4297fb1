"""Service logic without HTTP: code and store new items, look up, search, score."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from qarm.errors import InputError, shown
from qarm.quantizer.code_prefix import prefix_text
from qarm.serving.bundle_manager import BundleManager, LoadedBundle
from qarm.serving.code_store import ContentConflict, NewCode, StoreQueue, content_digest
from qarm.serving.encoder_process import Coded
from qarm.serving.http.problems import Problem
from qarm.serving.http.schemas import NewItem
from qarm.serving.limits import Limits
from qarm.serving.prometheus_metrics import Metrics

__all__ = ["Service"]

AT_ONCE = 20_000  # items of a bundle up to which a search is too short to be worth a thread
SCORING = 32  # requests that wait for the ranker
Found = TypeVar("Found")
Answer = dict[str, Any]


class Service:
    """Routes call it; every answer is a dict as in `schemas`."""

    def __init__(
        self, editions: BundleManager, journal: StoreQueue, *, limits: Limits, metrics: Metrics
    ) -> None:
        self.editions, self.journal = editions, journal
        self.limits, self.metrics = limits, metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ranker")
        self._scoring = 0

    async def close(self) -> None:
        """Answer what waits, and close the store."""
        await self.editions.close()
        await self.journal.close()
        self._thread.shutdown()

    # ---- new items --------------------------------------------------------------------------------

    async def code(self, items: Sequence[NewItem], *, store: bool) -> Answer:
        """Code new items; those with an id are on the disk when this returns, or none is.

        Raises:
            Problem: 409, an id is published, or stored with other content; 422, items cannot be coded.
        """
        with self.editions.use() as edition:
            return await self._code(edition, items, store=store)

    async def _code(self, edition: LoadedBundle, items: Sequence[NewItem], *, store: bool) -> Answer:
        version = edition.bundle.version
        digests = {i.item_id: content_digest(i.text, i.image, i.audio) for i in items if i.item_id and store}
        known = await self._known(edition, digests)
        new = [item for item in items if item.item_id is None or item.item_id not in known]
        coded = iter(await self._coded(edition, items, new) if new else ())
        made: list[Coded | NewCode] = [known.get(item.item_id or "") or next(coded) for item in items]
        rows = [
            _row(item, one, bundle=version, content=digests[item.item_id])
            for item, one in zip(items, made, strict=True)
            if item.item_id in digests and isinstance(one, Coded)
        ]
        if rows:
            kept = {row.item_id: row for row in await self._append(rows)}
            made = [kept.get(i.item_id or "", one) for i, one in zip(items, made, strict=True)]
        return {
            "bundle": version,
            "version": made[0].version,
            "items": [
                {
                    "item_id": i.item_id,
                    **_codes(one),
                    "vector": one.vector.tolist(),
                    "stored": isinstance(one, NewCode),
                }
                for i, one in zip(items, made, strict=True)
            ],
        }

    async def _known(self, edition: LoadedBundle, digests: Mapping[str, bytes]) -> dict[str, NewCode]:
        """Items that are stored already; a published id, or one with other content, is refused."""
        published = [item for item in digests if item in edition.bundle]
        if published:
            raise Problem(
                409,
                "already-published",
                f"items {shown(published)} are published and do not move; take other ids, or store=false",
            )
        if not digests:
            return {}
        found = await self.journal.known(list(digests), edition.bundle.version)
        stored = {row.item_id: row for row in found if row is not None}
        other = [item for item, row in stored.items() if row.content != digests[item]]
        if other:
            raise _taken(other)
        return stored

    async def _coded(
        self, edition: LoadedBundle, items: Sequence[NewItem], new: Sequence[NewItem]
    ) -> list[Coded]:
        rows = [
            {"item_id": item.item_id, **item.text, "image": item.image or None, "audio": item.audio or None}
            for item in new
        ]
        found = await edition.batcher.code(rows)
        places = {id(item): f"/items/{number}" for number, item in enumerate(items)}
        errors = [
            {"pointer": places[id(item)] if len(items) > 1 else "", "detail": str(one)}
            for item, one in zip(new, found, strict=True)
            if isinstance(one, InputError)
        ]
        if errors:
            raise Problem(422, "item-not-codable", "items cannot be coded; `errors` says why", errors=errors)
        return [one for one in found if isinstance(one, Coded)]

    async def _append(self, rows: Sequence[NewCode]) -> list[NewCode]:
        try:
            found = await self.journal.append(rows)
        except ContentConflict as error:  # by a request that ran beside this one
            raise _taken(error.item_ids) from None
        self.metrics.stored.inc(len(found))
        return found

    # ---- known items ------------------------------------------------------------------------------

    async def item(self, item_id: str, *, nearest: int) -> Answer:
        """Codes, facts and nearest published items of a published or an appended item.

        Raises:
            Problem: 404, there is no such item.
        """
        edition = self.editions.current
        bundle = edition.bundle
        if item_id in bundle:
            place = bundle.place(item_id)
            vector, facts = bundle.vectors.vectors[place], bundle.facts(item_id)
            vq = None if bundle.codes.vq is None else bundle.codes.vq[place]
            made: Coded | NewCode = Coded(vector, bundle.codes.rq[place], vq, bundle.codes.version)
            made_by, published = bundle.version, True
        else:
            stored = await self.journal.find(item_id, bundle.version)
            if stored is None:
                raise Problem(
                    404, "no-such-item", f"got item {item_id[:100]!r}, which is neither published nor stored"
                )
            made, made_by, published = stored, stored.bundle, False
            vector, facts = stored.vector, {"item_id": item_id, **stored.facts}
        return {
            "item_id": item_id,
            "bundle": made_by,
            "version": made.version,
            "published": published,
            **_codes(made),
            "facts": facts,
            "nearest": await self._nearest(edition, item_id, vector, nearest),
        }

    async def _nearest(
        self, edition: LoadedBundle, item_id: str, vector: npt.NDArray[np.float32], count: int
    ) -> list[Answer]:
        table = edition.bundle.vectors.vectors
        if count < 1 or vector.shape[0] != table.shape[1]:  # stored for a bundle of another dimension
            return []
        ids, cosines = await self._short(edition, edition.bundle.nearest, vector[None], count + 1)
        pairs = zip(ids[0], cosines[0].tolist(), strict=True)
        return [{"item_id": one, "cosine": cosine} for one, cosine in pairs if one != item_id][:count]

    async def search(self, query: str, *, first: int, count: int) -> Answer:
        """A page of the published items whose id or title contains a text."""
        edition = self.editions.current
        total, items = await self._short(edition, lambda: edition.search(query, first=first, count=count))
        return {"total": total, "items": items, "next": _next(first, count, total)}

    async def under(self, prefix: Sequence[int], *, first: int, count: int) -> Answer:
        """A page of the items under a code prefix: published ones by code, then appended ones as they came.

        Raises:
            Problem: 422, more codes than levels.
        """
        bundle = self.editions.current.bundle
        levels = bundle.codes.rq.shape[1]
        if len(prefix) > levels:
            raise Problem(422, "invalid-request", f"got {len(prefix)} codes, need at most {levels}")
        published = bundle.under(prefix)
        page = published[first : first + count]
        more, appended = await self.journal.under(
            prefix, bundle.version, first=max(first - len(published), 0), count=count - len(page)
        )
        total = len(published) + more
        return {
            "prefix": list(prefix),
            "bundle": bundle.version,
            "total": total,
            "items": page + appended,
            "next": _next(first, count, total),
        }

    async def score(self, candidates: Sequence[str], history: Sequence[str]) -> Answer:
        """The ranker's logits.

        Raises:
            Problem: 404, the bundle has no ranker; 422, items that it does not know; 503, too many wait.
        """
        edition = self.editions.current
        if not edition.scored:
            raise Problem(
                404, "no-ranker", "this bundle has no ranker; export one from a run that has trained it"
            )
        unknown = [item for item in dict.fromkeys((*candidates, *history)) if item not in edition.scored]
        if unknown:
            raise Problem(
                422,
                "unknown-items",
                f"the ranker does not know {shown(i[:100] for i in unknown)}; leave them out",
            )
        if self._scoring >= SCORING:
            raise Problem(
                503, "busy", "too many requests wait for the ranker; try again", headers={"Retry-After": "1"}
            )
        self._scoring += 1
        try:
            (found,) = await asyncio.get_running_loop().run_in_executor(
                self._thread, edition.bundle.score, [list(candidates)], [list(history)]
            )
        finally:
            self._scoring -= 1
        pairs = zip(candidates, found.tolist(), strict=True)
        return {
            "bundle": edition.bundle.version,
            "items": [{"item_id": i, "score": score} for i, score in pairs],
        }

    async def _short(self, edition: LoadedBundle, function: Any, *given: Any) -> Any:
        """Call here what is short; what grows with a large bundle goes to a thread."""
        if len(edition.bundle.item_ids) <= AT_ONCE:
            return function(*given)
        return await asyncio.to_thread(function, *given)


def _codes(made: Coded | NewCode) -> Answer:
    rq = made.rq.tolist()
    vq = None if made.vq is None else made.vq.tolist()
    return {"rq": rq, "vq": vq, "code": prefix_text(rq)}


def _row(item: NewItem, made: Coded, *, bundle: str, content: bytes) -> NewCode:
    return NewCode(
        item.item_id or "", bundle, made.version, content, made.rq, made.vq, made.vector, dict(item.text)
    )


def _next(first: int, count: int, total: int) -> int | None:
    return first + count if first + count < total else None


def _taken(item_ids: Sequence[str]) -> Problem:
    return Problem(
        409,
        "stored-with-other-content",
        f"items {shown(item_ids)} are stored with other content and stay; take other ids, or store=false",
    )
