"""Stage `retrieve`: which items validation treats as cold."""

import numpy as np
import pytest

from qarm.recommender.retrieval.retrieve import MOST_COLD, _drawn_cold


@pytest.mark.parametrize(
    ("cold", "share", "drawn"),
    [
        (0, 0.05, 50),  # a catalogue without cold items: as asked
        (200, 0.05, 1000 / 6),  # a sixth of the catalogue is cold, so a sixth of the warm items is drawn
        (200, 0.3, 300),  # more is asked for
        (9000, 0.05, MOST_COLD * 1000),
        (200, 0.0, 0),
    ],
)
def test_validation_has_the_catalogue_s_share_of_cold_items(cold: int, share: float, drawn: float) -> None:
    counts = np.concatenate([np.zeros(cold, np.int64), np.arange(1, 1001)])
    rows = _drawn_cold(counts, share, seed=0)
    assert len(rows) == round(drawn)
    assert len(np.unique(rows)) == len(rows)
    assert (counts[rows] > 0).all()


def test_few_items_are_not_drawn() -> None:
    assert not len(_drawn_cold(np.ones(100, np.int64), 0.05, seed=0))
