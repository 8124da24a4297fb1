"""Decoder process: each picture or sound in a fork of its own, which ends when its time is used up."""

import contextlib
import os
import pickle
import signal
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Literal, Protocol

import soundfile

from qarm.data.media_decoding import HEARD_SECONDS, load_audio, load_image, read_sound, squeezed
from qarm.errors import InputError
from qarm.serving.child_process import ChildProcess, entered
from qarm.serving.limits import Limits

__all__ = ["Decoded", "Decoder", "DecoderProcess", "Medium", "decode", "main"]

CHECKED_RATE = 16_000
MEMORY = 2**30  # bytes that a decoder may take beside those that it starts with
SLACK_SECONDS = 60.0  # a decoder of a busy machine waits for the processor


@dataclass(frozen=True)
class Medium:
    """A file to decode; side: of the square that pictures are squeezed to, None: they keep their size."""

    kind: Literal["image", "audio"]
    content: bytes
    limits: Limits
    side: int | None = None


@dataclass(frozen=True)
class Decoded:
    """What came of a medium.

    content: PPM or WAV, which the encoder reads to the same bits as the file itself, or None; reason: why it
    was refused, or None; late: whether it ran out of time; pixels: of the picture; seconds: of the processor.
    """

    content: bytes | None
    reason: str | None = None
    late: bool = False
    pixels: int = 0
    seconds: float = 0.0


class Decoder(Protocol):
    """Decodes media; `decode` blocks and is called by one thread at a time."""

    def decode(self, medium: Medium, *, seconds: float) -> Decoded:
        """What comes of a medium within so many seconds of processor time."""

    def stop(self) -> None:
        """End."""


class DecoderProcess:
    """A decoder whose small process forks for each medium; it starts with the first one."""

    def __init__(self, *, niceness: int) -> None:
        self._niceness = niceness
        self._child: ChildProcess | None = None

    def decode(self, medium: Medium, *, seconds: float) -> Decoded:
        """What comes of a medium within so many seconds of processor time.

        Raises:
            ProcessDiedError: the machine is too busy, or the process was ended; the next call starts one.
        """
        child = self.started()
        child.send((medium.kind, medium.limits, medium.side, seconds), medium.content)
        answer: bytes = child.receive_bytes(SLACK_SECONDS + seconds)
        found: Decoded = pickle.loads(answer)  # noqa: S301 - of our own process
        return found

    def started(self) -> ChildProcess:
        """The process, started where it does not run."""
        if self._child is None or not self._child.alive:
            self.stop()
            threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # it forks, so it has none
            self._child = ChildProcess(__name__, niceness=self._niceness, environment=threads)
        return self._child

    def stop(self) -> None:
        """End of the process."""
        if self._child is not None:
            self._child.stop()


def decode(medium: Medium) -> Decoded:
    """What comes of a medium, in this process."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about odd but readable files
            return _picture(medium) if medium.kind == "image" else _sound(medium)
    except InputError as error:
        return Decoded(None, f"{medium.kind}: {error}")
    except MemoryError:
        return Decoded(None, f"{medium.kind}: needs over {MEMORY >> 20:,} MiB to decode; make it smaller")


def _picture(medium: Medium) -> Decoded:
    picture = load_image(medium.content, max_pixels=medium.limits.pixels)
    pixels = picture.width * picture.height
    if medium.side is not None:
        picture = squeezed(picture, medium.side)
    head = f"P6\n{picture.width} {picture.height}\n255\n".encode()
    return Decoded(head + picture.tobytes(), pixels=pixels)


def _sound(medium: Medium) -> Decoded:
    load_audio(medium.content, CHECKED_RATE, seconds=HEARD_SECONDS)
    with soundfile.SoundFile(BytesIO(medium.content)) as sound:
        seconds = sound.frames / sound.samplerate
    most = medium.limits.sound_seconds
    if seconds > most:
        raise InputError(f"sound of {seconds:,.1f} seconds, need at most {most:,.0f}; cut it")
    samples, rate = read_sound(medium.content, seconds=HEARD_SECONDS)
    written = BytesIO()
    soundfile.write(written, samples, rate, format="WAV", subtype="FLOAT")
    return Decoded(written.getvalue())


# ---- the process --------------------------------------------------------------------------------


def main(descriptor: int, niceness: int) -> None:
    """What the process does: a fork for each medium, until the other end is closed."""
    from PIL import Image

    Image.init()  # all formats, before the forks
    pipe = entered(descriptor, niceness)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            kind, limits, side, seconds = pipe.recv()
            medium = Medium(kind, pipe.recv_bytes(), limits, side)
            pipe.send_bytes(_forked(medium, seconds))


def _forked(medium: Medium, seconds: float) -> bytes:
    """What a fork makes of a medium, as bytes of `Decoded`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(medium, seconds, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status, used = os.wait4(child, 0)
    spent = used.ru_utime + used.ru_stime
    ended = os.waitstatus_to_exitcode(status)
    if ended == 0:
        found: Decoded = pickle.loads(answer)  # noqa: S301 - of our own process
        found = Decoded(found.content, found.reason, pixels=found.pixels, seconds=spent)
    elif ended == -signal.SIGPROF:
        found = Decoded(None, late=True, seconds=max(spent, seconds))
    else:
        reason = f"{medium.kind}: damaged, its decoder ended with {_name(ended)}; save it anew"
        found = Decoded(None, reason, seconds=spent)
    return pickle.dumps(found, protocol=5)


def _answer(medium: Medium, seconds: float, descriptor: int) -> None:
    """The fork: decode, write what came of it, and end without anything that the parent has open."""
    try:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        _bound_memory()
        signal.setitimer(signal.ITIMER_PROF, seconds)  # of the processor; no handler, so it ends C code, too
        found = pickle.dumps(decode(medium), protocol=5)
        signal.setitimer(signal.ITIMER_PROF, 0)
        with os.fdopen(descriptor, "wb") as pipe:
            pipe.write(found)
        os._exit(0)
    finally:
        os._exit(1)


def _bound_memory() -> None:
    import resource

    with contextlib.suppress(OSError, ValueError):  # macOS has no such limit
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - a path would cost an import
            now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


def _name(ended: int) -> str:
    return f"signal {signal.Signals(-ended).name}" if ended < 0 else f"exit code {ended}"
