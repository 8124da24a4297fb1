"""Factory of towers: those that a config names, those of a saved encoder, and those before tuning."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from qarm.data.catalog import Catalog
from qarm.encoder.towers.attributes import ATTRIBUTES, AttributesTower
from qarm.encoder.towers.audio import LOGMEL, LogMel
from qarm.encoder.towers.checkpoint import Checkpoint
from qarm.encoder.towers.image import PACKAGED_IMAGE, ImageTower
from qarm.encoder.towers.media_checkpoint import AudioCheckpoint, ImageCheckpoint
from qarm.encoder.towers.multimodal import ItemTower
from qarm.encoder.towers.text import TextTower
from qarm.encoder.towers.tower import Tower
from qarm.encoder.towers.vectors import VectorTower
from qarm.errors import ArtifactError, InputError
from qarm.schemas.encoder import Tower as TowerCard
from qarm.schemas.encoder import TowerOptions

__all__ = ["content_towers", "open_original", "open_saved", "open_towers", "options_of"]

CHECKPOINTS: dict[str, type[Checkpoint]] = {
    kind.__name__: kind for kind in (TextTower, ItemTower, ImageCheckpoint, AudioCheckpoint)
}
NAMED: dict[str, type[Checkpoint]] = {"text": TextTower, "image": ImageCheckpoint, "audio": AudioCheckpoint}
PACKAGED: dict[str, Callable[[Path | None], Tower]] = {
    "ImageTower": ImageTower,
    "LogMel": lambda folder: LogMel(),
}
SAVED: dict[str, Callable[[Path], Tower]] = PACKAGED | {
    "AttributesTower": AttributesTower.read,
    "VectorTower": VectorTower.read,
}
WORDS = {PACKAGED_IMAGE: ("image", "ImageTower"), LOGMEL: ("audio", "LogMel")}
Names = str | Sequence[str] | None


def open_towers(
    *,
    text: Names = None,
    image: Names = None,
    audio: Names = None,
    model: str | None = None,
    options: TowerOptions | None = None,
) -> dict[str, Tower]:
    """The towers that a config names; None leaves a modality out, a list gives it several.

    Args:
        text: `all-minilm-l6-v2`, or the folder or hub name of a sentence-transformers checkpoint.
        image: `efficientnet-lite0`, or the folder or hub name of a transformers checkpoint for pictures.
        audio: `logmel`, or a checkpoint for sounds.
        model: folder or hub name of a checkpoint that reads whole items, in place of the three.
        options: prompt and length of the texts' vectors, pooling of the others.

    Raises:
        InputError: no such encoder, or a prompt that none of them has.
        MissingExtraError: a packaged encoder is not installed.
    """
    asked = options or TowerOptions()
    if model is not None:
        return {"item": ItemTower(model, options=asked)}
    towers: dict[str, Tower] = {}
    for modality, names in (("text", text), ("image", image), ("audio", audio)):
        listed = [names] if isinstance(names, str) else list(names or ())
        if len(set(listed)) < len(listed):
            raise InputError(f"encoder.{modality} = {listed}: one is there twice; remove it")
        for number, name in enumerate(listed, start=1):
            key = modality if number == 1 else f"{modality}{number}"
            towers[key] = _opened(modality, name, asked)
    return _prompted(towers, asked) if asked.prompt else towers


def content_towers(catalog: Catalog) -> dict[str, Tower]:
    """Towers for what the items come with: attributes, and vectors that were made elsewhere."""
    towers: dict[str, Tower] = {}
    for name in catalog.features:
        contents = catalog.frame[name].drop_nulls()
        if len(contents):
            attributes = name == ATTRIBUTES
            towers[name] = AttributesTower.fit(contents) if attributes else VectorTower.of(name, contents[0])
    return towers


def _opened(modality: str, name: str, asked: TowerOptions) -> Tower:
    if name not in WORDS:
        return NAMED[modality](name, options=asked)
    own, kind = WORDS[name]
    if own != modality:
        raise InputError(f"encoder.{modality} = {name!r} reads {own}; set it as encoder.{own}")
    return PACKAGED[kind](None)


def _prompted(towers: Mapping[str, Tower], asked: TowerOptions) -> dict[str, Tower]:
    """The towers; of several for text, those that lack the prompt keep their default one."""
    texts = {key: tower for key, tower in towers.items() if isinstance(tower, TextTower)}
    without = [key for key, tower in texts.items() if not tower.has_prompt(asked.prompt or "")]
    if without and len(without) == len(texts):
        texts[without[0]].options  # noqa: B018 - refused here, before anything is read
    own = asked.model_copy(update={"prompt": None})
    return {**towers, **{key: TextTower(texts[key].name, options=own) for key in without}}


def options_of(tower: Tower) -> TowerOptions | None:
    """What a saved encoder has to say of a tower beside its files; None: nothing."""
    if not isinstance(tower, Checkpoint):
        return None
    return tower.options if tower.options != TowerOptions() else None


def open_saved(folder: Path, modality: str, entry: TowerCard, given: Mapping[str, Tower]) -> Tower:
    """A tower of a saved encoder.

    Args:
        folder: of the encoder.
        modality: the tower's name.
        entry: what the encoder's config says of it.
        given: towers to use instead, by name.

    Raises:
        InputError: a tower of a class of your own that was not given.
        ArtifactError: the tower is not the one that was saved.
    """
    if modality not in given and entry.kind not in CHECKPOINTS.keys() | SAVED.keys():
        raise InputError(
            f"{folder}: the {modality} tower is a {entry.kind} of your own; "
            f"pass it as towers={{{modality!r}: ...}}"
        )
    if modality in given:
        tower = given[modality]
    elif entry.kind in SAVED:
        tower = SAVED[entry.kind](folder / modality)
    else:
        tower = CHECKPOINTS[entry.kind](folder / modality, options=_fixed(entry))
    if isinstance(tower, Checkpoint):
        tower.name = entry.name
    if tower.fingerprint != entry.fingerprint:
        raise ArtifactError(
            f"{folder}: the {modality} tower is not the one that was saved; restore it or align again"
        )
    return tower


def open_original(entry: TowerCard) -> Callable[[], Tower]:
    """Opens the tower that a tuned one came from, by the name it had."""
    if entry.kind in PACKAGED:
        return partial(PACKAGED[entry.kind], None)
    return partial(CHECKPOINTS[entry.kind], entry.name, options=_fixed(entry))


def _fixed(entry: TowerCard) -> TowerOptions:
    """Options as they were saved: where nothing is said, there was no prompt."""
    return (entry.options or TowerOptions()).fixed()
