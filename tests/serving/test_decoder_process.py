"""Media of requests: decoded to the bits that the encoder reads of the file itself, within their time."""

import io
import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
from PIL import Image

from qarm.data.media_decoding import load_audio, load_image, squeezed
from qarm.serving import decoder_process
from qarm.serving.child_process import ProcessDiedError
from qarm.serving.decoder_process import DecoderProcess, Medium, decode
from qarm.serving.limits import Limits

LIMITS = Limits()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    random = np.random.default_rng(0)
    return Image.fromarray(
        random.integers(0, 256, (height, width, len(mode)), dtype=np.uint8).squeeze(), mode
    )


def saved(picture: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **settings)
    return file.getvalue()


def sound(rate: int, channels: int, seconds: float, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    random = np.random.default_rng(1)
    soundfile.write(file, random.uniform(-0.5, 0.5, (round(rate * seconds), channels)), rate, format=kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def process() -> Iterator[DecoderProcess]:
    made = DecoderProcess(niceness=0)
    yield made
    made.stop()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_picture_keeps_its_bits(kind: str, mode: str) -> None:
    if (kind, mode) == ("JPEG", "RGBA"):
        mode = "RGB"
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    content = saved(noise(301, 177, mode), kind, exif=exif)
    found = decode(Medium("image", content, LIMITS))
    assert found.pixels == 301 * 177
    assert np.array_equal(np.asarray(load_image(found.content)), np.asarray(load_image(content)))
    small = decode(Medium("image", content, LIMITS, side=224))
    assert len(small.content) == 15 + 3 * 224 * 224
    of_file = np.asarray(squeezed(load_image(content), 224))
    assert np.array_equal(np.asarray(squeezed(load_image(small.content), 224)), of_file)


@pytest.mark.parametrize(
    ("rate", "channels", "seconds"), [(44_100, 2, 0.4), (16_000, 1, 2.5), (48_000, 6, 11.0), (8_000, 1, 0.1)]
)
@pytest.mark.parametrize(("at", "heard"), [(16_000, 2.048), (48_000, 10.0)])
def test_a_sound_keeps_its_bits(rate: int, channels: int, seconds: float, at: int, heard: float) -> None:
    content = sound(rate, channels, seconds)
    found = decode(Medium("audio", content, LIMITS))
    expected = load_audio(content, at, seconds=heard)
    assert np.array_equal(load_audio(found.content, at, seconds=heard), expected)


def test_what_is_wrong_is_said() -> None:
    small = Limits(pixels=100, sound_seconds=1.0)
    assert decode(Medium("image", saved(noise(20, 20), "PNG"), small)).reason == (
        "image: picture of 400 pixels, need at most 100; scale it down"
    )
    assert "sound of 2.0 seconds, need at most 1" in decode(Medium("audio", sound(8000, 1, 2), small)).reason
    assert decode(Medium("audio", b"no sound", LIMITS)).reason.startswith("audio: not a readable sound")


def test_the_process_gives_what_the_function_gives(process: DecoderProcess) -> None:
    medium = Medium("image", saved(noise(64, 48), "PNG"), LIMITS, side=32)
    found = process.decode(medium, seconds=5)
    assert found.content == decode(medium).content
    assert (found.pixels, found.late) == (64 * 48, False)
    assert (
        process.decode(Medium("image", b"none", LIMITS), seconds=5).reason
        == decode(Medium("image", b"none", LIMITS)).reason
    )


def test_a_medium_that_takes_long_ends_alone(process: DecoderProcess) -> None:
    """A picture within all limits, of a few kilobytes, that takes a second or so to decode."""
    heavy = Medium("image", saved(Image.new("RGBA", (4000, 3990)), "PNG"), LIMITS)
    started = time.monotonic()
    child = process.started().pid
    found = process.decode(heavy, seconds=0.05)
    assert (found.content, found.late) == (None, True)
    assert 0.04 < found.seconds < 0.5
    assert time.monotonic() - started < 30
    assert process.decode(Medium("image", saved(noise(8, 8), "PNG"), LIMITS), seconds=5).content is not None
    assert process.started().pid == child


def test_a_decoder_that_crashes_or_fills_the_memory_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(medium: Medium) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hoard(medium: Medium) -> None:
        bytearray(3 * 2**30)

    def forked() -> decoder_process.Decoded:
        answer = decoder_process._forked(Medium("image", b"", LIMITS), 5.0)
        return decoder_process.pickle.loads(answer)

    monkeypatch.setattr(decoder_process, "_picture", crash)
    assert forked().reason == "image: damaged, its decoder ended with signal SIGKILL; save it anew"
    monkeypatch.setattr(decoder_process, "_picture", hoard)
    assert forked().reason == "image: needs over 1,024 MiB to decode; make it smaller"


def test_a_killed_process_is_started_anew() -> None:
    process = DecoderProcess(niceness=0)
    medium = Medium("image", saved(noise(8, 8), "PNG"), LIMITS)
    assert process.decode(medium, seconds=5).content
    os.kill(process.started().pid, signal.SIGKILL)
    try:
        found = process.decode(medium, seconds=5)
    except ProcessDiedError:  # it was not seen to be dead yet
        found = process.decode(medium, seconds=5)
    assert found.content
    process.stop()
