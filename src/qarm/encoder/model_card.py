"""The model card that is saved beside an encoder."""

from collections.abc import Mapping
from typing import Any

__all__ = ["model_card"]

LICENCES = {"all-minilm-l6-v2": "Apache-2.0", "efficientnet-lite0": "Apache-2.0", "logmel": "no weights"}

CARD = """---
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


def model_card(config: Mapping[str, Any]) -> str:
    """The card, in Markdown, of an encoder's saved config."""
    rows = [
        f"| {modality} | {entry['name']} | {' x '.join(map(str, entry['shape']))} | "
        f"{LICENCES.get(entry['name'], 'see its source')} |"
        for modality, entry in config["towers"].items()
    ]
    known = {name: value for name, value in config["summary"].items() if value is not None}
    figures = [f"- {name.replace('_', ' ')}: {value:.4g}" for name, value in known.items()]
    return CARD.format(
        modalities=", ".join(config["towers"]),
        dim=config["heads"]["dim"],
        towers="\n".join(rows),
        figures="\n".join(figures) or "No figures were recorded.",
    )
