"""Coder of new items, from the frozen encoder, codebooks and pool of a run or a bundle."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qarm.config import saved_config
from qarm.core.atomic_io import digest
from qarm.core.consistent_read import read_consistently
from qarm.core.paths import as_path
from qarm.core.run_folder import read_manifest, verify
from qarm.data.catalog import Catalog, read_catalog
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.media import check_media
from qarm.encoder.embed import embed
from qarm.encoder.encoder import Encoder
from qarm.encoder.towers.checkpoint import Checkpoint
from qarm.errors import ArtifactError, InputError, shown
from qarm.quantizer.base import Quantizer
from qarm.quantizer.factory import load_quantizer
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.versions.archive import current_version
from qarm.schemas.base import Manifest

__all__ = ["STAGES", "Coder", "encode", "finished_codes", "new_items", "new_vectors", "outdated_stages"]

LOG = logging.getLogger("qarm.media")
VECTORS = "embeddings/embeddings.parquet"
STAGES = ("encoder", "embeddings", "codes")  # whose folders a coder is read from, or that lead there


@dataclass(frozen=True)
class Coder:
    """What turns items into codes; version: of the codebooks."""

    encoder: Encoder
    books: Quantizer
    nearest: NearestCodes
    version: int

    @classmethod
    def read(cls, folder: Path) -> "Coder":
        """From a run or a bundle: both hold `encoder/` and `codes/`."""
        codes = folder / "codes"
        return cls(
            Encoder.from_pretrained(folder / "encoder"),
            load_quantizer(codes / "quantizer"),
            NearestCodes.from_pretrained(codes / "nearest"),
            current_version(codes),
        )

    def loaded(self) -> "Coder":
        """This coder with its towers' networks in memory; from then on no file is read."""
        for tower in self.encoder.towers.values():
            if isinstance(tower, Checkpoint):
                tower.model  # noqa: B018 - loaded once, then kept
        return self

    def code(self, catalog: Catalog, *, new: bool = False) -> tuple[Embeddings, Codes]:
        """Aligned vectors and codes of items; an item's do not depend on the items beside it.

        Args:
            catalog: the items.
            new: whether none of them is one of the training, whatever their ids.

        Raises:
            InputError: items without any of the encoder's modalities, pictures or sounds that cannot be read.
        """
        vectors = self.encoder.embed(catalog, new=True) if new else embed(self.encoder, catalog)
        codes = Codes(
            vectors.item_ids, self.books.transform(vectors), self.nearest.codes(vectors), self.version
        )
        return vectors, codes


def encode(run: Path, table: Path, *, allow_unreadable: bool = False) -> Codes:
    """Codes of new items (QARM, section 3.2: coded at upload, before anyone has touched them).

    Args:
        run: a run folder whose `quantize` stage has finished.
        table: items, with the columns that the run's config names.
        allow_unreadable: code items without their media that cannot be read, which changes their codes.

    Raises:
        InputError: the table is wrong.
        ArtifactError: the run has not got so far.
    """
    manifest, coder = _read(as_path(run))
    return coder.code(new_items(table, manifest, allow_unreadable=allow_unreadable))[1]


def new_vectors(run: Path, table: Path) -> Embeddings:
    """Vectors of new items by the run's encoder; media that cannot be read are left out.

    Raises:
        InputError: the table is wrong.
        ArtifactError: the run has not got so far, or a file of it was changed.
    """
    manifest, coder = _read(as_path(run))
    return embed(coder.encoder, new_items(table, manifest, allow_unreadable=True))


def _read(run: Path) -> tuple[Manifest, Coder]:
    """The manifest of the codes, and a coder of the same version."""
    return read_consistently(run, STAGES, lambda: (finished_codes(run), Coder.read(run).loaded()))


def finished_codes(run: Path) -> Manifest:
    """The manifest of a run's codes, whose files are as they were left and made by the encoder that is there.

    Raises:
        ArtifactError: there are none, a file was changed, or an earlier stage has run again since.
    """
    manifest = read_manifest(run / "codes")
    if manifest is None:
        raise ArtifactError(f"{run} has no finished codes; run: qarm quantize CONFIG --out {run}")
    verify(run / "codes")
    manifests = {stage: made for stage in STAGES if (made := read_manifest(run / stage)) is not None}
    if stale := outdated_stages(manifests):
        raise ArtifactError(
            f"{run}: {shown(stale)} were made from earlier files; finish what was begun: "
            f"qarm quantize CONFIG --out {run}"
        )
    return manifest


def outdated_stages(manifests: Mapping[str, Manifest]) -> list[str]:
    """Stages that were made from an encoder or vectors other than are there now."""
    made_from = (
        ("embeddings", "encoder/", "encoder"),
        ("codes", VECTORS, "embeddings"),
        ("retriever", VECTORS, "embeddings"),
    )
    return [
        stage
        for stage, name, source in made_from
        if {stage, source} <= manifests.keys()
        and manifests[stage].inputs[name] != _hash_of(manifests[source], name)
    ]


def _hash_of(manifest: Manifest, name: str) -> str:
    """Hash of a stage's file, or of all of them, as it counts as an input."""
    file = name.partition("/")[2]
    return manifest.outputs[file] if file else digest(manifest.outputs)


def new_items(table: Path, manifest: Manifest, *, allow_unreadable: bool = False) -> Catalog:
    """New items, by the columns that the run's config names.

    Args:
        manifest: of the run's codes.
        allow_unreadable: leave media out that cannot be read.

    Raises:
        InputError: the table is wrong, or media cannot be read.
    """
    columns = saved_config(manifest.config).data.items.content
    catalog = read_catalog(table, **columns)
    found = check_media(catalog)
    bad = found.images | found.sounds
    if bad and allow_unreadable:
        LOG.warning("%s items are coded without media that cannot be read:", f"{len(bad):,}")
        for kind, lost in (("picture", found.images), ("sound", found.sounds)):
            for item, reason in lost.items():
                LOG.warning("  %s, %s: %s", item, kind, reason)
    elif bad:
        raise InputError(
            f"{len(bad):,} of {len(catalog):,} items have media that cannot be read, and would get "
            f"other codes without them: {shown([f'{item!r}: {why}' for item, why in bad.items()], first=5)}; "
            "put the files back, or give --allow-unreadable"
        )
    return catalog.without_media(images=found.images, sounds=found.sounds, numbers=found.numbers)
