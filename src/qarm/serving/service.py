"""Service logic without HTTP: code and store new items, look up, search, score, recommend."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from qarm.errors import InputError, shown
from qarm.quantizer.code_prefix import prefix_text
from qarm.serving.bundle_manager import BundleManager, LoadedBundle
from qarm.serving.code_store import ContentConflict, NewCode, content_digest
from qarm.serving.decoder_queue import DecoderQueue
from qarm.serving.encoder_process import Coded
from qarm.serving.http.problems import Problem
from qarm.serving.http.recommending import RecommenderQueue
from qarm.serving.http.schemas import (
    CodedItem,
    CodesAnswer,
    Deletion,
    ItemAnswer,
    ItemList,
    Neighbour,
    NewItem,
    PrefixAnswer,
    RecommendAnswer,
    RecommendRequest,
    ScoreAnswer,
    ScoreRequest,
    SimilarAnswer,
)
from qarm.serving.limits import Limits
from qarm.serving.prometheus_metrics import Metrics
from qarm.serving.scoring import RankerQueue
from qarm.serving.store_queue import StoreQueue

__all__ = ["Service"]

AT_ONCE = 20_000  # items of a bundle up to which a search is too short to be worth a thread
Result = TypeVar("Result")


class Service:
    """Functions of the routes; every answer is a type of `serving.http.schemas`."""

    def __init__(
        self,
        bundles: BundleManager,
        store: StoreQueue,
        *,
        decoder: DecoderQueue,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self.bundles, self.store, self.decoder = bundles, store, decoder
        self.limits, self.metrics = limits, metrics
        self.ranker = RankerQueue(store, limits)
        self.recommender = RecommenderQueue(store, limits)

    async def close(self) -> None:
        """Answer what waits, and close the store."""
        await self.bundles.close()
        await self.store.close()
        self.decoder.close()
        self.ranker.close()
        self.recommender.close()

    # ---- new items --------------------------------------------------------------------------------

    async def code(self, items: Sequence[NewItem], *, store: bool) -> CodesAnswer:
        """Code new items; those with an id are on the disk when this returns, or none is.

        Raises:
            Problem: 409, an id is published, or stored with other content; 422, items cannot be coded.
        """
        with self.bundles.use() as loaded:
            return await self._code(loaded, items, store=store)

    async def _code(self, loaded: LoadedBundle, items: Sequence[NewItem], *, store: bool) -> CodesAnswer:
        version = loaded.bundle.version
        digests = {i.item_id: _digest(i) for i in items if i.item_id and store}
        known = await self._known(loaded, digests)
        new = [item for item in items if item.item_id is None or item.item_id not in known]
        coded = iter(await self._coded(loaded, items, new) if new else ())
        made: list[Coded | NewCode] = [known.get(item.item_id or "") or next(coded) for item in items]
        rows = [
            _row(item, one, bundle=version, content=digests[item.item_id])
            for item, one in zip(items, made, strict=True)
            if item.item_id in digests and isinstance(one, Coded)
        ]
        if rows:
            kept = {row.item_id: row for row in await self._append(rows)}
            made = [kept.get(i.item_id or "", one) for i, one in zip(items, made, strict=True)]
        answers = [_coded_item(item.item_id, one) for item, one in zip(items, made, strict=True)]
        return CodesAnswer(bundle=version, version=made[0].version, items=answers)

    async def _known(self, loaded: LoadedBundle, digests: Mapping[str, bytes]) -> dict[str, NewCode]:
        """Items that are stored already; a published id, or one with other content, is refused."""
        published = [item for item in digests if item in loaded.bundle]
        if published:
            raise Problem(
                409,
                "already-published",
                f"items {shown(published)} are published and do not move; take other ids, or store=false",
            )
        if not digests:
            return {}
        rows = await self.store.known(list(digests), loaded.bundle.version)
        stored = {row.item_id: row for row in rows if row is not None}
        other = [item for item, row in stored.items() if row.content != digests[item]]
        if other:
            raise _taken(other)
        return stored

    async def _coded(
        self, loaded: LoadedBundle, items: Sequence[NewItem], new: Sequence[NewItem]
    ) -> list[Coded]:
        rows = [
            {
                **{"item_id": item.item_id, **item.text, **item.attributes, **item.vectors},
                **{"image": item.image or None, "audio": item.audio or None},
            }
            for item in new
        ]
        async with self.decoder.decoded(rows, side=loaded.bundle.picture_side) as decoded:
            good = [row for row in decoded if not isinstance(row, InputError)]
            made = iter(await loaded.encoder.code(good) if good else ())
            coded = [row if isinstance(row, InputError) else next(made) for row in decoded]
        pointers = {id(item): f"/items/{number}" for number, item in enumerate(items)}
        errors = [
            {"pointer": pointers[id(item)] if len(items) > 1 else "", "detail": str(one)}
            for item, one in zip(new, coded, strict=True)
            if isinstance(one, InputError)
        ]
        if errors:
            raise Problem(422, "item-not-codable", "items cannot be coded; `errors` says why", errors=errors)
        return [one for one in coded if isinstance(one, Coded)]

    async def _append(self, rows: Sequence[NewCode]) -> list[NewCode]:
        try:
            stored = await self.store.append(rows)
        except ContentConflict as error:  # by a request that ran beside this one
            raise _taken(error.item_ids) from None
        self.metrics.stored.inc(len(stored))
        return stored

    async def delete(self, item_id: str) -> Deletion:
        """Remove what the store holds of an item.

        Raises:
            Problem: 404, nothing; 409, it is published, which a new bundle alone changes.
        """
        with self.bundles.use() as loaded:
            if item_id in loaded.bundle:
                detail = f"item {item_id[:100]!r} is published; leave it out of the next bundle"
                raise Problem(409, "already-published", detail)
            removed = await self.store.delete(item_id)
        if not removed:
            raise Problem(404, "no-such-item", f"got item {item_id[:100]!r}, which is not stored")
        return Deletion(item_id=item_id, deleted=removed)

    async def check_store(self) -> None:
        """Whether the store can take rows.

        Raises:
            StoreError: it cannot.
        """
        await self.store.check()

    # ---- known items ------------------------------------------------------------------------------

    async def item(self, item_id: str, *, nearest: int) -> ItemAnswer:
        """Codes, facts and nearest published items of a published or an appended item.

        Raises:
            Problem: 404, there is no such item.
        """
        loaded = self.bundles.current
        bundle = loaded.bundle
        if item_id in bundle:
            row = bundle.row(item_id)
            vector, facts = bundle.vectors.vectors[row], bundle.facts(item_id)
            vq = None if bundle.codes.vq is None else bundle.codes.vq[row]
            made: Coded | NewCode = Coded(vector, bundle.codes.rq[row], vq, bundle.codes.version)
            made_by, published = bundle.version, True
        else:
            stored = await self.store.find(item_id, bundle.version)
            if stored is None:
                raise Problem(
                    404, "no-such-item", f"got item {item_id[:100]!r}, which is neither published nor stored"
                )
            made, made_by, published = stored, stored.bundle, False
            vector, facts = stored.vector, {"item_id": item_id, **stored.facts}
        rq, vq_code, code = _codes(made)
        return ItemAnswer(
            item_id=item_id,
            bundle=made_by,
            version=made.version,
            published=published,
            rq=rq,
            vq=vq_code,
            code=code,
            facts=facts,
            nearest=await self._nearest(loaded, item_id, vector, nearest),
        )

    async def _nearest(
        self, loaded: LoadedBundle, item_id: str, vector: npt.NDArray[np.float32], count: int
    ) -> list[Neighbour]:
        table = loaded.bundle.vectors.vectors
        if count < 1 or vector.shape[0] != table.shape[1]:  # stored for a bundle of another dimension
            return []
        ids, cosines = await self._search(loaded, lambda: loaded.bundle.nearest(vector[None], count + 1))
        pairs = zip(ids[0], cosines[0].tolist(), strict=True)
        return [Neighbour(item_id=one, cosine=cosine) for one, cosine in pairs if one != item_id][:count]

    async def search(self, query: str, *, first: int, count: int) -> ItemList:
        """A page of the published items whose id or title contains a text."""
        loaded = self.bundles.current
        total, items = await self._search(loaded, lambda: loaded.search(query, first=first, count=count))
        return ItemList(total=total, items=items, next=_next(first, count, total))

    async def under(self, prefix: Sequence[int], *, first: int, count: int) -> PrefixAnswer:
        """A page of the items under a code prefix: published ones by code, then appended ones as they came.

        Raises:
            Problem: 422, more codes than levels.
        """
        bundle = self.bundles.current.bundle
        levels = bundle.codes.rq.shape[1]
        if len(prefix) > levels:
            raise Problem(422, "invalid-request", f"got {len(prefix)} codes, need at most {levels}")
        published = bundle.under(prefix)
        page = published[first : first + count]
        more, appended = await self.store.under(
            prefix, bundle.version, first=max(first - len(published), 0), count=count - len(page)
        )
        total = len(published) + more
        return PrefixAnswer(
            prefix=list(prefix),
            bundle=bundle.version,
            total=total,
            items=page + appended,
            next=_next(first, count, total),
        )

    async def score(self, request: ScoreRequest) -> ScoreAnswer:
        """The ranker's logits.

        Raises:
            Problem: as of `RankerQueue.score`.
        """
        return await self.ranker.score(self.bundles.current, request)

    async def recommend(self, request: RecommendRequest) -> RecommendAnswer:
        """A list of items for a user or a history; problems as of `RecommenderQueue.recommend`."""
        return await self.recommender.recommend(self.bundles.current, request)

    async def similar(self, item_id: str, *, count: int) -> SimilarAnswer:
        """The items nearest to an item in the retriever; problems as of `RecommenderQueue.similar`."""
        return await self.recommender.similar(self.bundles.current, item_id, count)

    async def _search(self, loaded: LoadedBundle, search: Callable[[], Result]) -> Result:
        """Result of a search, which goes to a thread where the bundle is large."""
        if len(loaded.bundle.item_ids) <= AT_ONCE:
            return search()
        return await asyncio.to_thread(search)


def _digest(item: NewItem) -> bytes:
    return content_digest(item.text, item.image, item.audio, {**item.attributes, **item.vectors})


def _codes(made: Coded | NewCode) -> tuple[list[int], list[int] | None, str]:
    """RQ code, VQ code, and the RQ code as text."""
    rq: list[int] = made.rq.tolist()
    return rq, None if made.vq is None else made.vq.tolist(), prefix_text(rq)


def _coded_item(item_id: str | None, made: Coded | NewCode) -> CodedItem:
    rq, vq, code = _codes(made)
    stored = isinstance(made, NewCode)
    return CodedItem(item_id=item_id, rq=rq, vq=vq, code=code, vector=made.vector.tolist(), stored=stored)


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
