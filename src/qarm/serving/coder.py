"""Codes for new items, from the frozen encoder, codebooks and pool of a finished run."""

from pathlib import Path

from qarm.artifacts import Codes, Embeddings, read_manifest, verify
from qarm.content.catalog import read_catalog
from qarm.content.embed import embed
from qarm.content.encoder import Encoder
from qarm.content.media import check_media
from qarm.errors import ArtifactError
from qarm.quantizer.coding import load_quantizer
from qarm.quantizer.nearest import NearestCodes

__all__ = ["encode", "new_vectors"]


def encode(run: Path, table: Path) -> Codes:
    """Codes of new items (QARM, section 3.2: coded at upload, before anyone has touched them).

    Args:
        run: a run folder whose `quantize` stage has finished.
        table: items, with the columns that the run's config names.

    Raises:
        InputError: the table is wrong.
        ArtifactError: the run has not got so far.
    """
    vectors = new_vectors(run, table)
    version = Codes.read(run / "codes" / "codes.parquet").version
    books = load_quantizer(run / "codes" / "quantizer")
    nearest = NearestCodes.from_pretrained(run / "codes" / "nearest")
    return Codes(vectors.item_ids, books.transform(vectors), nearest.codes(vectors), version)


def new_vectors(run: Path, table: Path) -> Embeddings:
    """Vectors of new items by the run's encoder; media that cannot be read are left out.

    Raises:
        InputError: the table is wrong.
        ArtifactError: the run has not got so far, or a file of it was changed.
    """
    manifest = read_manifest(run / "codes")
    if manifest is None:
        raise ArtifactError(f"{run} has no finished codes; run: qarm quantize CONFIG --out {run}")
    verify(run / "codes")
    columns = {name: manifest["config"]["data"]["items"][name] for name in ("id", "text", "image", "audio")}
    catalog = read_catalog(table, **columns)
    found = check_media(catalog)
    catalog = catalog.without_media(images=list(found.images), sounds=list(found.sounds))
    return embed(Encoder.from_pretrained(run / "encoder"), catalog)
