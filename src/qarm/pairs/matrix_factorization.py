"""Matrix factorisation by ALS and by BPR: id models of the `implicit` package."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from qarm.config import User2ItemConfig
from qarm.errors import MissingExtraError

__all__ = ["factorized"]


def factorized(
    settings: User2ItemConfig,
    users: npt.NDArray[np.integer],
    items: npt.NDArray[np.int32],
    *,
    seed: int,
) -> npt.NDArray[np.float32]:
    """Item vectors, float32 [items, dim], from one thread, so that the same seed gives the same bytes.

    als: weighted squared errors, a repeated click weighs more (Hu, Koren and Volinsky 2008, "Collaborative
    Filtering for Implicit Feedback Datasets"); `lr` does not count. bpr: clicked before not clicked (Rendle
    et al. 2009, "BPR: Bayesian Personalized Ranking from Implicit Feedback"); the items' biases,
    which depend on popularity and not on similarity, are left out.

    Raises:
        MissingExtraError: `implicit` is not installed.
    """
    if find_spec("implicit") is None:
        raise MissingExtraError("implicit", "als")
    from scipy.sparse import coo_matrix

    limits = import_module("threadpoolctl").threadpool_limits
    clicks = coo_matrix((np.ones(len(items), dtype=np.float32), (users, items))).tocsr()
    with limits(1, "blas"):  # implicit warns of more
        fitted = _model(settings, seed)
        fitted.fit(clicks, show_progress=False)
    vectors: npt.NDArray[np.float32] = np.ascontiguousarray(fitted.item_factors[:, : settings.dim])
    return vectors


def _model(settings: User2ItemConfig, seed: int) -> Any:
    shared = {
        "factors": settings.dim,
        "iterations": settings.epochs,
        "num_threads": 1,
        "random_state": seed,
    }
    if settings.model == "als":
        return import_module("implicit.cpu.als").AlternatingLeastSquares(**shared)
    return import_module("implicit.cpu.bpr").BayesianPersonalizedRanking(learning_rate=settings.lr, **shared)
