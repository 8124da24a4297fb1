"""Item encoder: towers, trained heads over them, and the folder that holds both."""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qarm.core.atomic_io import atomic, make_folder, read_json, sha256_file, write_json
from qarm.core.paths import as_path
from qarm.core.run_folder import verify
from qarm.core.scratch import remove
from qarm.core.tables.parquet import read_parquet, write_parquet
from qarm.data.catalog import Catalog, text_catalog
from qarm.data.embeddings import Embeddings
from qarm.encoder.feature_cache import FeatureCache, feature_shards, open_feature_caches
from qarm.encoder.heads import Batch, Heads, as_batch
from qarm.encoder.item_contents import readable
from qarm.encoder.towers.factory import open_original, open_saved, options_of
from qarm.encoder.towers.tower import Tower, reads
from qarm.errors import ArtifactError, InputError, shown
from qarm.schemas.encoder import AlignSummary, ColdItems, EncoderCard, HeadsSettings
from qarm.schemas.encoder import Tower as TowerCard

__all__ = ["Encoder", "model_card"]

FORMAT = "qarm-encoder-1"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
TRAINED = "trained_items.parquet"


class Encoder:
    """Turns items into vectors of unit length; made by `align`, or read by `from_pretrained`.

    towers: name to its encoder, a modality or "item" for one that reads several; heads: the fusion over them;
    originals: for each tower that was tuned, what opens it as it was before; summary: figures of the
    training; anchor_cold: anchor of the items that are not among `trained`, None: that of the heads.
    """

    def __init__(
        self,
        towers: Mapping[str, Tower],
        heads: Heads,
        *,
        originals: Mapping[str, Callable[[], Tower]] | None = None,
        summary: AlignSummary | None = None,
        caches: Mapping[str, FeatureCache] | None = None,
        anchor_cold: float | None = None,
        trained: Collection[str] = (),
    ) -> None:
        self.towers = dict(towers)
        self.heads = heads.eval()
        self.originals = dict(originals or {})
        self.summary = summary
        self._shelves = dict(caches) if caches is not None else None
        # In double precision an item's vector, rounded to single, is the same in any batch.
        self._exact = copy.deepcopy(heads).cpu().double().eval()
        self.anchor_cold, self.trained = anchor_cold, frozenset(trained)

    @property
    def modalities(self) -> list[str]:
        """What it reads of an item."""
        return sorted({m for name, tower in self.towers.items() for m in reads(name, tower)})

    @property
    def dim(self) -> int:
        """Length of the aligned vectors."""
        return self.heads.length

    def __repr__(self) -> str:
        towers = ", ".join(f"{name} {tower.name}" for name, tower in self.towers.items())
        return f"Encoder({towers} -> {self.dim})"

    def embed(
        self, catalog: Catalog | Sequence[str], *, cache: Path | str | None = None, new: bool = False
    ) -> Embeddings:
        """Aligned vectors of all items, float32 [n, dim], of unit length.

        Args:
            catalog: items with at least one of the encoder's modalities each; or texts, whose vectors are
                called `0`, `1` and so on.
            cache: folder of tower features to use and to fill; an interrupted call resumes from it.
            new: whether none of the items is one of the training, whatever their ids.

        Raises:
            InputError: items without any of the encoder's modalities, unreadable pictures or sounds.
        """
        found = self._vectors(catalog, self._exact.forward, self.towers, cache=cache)
        if self.anchor_cold is None:
            return found
        texts = not isinstance(catalog, Catalog)  # which are nobody's, whatever they are called
        return self._with_cold(found, self.anchor_cold, new=new or texts)

    def _with_cold(self, found: Embeddings, anchor: float, *, new: bool) -> Embeddings:
        """Vectors in which items without a training pair have their own weights of both parts."""
        cold = np.array([new or item not in self.trained for item in found.item_ids])
        before, parts = self.heads.anchor, found.vectors.astype(np.float64)
        learned, raw = ((1 - anchor) / (1 - before)) ** 0.5, (anchor / before) ** 0.5
        scaled = np.concatenate(
            [learned * parts[:, : self.heads.dim], raw * parts[:, self.heads.dim :]], axis=1
        )
        scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
        vectors = np.where(cold[:, None], scaled, parts).astype(np.float32)
        return Embeddings(found.item_ids, vectors)

    def raw(self, catalog: Catalog | Sequence[str], *, cache: Path | str | None = None) -> Embeddings:
        """Vectors before alignment, float32 [n, d], of unit length.

        The features of the towers as they were before tuning, standardised over the items of the training,
        each at unit length (zeros where it is missing), side by side. Arguments and errors as in `embed`.
        """
        before = {name: opened() for name, opened in self.originals.items()}
        return self._vectors(catalog, self._exact.raw, self.towers | before, cache=cache)

    def _vectors(
        self,
        items: Catalog | Sequence[str],
        function: Callable[[Batch], torch.Tensor],
        towers: Mapping[str, Tower],
        *,
        cache: Path | str | None,
    ) -> Embeddings:
        catalog = items if isinstance(items, Catalog) else text_catalog(items)
        cache = None if cache is None else as_path(cache)
        self._check_modalities(catalog)
        own = self._shelves if cache is None and towers == self.towers else None
        caches = own if own is not None else open_feature_caches(towers, cache)
        shards = feature_shards(catalog, towers, caches, keep=cache is not None)
        names = self.heads.modalities
        with torch.inference_mode():
            vectors = [function(as_batch(shard, names)).float().numpy() for shard in shards]
        return Embeddings(catalog.item_ids, np.concatenate(vectors))

    def _check_modalities(self, catalog: Catalog) -> None:
        something = [readable(catalog, name, tower) for name, tower in self.towers.items()]
        nothing = ~np.logical_or.reduce(something)
        if nothing.any():
            raise InputError(
                f"items {shown(catalog.frame['item_id'].filter(nothing))} "
                f"have no {', '.join(self.modalities)}, "
                "which is all this encoder reads; leave them out, or align with their modality"
            )

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a folder that needs nothing else: heads, towers, config and model card, no pickle."""
        folder = as_path(folder)
        make_folder(folder)
        for name, tower in self.towers.items():
            remove(folder / name)
            tower.save(folder / name)
        with atomic(folder / WEIGHTS) as temporary:
            save_file({n: t.cpu().contiguous() for n, t in self.heads.state_dict().items()}, temporary)
        if self.anchor_cold is not None:
            write_parquet(folder / TRAINED, pl.DataFrame({"item_id": sorted(self.trained)}))
        card = self._card(sha256_file(folder / WEIGHTS))
        if self.anchor_cold is not None:
            cold = ColdItems(anchor=self.anchor_cold, trained_sha256=sha256_file(folder / TRAINED))
            card = card.model_copy(update={"cold": cold})
        with atomic(folder / CARD) as temporary:
            temporary.write_text(model_card(card), encoding="utf-8")
        write_json(folder / CONFIG, card)

    def _card(self, weights_sha256: str) -> EncoderCard:
        heads = self.heads
        towers = {
            modality: TowerCard(
                kind=type(self.towers[modality]).__name__,
                name=self.towers[modality].name,
                fingerprint=self.towers[modality].fingerprint,
                shape=list(shape),
                tuned=modality in self.originals,
                options=options_of(self.towers[modality]),
            )
            for modality, shape in heads.shapes.items()
        }
        settings = HeadsSettings(
            dim=heads.dim,
            hidden=heads.hidden,
            dropout=heads.dropout,
            fusion=heads.fusion,
            anchor=heads.anchor,
        )
        return EncoderCard(
            format=FORMAT,
            qarm=version("qarm"),
            heads=settings,
            towers=towers,
            summary=self.summary,
            weights_sha256=weights_sha256,
        )

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, towers: Mapping[str, Tower] | None = None) -> "Encoder":
        """Read what `save_pretrained` wrote.

        Args:
            folder: the encoder's folder.
            towers: encoders to use instead of the saved ones; those of a class of your own are not
                read from the folder, so they must be given.

        Raises:
            InputError: the folder holds no encoder, or a tower that only you can make.
            ArtifactError: weights that are damaged or not those that were saved.
        """
        folder = as_path(folder)
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder}: no {CONFIG}; give a folder written by Encoder.save_pretrained")
        verify(folder)
        content = read_json(folder / CONFIG)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{folder}: {CONFIG} is not of format {FORMAT!r}; align again with this version")
        card = EncoderCard.model_validate(content, strict=False)
        opened = {name: open_saved(folder, name, entry, towers or {}) for name, entry in card.towers.items()}
        originals = {name: open_original(entry) for name, entry in card.towers.items() if entry.tuned}
        shapes = {modality: tuple(entry.shape) for modality, entry in card.towers.items()}
        heads = Heads(shapes, **dict(card.heads))
        heads.load_state_dict(_weights(folder / WEIGHTS, card.weights_sha256))
        cold = card.cold
        return cls(
            opened,
            heads,
            originals=originals,
            summary=card.summary,
            anchor_cold=None if cold is None else cold.anchor,
            trained=() if cold is None else _trained(folder / TRAINED, cold.trained_sha256),
        )


def _trained(path: Path, expected: str) -> list[str]:
    if not path.is_file() or sha256_file(path) != expected:
        raise ArtifactError(f"{path} is missing or not what was saved; restore it or align again")
    return read_parquet(path)["item_id"].to_list()


def _weights(path: Path, expected: str) -> dict[str, torch.Tensor]:
    if not path.is_file() or sha256_file(path) != expected:
        raise ArtifactError(f"{path} is missing or not what was saved; restore it or align again")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not readable ({error}); align again") from None


LICENCES = {"all-minilm-l6-v2": "Apache-2.0", "efficientnet-lite0": "Apache-2.0", "logmel": "no weights"}

CARD_TEMPLATE = """---
library_name: qarm
tags: [recommender-systems, multi-modal, contrastive-learning, item-embeddings]
---
# Item encoder aligned with behaviour

Turns an item's {modalities} into a vector of {dim} numbers and unit length; items that the same users
choose lie close. Frozen pretrained encoders, one for each modality, under a head that was trained on
pairs of items by a batch-contrastive loss (QARM, arXiv 2411.11739, section 3.1).

| modality | encoder | feature | licence of its weights |
|---|---|---|---|
{towers}

## Use
```python
import qarm

encoder = qarm.Encoder.from_pretrained("this/folder")
vectors = encoder.embed(qarm.read_catalog("items.parquet"))
```

## Training
{figures}

## Limits
It knows the tastes of the log that it was trained on, with that log's biases, and nothing of later ones.
Where content does not predict behaviour, its vectors cannot either: compare `embed` with `raw`.
"""


def model_card(card: EncoderCard) -> str:
    """The card, in Markdown, of an encoder's saved config."""
    rows = [
        f"| {modality} | {tower.name} | {' x '.join(map(str, tower.shape))} | "
        f"{LICENCES.get(tower.name, 'see its source')} |"
        for modality, tower in card.towers.items()
    ]
    summary = {} if card.summary is None else card.summary.model_dump(by_alias=True, exclude_none=True)
    figures = [f"- {name.replace('_', ' ')}: {value:.4g}" for name, value in summary.items()]
    return CARD_TEMPLATE.format(
        modalities=", ".join(card.towers),
        dim=card.heads.dim,
        towers="\n".join(rows),
        figures="\n".join(figures) or "No figures were recorded.",
    )
