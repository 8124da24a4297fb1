"""Codes of a whole run: codebooks and pool fitted on its known items; what was appended keeps a code."""

from collections.abc import Callable
from pathlib import Path

from qarm.core.atomic_io import sha256_file, write_json
from qarm.core.run_folder import read_manifest, verify
from qarm.core.tables.parquet import read_parquet
from qarm.data.embeddings import Embeddings
from qarm.data.run_inputs import Run
from qarm.errors import InputError, shown
from qarm.quantizer.evaluation.quality import code_quality
from qarm.quantizer.factory import all_codes, new_quantizer
from qarm.quantizer.knn_codes import NearestCodes
from qarm.quantizer.versions import archive
from qarm.schemas.base import Figure

__all__ = ["check_appended", "fit_codes"]

VECTORS = "embeddings/embeddings.parquet"


def fit_codes(run: Run, work: Path) -> dict[str, Figure]:
    """The files of a new version of a run's codes in `work`, and its figures.

    Earlier versions are archived. Items that were appended to them, and are not in the catalogue, are coded
    too, as long as the encoder is the one that gave them their vectors.

    Raises:
        InputError: appended items would be lost, or the settings do not fit the items.
        ArtifactError: the codes that are there are damaged.
    """
    settings, seed, codes_folder = run.config.quantizer, run.config.seed, run.folder / "codes"
    vectors, known_ids = Embeddings.read(run.folder / VECTORS), run.known.item_ids
    known = Embeddings(known_ids, vectors.rows(known_ids))
    appended, version = Embeddings([], vectors.vectors[:0]), 1
    if (codes_folder / archive.CODES).is_file():
        verify(codes_folder)
        appended = _appended(run)
        version = archive.archive(codes_folder, work)
    everything = archive.joined(vectors, appended)
    books = new_quantizer(settings, len(known), seed=seed).fit(known)
    nearest = NearestCodes(settings.nearest, pool=settings.pool, index=settings.index, seed=seed).fit(known)
    codes = all_codes(everything, known_ids, books, nearest, collisions=settings.collisions, version=version)
    archive.write_codes(work, codes, books, nearest, known=known)
    if len(appended):
        archive.write_appended(work, appended, archive.requests(codes_folder))
    pairs = read_parquet(run.folder / "pairs" / "pairs.parquet")
    quality = code_quality(everything, codes, books, pairs=pairs, seed=seed)
    write_json(work / "quality.json", quality)
    shared = quality.full_codes.collision_rate
    return {"items": len(codes), "width": books.widths_, "collision_rate": shared}


def check_appended(run: Run, changing: Callable[[], str | None]) -> None:
    """Check, before a run makes its vectors anew, that no appended item would be left without a code.

    Args:
        run: its tables are read.
        changing: finds the first stage up to the vectors that will run again, None where none will.

    Raises:
        InputError: there are appended items that the catalogue lacks.
    """
    lost = _not_in_catalogue(run)
    if lost and (stage := changing()):
        raise _lost(run, lost, f"{stage} would run again")


def _not_in_catalogue(run: Run) -> list[str]:
    known = set(run.tables[0].item_ids)
    return [item for item in archive.appended_ids(run.folder / "codes") if item not in known]


def _appended(run: Run) -> Embeddings:
    """Vectors of the appended items that the catalogue lacks."""
    lost = _not_in_catalogue(run)
    if not lost:
        return Embeddings([], archive.appended(run.folder / "codes").vectors[:0])
    manifest = read_manifest(run.folder / "codes")
    if manifest is None or manifest.inputs[VECTORS] != sha256_file(run.folder / VECTORS):
        raise _lost(run, lost, "the vectors of all items are other ones now")
    return Embeddings(lost, archive.appended(run.folder / "codes").rows(lost))


def _lost(run: Run, items: list[str], reason: str) -> InputError:
    return InputError(
        f"{run.folder} has codes of {len(items):,} appended items ({shown(items)}) that "
        f"{run.config.items_path} lacks; {reason}, and they would have none; "
        "add them to that table, or give another --out"
    )
