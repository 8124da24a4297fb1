"""Successive halving of ranker settings (Jamieson and Talwalkar, AISTATS 2016): one choice for all variants.

Every setting is trained for a few epochs, the best third for more, until one is left. A setting is rated by
the validation AUC, averaged over the variants that are searched for; the test rows are not used.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from qarm.config import RankerConfig
from qarm.schemas.comparison import Rung, Searched, Setting

__all__ = ["GRID", "KEEP", "apply_setting", "sample_settings", "search_settings"]

GRID: dict[str, tuple[int | float, ...]] = {
    "lr": (2e-3, 5e-3, 1e-2),
    "dropout": (0.1, 0.3, 0.5),
    "id_dropout": (0.1, 0.3, 0.5),
    "weight_decay": (0.01, 0.1, 0.3),
    "dim": (16, 32),
}
KEEP = 3  # one in three is kept, with three times the epochs
FIRST_EPOCHS = 2

Trial = Callable[[RankerConfig], Sequence[tuple[float, int]]]


def sample_settings(settings: RankerConfig, count: int, *, seed: int) -> list[Setting]:
    """`count` settings of the grid, all when it has fewer: the given one first, the others drawn."""
    given = {name: getattr(settings, name) for name in GRID}
    others = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
    others = [setting for setting in others if setting != given]
    order = np.random.default_rng([seed, 17]).permutation(len(others))
    return [given, *(others[row] for row in order[: count - 1])]


def search_settings(
    settings: RankerConfig, count: int, trial: Trial, *, seed: int
) -> tuple[RankerConfig, Searched]:
    """The best of `count` settings, and every setting that was tried.

    Args:
        settings: values outside the grid; its values in the grid are the first setting.
        trial: trains each variant that is searched for, and returns validation AUC and epochs of each.
    """
    left, epochs, trained = sample_settings(settings, count, seed=seed), FIRST_EPOCHS, 0
    rounds: list[list[Rung]] = []
    while len(left) > 1:
        epochs = settings.epochs if len(left) <= KEEP else min(epochs, settings.epochs)
        rungs: list[Rung] = []
        for setting in left:
            trials = trial(apply_setting(settings, {**setting, "epochs": epochs}))
            trained += sum(spent for _, spent in trials)
            reached = float(np.mean([auc for auc, _ in trials]))
            rungs.append(Rung(setting=setting, epochs=epochs, valid_auc=reached))
        rungs.sort(key=lambda rung: -rung.valid_auc)
        rounds.append(rungs)
        left = [rung.setting for rung in rungs[: max(1, len(rungs) // KEEP)]]
        epochs *= KEEP
    grid = {name: list(values) for name, values in GRID.items()}
    searched = Searched(grid=grid, chosen=left[0], variant_epochs=trained, rounds=rounds)
    return apply_setting(settings, left[0]), searched


def apply_setting(settings: RankerConfig, setting: Setting) -> RankerConfig:
    """Settings with the values of a setting."""
    values = {name: type(getattr(settings, name))(value) for name, value in setting.items()}
    return settings.model_copy(update=values)
