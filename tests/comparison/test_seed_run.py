"""Correction of logits for popular negatives, by hand."""

import numpy as np

from qarm.comparison.seed_run import log_q


def test_log_q_by_hand() -> None:
    """Chances 1/2 and 1/4, 1/4 of three items against 1/3; an unknown item has their mean by events."""
    found = log_q(np.array([4, 2, 0, 2]))
    known = np.log([1.5, 0.75, 0.75])
    np.testing.assert_allclose(found[[0, 1, 3]], known, rtol=1e-6)
    np.testing.assert_allclose(found[2], (known[0] * 4 + known[1] * 4) / 8, rtol=1e-6)


def test_logits_of_uniform_negatives_become_those_of_popular_ones() -> None:
    """Odds of a positive against negatives of chance q are p / q; with uniform ones they are p * items."""
    p, counts = np.array([0.5, 0.3, 0.2]), np.array([70, 20, 10])
    corrected = np.log(p * 3) - log_q(counts)
    np.testing.assert_allclose(corrected, np.log(p / (counts / 100)), rtol=1e-5)
