"""Model card: the Markdown page that is saved beside an encoder."""

from qarm.schemas.encoder import EncoderCard

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


def model_card(card: EncoderCard) -> str:
    """The card, in Markdown, of an encoder's saved config."""
    rows = [
        f"| {modality} | {tower.name} | {' x '.join(map(str, tower.shape))} | "
        f"{LICENCES.get(tower.name, 'see its source')} |"
        for modality, tower in card.towers.items()
    ]
    summary = {} if card.summary is None else card.summary.model_dump(by_alias=True, exclude_none=True)
    figures = [f"- {name.replace('_', ' ')}: {value:.4g}" for name, value in summary.items()]
    return CARD.format(
        modalities=", ".join(card.towers),
        dim=card.heads.dim,
        towers="\n".join(rows),
        figures="\n".join(figures) or "No figures were recorded.",
    )
