"""Media of a catalogue: reading, and a check of all of them before anything is learned."""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from qarm.data.catalog import Catalog
from qarm.data.media_decoding import HEARD_SECONDS, load_audio, load_image, read_file
from qarm.errors import InputError, Problems, shown

__all__ = ["MediaReport", "blame", "check_media", "read_media"]


def read_media(catalog: Catalog, source: str | bytes) -> bytes:
    """Content of a media file, from the catalogue's folder or from the table itself.

    Raises:
        InputError: the file is missing, no regular file, unreadable or over 256 MiB.
    """
    if isinstance(source, bytes):
        return source
    return read_file(catalog.path(source), name=source)


def blame(source: str | bytes, error: InputError) -> str:
    """Message of an error, with the name of the media file in the table."""
    name = source if isinstance(source, str) else "file in the table"
    return str(error) if str(error).startswith(name) else f"{name}: {error}"


# ---- the check --------------------------------------------------------------------------------


@dataclass(frozen=True)
class MediaReport:
    """Unreadable media, item id to reason, and the number of readable ones of each kind."""

    images: dict[str, str]
    sounds: dict[str, str]
    image_count: int
    sound_count: int

    def require(self, *, most: float) -> None:
        """Refusal of media of which more than a share cannot be read.

        Raises:
            InputError: with the first of them by name, and why.
        """
        problems = Problems()
        for kind, bad, good in (
            ("pictures", self.images, self.image_count),
            ("sounds", self.sounds, self.sound_count),
        ):
            if bad and len(bad) > most * (len(bad) + good):
                named = shown([f"{item!r}: {why}" for item, why in bad.items()], first=3)
                problems.add(
                    f"{len(bad):,} of {len(bad) + good:,} {kind} cannot be read, need at most "
                    f"data.max_unreadable = {most:.3g} of them: {named}; put the files back, or allow more"
                )
        problems.raise_any()


def check_media(catalog: Catalog) -> MediaReport:
    """Report on the media of a catalogue; every picture and sound is decoded, in threads.

    `catalog.without_media(images=report.images, sounds=report.sounds)` leaves the unreadable ones out.

    Raises:
        InputError: items that have no content without their unreadable media.
    """
    images, sounds = (dict(_unreadable(catalog, kind)) for kind in ("image", "audio"))
    catalog.without_media(images=images, sounds=sounds)
    counts = catalog.counts()
    return MediaReport(images, sounds, counts["image"] - len(images), counts["audio"] - len(sounds))


def _unreadable(catalog: Catalog, kind: str) -> Iterator[tuple[str, str]]:
    def reason(source: str | bytes) -> str | None:
        try:
            content = read_media(catalog, source)
            load_image(content) if kind == "image" else load_audio(content, 16_000, seconds=HEARD_SECONDS)
        except InputError as error:
            return blame(source, error)
        return None

    rows = catalog.frame.select("item_id", kind).drop_nulls()
    with ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings about odd but readable files
        yield from (
            (item, why)
            for item, why in zip(rows["item_id"], pool.map(reason, rows[kind]), strict=True)
            if why is not None
        )
