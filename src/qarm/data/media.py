"""Media of a catalogue: reading, and a check of all of them before anything is learned."""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from qarm.data.catalog import Catalog
from qarm.data.media_columns import MediaCell, sources_of
from qarm.data.media_decoding import HEARD_SECONDS, load_audio, load_image, read_file
from qarm.errors import InputError, Problems, shown

__all__ = ["MediaReport", "blame", "check_media", "read_media"]


def read_media(catalog: Catalog, cell: MediaCell) -> bytes:
    """Content of a media file, from the catalogue's folder or from the table itself; of several the first.

    Raises:
        InputError: the file is missing, no regular file, unreadable or over 256 MiB.
    """
    source = sources_of(cell)[0]
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
    """Unreadable media, item id to reason, and the number of readable ones of each kind.

    numbers: from 0, which pictures are unreadable, of the items that have several.
    """

    images: dict[str, str]
    sounds: dict[str, str]
    image_count: int
    sound_count: int
    numbers: dict[str, list[int]] = field(default_factory=dict)

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
            count = sum(len(self.numbers.get(item, (0,))) if kind == "pictures" else 1 for item in bad)
            if count > most * (count + good):
                named = shown([f"{item!r}: {why}" for item, why in bad.items()], first=3)
                problems.add(
                    f"{count:,} of {count + good:,} {kind} cannot be read, need at most "
                    f"data.max_unreadable = {most:.3g} of them: {named}; put the files back, or allow more"
                )
        problems.raise_any()


def check_media(catalog: Catalog) -> MediaReport:
    """Report on the media of a catalogue; every picture and sound is decoded, in threads.

    `catalog.without_media(images=report.images, sounds=report.sounds, numbers=report.numbers)` leaves the
    unreadable ones out.

    Raises:
        InputError: items that have no content without their unreadable media.
    """
    pictures, sounds = (list(_checked(catalog, kind)) for kind in ("image", "audio"))
    reasons: dict[str, list[str]] = {}
    numbers: dict[str, list[int]] = {}
    for item, number, several, why in pictures:
        if why is not None:
            reasons.setdefault(item, []).append(f"picture {number + 1}, {why}" if several else why)
            if several:
                numbers.setdefault(item, []).append(number)
    images = {item: "; ".join(own) for item, own in reasons.items()}
    unheard = {item: why for item, _, _, why in sounds if why is not None}
    catalog.without_media(images=images, sounds=unheard, numbers=numbers)
    seen, heard = (sum(why is None for *_, why in found) for found in (pictures, sounds))
    return MediaReport(images, unheard, seen, heard, numbers)


def _checked(catalog: Catalog, kind: str) -> Iterator[tuple[str, int, bool, str | None]]:
    """Item, number of the medium, whether the item has several, and why it cannot be read, of each."""

    def reason(source: str | bytes) -> str | None:
        try:
            content = read_media(catalog, source)
            load_image(content) if kind == "image" else load_audio(content, 16_000, seconds=HEARD_SECONDS)
        except InputError as error:
            return blame(source, error)
        return None

    cells = catalog.frame.select("item_id", kind).drop_nulls().iter_rows()
    found = [(item, sources_of(cell)) for item, cell in cells]
    media = [(item, number, len(own) > 1, source) for item, own in found for number, source in enumerate(own)]
    with ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings about odd but readable files
        reasons = pool.map(reason, (source for *_, source in media))
        for (item, number, several, _), why in zip(media, reasons, strict=True):
            yield item, number, several, why
