"""Histogram of similarities by hand."""

import torch

from qarm.recommender.similarity_tiers import SimilarityTiers


def test_the_histogram_by_hand() -> None:
    """Cosines 1, 0 and -1 in four tiers; an event that is not seen counts nowhere."""
    candidates = torch.tensor([[[2.0, 0.0]]])
    history = torch.tensor([[[5.0, 0.0], [3.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]]])
    module = SimilarityTiers(4)
    with torch.no_grad():
        module.gain.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    histogram, logit = module(candidates, history, torch.tensor([[True, True, True, True, False]]))
    expected = torch.log1p(torch.tensor([1.0, 0.0, 1.0, 2.0]))
    torch.testing.assert_close(histogram[0, 0], expected)
    torch.testing.assert_close(logit[0, 0], expected @ module.gain)


def test_an_empty_history_has_an_empty_histogram() -> None:
    histogram, logit = SimilarityTiers(3)(
        torch.ones(1, 2, 4), torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=bool)
    )
    assert histogram.shape == (1, 2, 3)
    assert not histogram.any()
    assert logit.tolist() == [[0.0, 0.0]]
