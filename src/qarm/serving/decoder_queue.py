"""Decoder queue: pictures and sounds of requests, decoded in turn, so that none holds another up.

A request's media are decoded one after the other. The first quarter second of processor time that they take
is spent in the fast lane, which is therefore never held by one request for longer; what takes more goes to
the slow lane and has a budget for each medium and for the request.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from qarm.errors import InputError
from qarm.serving.child_process import ProcessDiedError
from qarm.serving.decoder_process import Decoded, Decoder, DecoderProcess, Medium
from qarm.serving.http.problems import Problem, busy
from qarm.serving.limits import Limits

__all__ = ["DecoderQueue"]

FAST_SECONDS = 0.25
LEAST_SECONDS = 0.05  # that a medium may take in the fast lane, whatever the others of its request have taken
FAST_LANES, SLOW_LANES = 2, 1
FAST_NICENESS, SLOW_NICENESS = 5, 15
Row = Mapping[str, Any]


@dataclass
class _Spent:
    """What the media of a request have taken so far."""

    seconds: float = 0.0
    pixels: int = 0
    size: int = 0


class _Lane:
    """Decoders that take media in the order in which they came."""

    def __init__(self, decoders: Sequence[Decoder], name: str) -> None:
        self._decoders = list(decoders)
        self._free = list(decoders)
        self._threads = ThreadPoolExecutor(len(decoders), thread_name_prefix=f"decoder-{name}")

    async def decode(self, medium: Medium, seconds: float) -> Decoded:
        def work() -> Decoded:
            decoder = self._free.pop()  # there are as many as threads
            try:
                return decoder.decode(medium, seconds=seconds)
            finally:
                self._free.append(decoder)

        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for decoder in self._decoders:
            decoder.stop()


class DecoderQueue:
    """Decodes the media of requests.

    Args:
        made: makes a decoder of a niceness.
    """

    def __init__(
        self, limits: Limits, made: Callable[[int], Decoder] = lambda nice: DecoderProcess(niceness=nice)
    ) -> None:
        self.limits = limits
        self.held = 0  # bytes of decoded media, of all requests
        self.requests = 0
        self._fast = _Lane([made(FAST_NICENESS) for _ in range(FAST_LANES)], "fast")
        self._slow = _Lane([made(SLOW_NICENESS) for _ in range(SLOW_LANES)], "slow")

    @asynccontextmanager
    async def decoded(
        self, rows: Sequence[Row], *, side: int | None
    ) -> AsyncIterator[list[dict[str, Any] | InputError]]:
        """Rows with their media decoded, or what is wrong with each, held while the block runs.

        Args:
            rows: items; `image` and `audio` bytes or None.
            side: as of `Medium`.

        Raises:
            Problem: 503, there is too much to decode at a time.
        """
        if self.requests >= self.limits.waiting:
            raise busy()
        spent = _Spent()
        self.requests += 1
        try:
            yield [await self._row(row, side, spent) for row in rows]
        finally:
            self.requests -= 1
            self.held -= spent.size

    async def _row(self, row: Row, side: int | None, spent: _Spent) -> dict[str, Any] | InputError:
        made = dict(row)
        for kind in ("image", "audio"):
            content = row.get(kind)
            if content is not None:
                try:
                    made[kind] = await self._medium(Medium(kind, content, self.limits, side), spent)
                except InputError as error:
                    return error
        return made

    async def _medium(self, medium: Medium, spent: _Spent) -> bytes:
        most = self.limits.request_pixels
        if spent.pixels > most:
            raise InputError(f"pictures of over {most:,} pixels in one request; send several requests")
        try:
            found = await self._bounded(medium, spent)
        except ProcessDiedError:
            raise Problem(
                503,
                "busy",
                "the decoder of pictures and sounds was ended; try again",
                headers={"Retry-After": "1"},
            ) from None
        if found.content is None:
            raise InputError(str(found.reason))
        spent.pixels += found.pixels
        spent.size += len(found.content)
        self.held += len(found.content)
        if self.held > self.limits.bodies:
            raise busy()
        return found.content

    async def _bounded(self, medium: Medium, spent: _Spent) -> Decoded:
        limits = self.limits
        if spent.seconds < FAST_SECONDS:
            found = await self._fast.decode(medium, max(FAST_SECONDS - spent.seconds, LEAST_SECONDS))
            spent.seconds += found.seconds
            if not found.late:
                return found
        left = limits.request_media_seconds - spent.seconds
        if left > 0:
            found = await self._slow.decode(medium, min(limits.media_seconds, left))
            spent.seconds += found.seconds
            if not found.late:
                return found
        if left >= limits.media_seconds:
            reason = f"{medium.kind}: takes over {limits.media_seconds:g} s to decode; save it anew"
        else:
            most = limits.request_media_seconds
            reason = f"a request's media take over {most:g} s to decode; send several requests"
        return Decoded(None, reason)

    def close(self) -> None:
        """End of all decoders."""
        self._fast.close()
        self._slow.close()
