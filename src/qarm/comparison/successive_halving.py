"""Ranker settings by successive halving (Jamieson and Talwalkar, AISTATS 2016): one choice for all variants.

Every setting is tried for a few epochs, the best third for more, until one is left. A setting's figure is the
validation AUC, averaged over the variants that are searched for; the test is not looked at.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from qarm.config import RankerConfig

__all__ = ["GRID", "KEEP", "halved", "sampled", "with_setting"]

GRID: dict[str, tuple[float, ...]] = {
    "lr": (2e-3, 5e-3, 1e-2),
    "dropout": (0.1, 0.3, 0.5),
    "id_dropout": (0.1, 0.3, 0.5),
    "weight_decay": (0.01, 0.1, 0.3),
    "dim": (16, 32),
}
KEEP = 3  # one in three goes on, with three times the epochs
FIRST_EPOCHS = 2

Setting = dict[str, float]
Trial = Callable[[RankerConfig], Sequence[tuple[float, int]]]


def sampled(settings: RankerConfig, count: int, *, seed: int) -> list[Setting]:
    """`count` settings of the grid, all when it has fewer: the given one first, the others drawn."""
    own = {name: getattr(settings, name) for name in GRID}
    others = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
    others = [setting for setting in others if setting != own]
    order = np.random.default_rng([seed, 17]).permutation(len(others))
    return [own, *(others[place] for place in order[: count - 1])]


def halved(
    settings: RankerConfig, count: int, trial: Trial, *, seed: int
) -> tuple[RankerConfig, dict[str, Any]]:
    """The best of `count` settings, and what was tried.

    Args:
        settings: everything that the grid leaves alone; its own values are the first setting.
        trial: trains each variant that is searched for, and returns validation AUC and epochs of each.

    Returns:
        the chosen settings; `grid`, `variant_epochs` (trained in all) and `rounds`, each a list of
        `setting`, `epochs` allowed and `valid_auc`.
    """
    left, epochs, trained = sampled(settings, count, seed=seed), FIRST_EPOCHS, 0
    rounds: list[list[dict[str, Any]]] = []
    while len(left) > 1:
        epochs = settings.epochs if len(left) <= KEEP else min(epochs, settings.epochs)
        lines: list[dict[str, Any]] = []
        for setting in left:
            trials = trial(with_setting(settings, {**setting, "epochs": epochs}))
            trained += sum(spent for _, spent in trials)
            reached = float(np.mean([auc for auc, _ in trials]))
            lines.append({"setting": setting, "epochs": epochs, "valid_auc": reached})
        lines.sort(key=lambda line: -line["valid_auc"])
        rounds.append(lines)
        left = [line["setting"] for line in lines[: max(1, len(lines) // KEEP)]]
        epochs *= KEEP
    grid = {name: list(values) for name, values in GRID.items()}
    found = {"grid": grid, "chosen": left[0], "variant_epochs": trained, "rounds": rounds}
    return with_setting(settings, left[0]), found


def with_setting(settings: RankerConfig, setting: Setting) -> RankerConfig:
    """Settings with some values changed."""
    values = {name: type(getattr(settings, name))(value) for name, value in setting.items()}
    return settings.model_copy(update=values)
