"""Provenance of each figure: the stages' manifests, with the hash of every file read and written."""

from pathlib import Path
from typing import NamedTuple

from qarm.core.run_folder import read_manifest
from qarm.report.tables import leaves, named_figures

__all__ = ["DID", "ORDER", "StageProvenance", "stages_done"]

DID = {
    "check": "Read the tables and decoded every picture and sound.",
    "pairs": "Mined pairs of items that behave alike, from the training part of the log.",
    "encoder": "Aligned the encoder with those pairs (batch-contrastive).",
    "embeddings": "Gave every item a vector before and after alignment, and judged both on later clicks.",
    "codes": "Fitted the codebooks on items of the training part, and coded every item.",
    "retriever": "Fitted the retrievers over the whole catalogue, and judged them on the test part.",
    "recommender": "Trained the ranker's variants, and judged them on the test part.",
}
ORDER = tuple(DID)


class StageProvenance(NamedTuple):
    """A finished stage: its folder, what it did, its row counts, settings, and hashes of inputs and files."""

    folder: str
    did: str
    rows: list[tuple[str, str]]
    config: list[tuple[str, str]]
    inputs: list[tuple[str, str]]
    files: list[tuple[str, str]]


def stages_done(run: Path) -> list[StageProvenance]:
    """Provenance of each finished stage, in the order in which they run."""
    manifests = ((folder, read_manifest(run / folder)) for folder in ORDER)
    return [
        StageProvenance(
            folder=folder,
            did=DID[folder],
            rows=named_figures(manifest.rows),
            config=leaves(manifest.config),
            inputs=sorted(manifest.inputs.items()),
            files=sorted(manifest.outputs.items()),
        )
        for folder, manifest in manifests
        if manifest is not None
    ]
