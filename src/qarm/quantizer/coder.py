"""Coder of new items, from the frozen encoder, codebooks and pool of a run or a bundle."""

from dataclasses import dataclass
from pathlib import Path

from qarm.config import saved_config
from qarm.core.run_folder import read_manifest, verify
from qarm.data.catalog import Catalog, read_catalog
from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.media import check_media
from qarm.encoder.embed import embed
from qarm.encoder.encoder import Encoder
from qarm.errors import ArtifactError
from qarm.quantizer.base import Quantizer
from qarm.quantizer.factory import load_quantizer
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.versions.archive import current_version

__all__ = ["Coder", "encode", "new_vectors"]


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

    def code(self, catalog: Catalog) -> tuple[Embeddings, Codes]:
        """Aligned vectors and codes of items; an item's do not depend on the items beside it.

        Raises:
            InputError: items without any of the encoder's modalities, pictures or sounds that cannot be read.
        """
        vectors = embed(self.encoder, catalog)
        codes = Codes(
            vectors.item_ids, self.books.transform(vectors), self.nearest.codes(vectors), self.version
        )
        return vectors, codes


def encode(run: Path, table: Path) -> Codes:
    """Codes of new items (QARM, section 3.2: coded at upload, before anyone has touched them).

    Args:
        run: a run folder whose `quantize` stage has finished.
        table: items, with the columns that the run's config names.

    Raises:
        InputError: the table is wrong.
        ArtifactError: the run has not got so far.
    """
    catalog = _new_items(run, table)
    return Coder.read(run).code(catalog)[1]


def new_vectors(run: Path, table: Path) -> Embeddings:
    """Vectors of new items by the run's encoder; media that cannot be read are left out.

    Raises:
        InputError: the table is wrong.
        ArtifactError: the run has not got so far, or a file of it was changed.
    """
    catalog = _new_items(run, table)
    return embed(Encoder.from_pretrained(run / "encoder"), catalog)


def _new_items(run: Path, table: Path) -> Catalog:
    manifest = read_manifest(run / "codes")
    if manifest is None:
        raise ArtifactError(f"{run} has no finished codes; run: qarm quantize CONFIG --out {run}")
    verify(run / "codes")
    columns = saved_config(manifest.config).data.items.model_dump(include={"id", "text", "image", "audio"})
    catalog = read_catalog(table, **columns)
    found = check_media(catalog)
    return catalog.without_media(images=list(found.images), sounds=list(found.sounds))
