"""Where each figure comes from: the stages' manifests, with the hash of every file read and left."""

from pathlib import Path
from typing import Any

from qarm.core.run_folder import read_manifest
from qarm.report.lines import leaves

__all__ = ["DID", "ORDER", "stages_done"]

DID = {
    "check": "Read the tables and decoded every picture and sound.",
    "pairs": "Mined pairs of items that behave alike, from the training part of the log.",
    "encoder": "Aligned the encoder with those pairs (batch-contrastive).",
    "embeddings": "Gave every item a vector before and after alignment, and judged both on later clicks.",
    "codes": "Fitted the codebooks on items of the training part, and coded every item.",
    "recommender": "Trained the ranker's variants, and judged them on the test part.",
}
ORDER = tuple(DID)


def stages_done(run: Path) -> list[dict[str, Any]]:
    """What each finished stage says of itself, in the order of the story.

    Returns:
        `folder`, `did`, `rows` and `config` (lines of names and values), `inputs` and `files` (lines of
        names and SHA-256).
    """
    found = ((folder, read_manifest(run / folder)) for folder in ORDER)
    return [
        {
            "folder": folder,
            "did": DID[folder],
            "rows": leaves(manifest.rows),
            "config": leaves(manifest.config),
            "inputs": sorted(manifest.inputs.items()),
            "files": sorted(manifest.outputs.items()),
        }
        for folder, manifest in found
        if manifest is not None
    ]
