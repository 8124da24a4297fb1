"""Anchors of the retrieval tables that are no parts of the blend: popularity of late, and EASE."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from qarm.recommender.retrieval.counting import Ease, Popularity
from qarm.recommender.retrieval.evaluation import mean_ndcg
from qarm.recommender.retrieval.fitting import Validation
from qarm.recommender.retrieval.histories import Histories

__all__ = ["EASE_ITEMS", "Score", "anchors", "best_ease"]

Score = Callable[[Histories], npt.NDArray[np.float32]]
EASE_ITEMS = 5000  # a larger matrix takes minutes
REGULARIZATIONS = (50.0, 500.0)  # of EASE, on the scale of an item's users
USERS = 2000  # of validation, by whom it is chosen


def anchors(
    train: Histories, recent: npt.NDArray[np.int64], validation: Validation, *, seed: int
) -> dict[str, Score]:
    """Scorers of histories by name; EASE for at most 5,000 items.

    Args:
        train: the training part. recent: its latest events of each item, int64 [items].
        validation: chooses the regularisation; seed: of its sample of users.
    """
    found: dict[str, Score] = {"popularity of late": Popularity(recent).scores}
    if len(recent) <= EASE_ITEMS and len(train.items):
        found["ease"] = best_ease(train, validation, seed=seed).scores
    return found


def best_ease(train: Histories, validation: Validation, *, seed: int) -> Ease:
    """EASE with the regularisation of the highest NDCG at 10 on validation."""
    items, sample = len(validation.cold), validation.sample(USERS, seed=seed)
    fitted = (Ease.of(train, items, regularization=amount) for amount in REGULARIZATIONS)
    return max(fitted, key=lambda ease: mean_ndcg(ease.scores, sample.histories, sample.targets))
