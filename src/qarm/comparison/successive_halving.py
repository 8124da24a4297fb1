"""Successive halving of ranker settings (Jamieson and Talwalkar, AISTATS 2016), for a family of variants.

Every setting is trained for a few epochs, the best third for more, until one is left. A setting is rated by
the validation figure, averaged over the variants that are searched for; the test rows are not used.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from qarm.config import RankerConfig
from qarm.schemas.comparison import Rung, Searched, Setting

__all__ = [
    "FIRST_EPOCHS",
    "GRID",
    "KEEP",
    "Grid",
    "apply_setting",
    "grid_of",
    "sample_settings",
    "search_settings",
]

Grid = dict[str, tuple[int | float, ...]]

FIRST_GRID: Grid = {  # of the protocol's first edition, one for all variants
    "lr": (2e-3, 5e-3, 1e-2),
    "dropout": (0.1, 0.3, 0.5),
    "id_dropout": (0.1, 0.3, 0.5),
    "weight_decay": (0.01, 0.1, 0.3),
    "dim": (16, 32),
}
GRID: Grid = {
    "lr": (1e-3, 2e-3, 5e-3, 1e-2, 2e-2),
    "dropout": (0.0, 0.1, 0.3, 0.5, 0.7),
    "weight_decay": (0.01, 0.1, 1.0),
    "bias_decay": (0.01, 0.1, 1.0, 10.0),
    "dim": (8, 16, 32, 64),
}
OF_IDS: Grid = {"id_dropout": (0.05, 0.1, 0.3, 0.5, 0.7), "id_decay": (0.01, 0.1, 1.0, 10.0)}
OF_CODES: Grid = {"code_decay": (0.01, 0.1, 1.0, 10.0)}
KEEP = 3  # one in three is kept, with three times the epochs
FIRST_EPOCHS = {1: 2, 2: 6}  # by edition: two epochs rank settings by their learning rate

Trial = Callable[[RankerConfig], Sequence[tuple[float, int]]]


def grid_of(family: str, *, edition: int = 2) -> Grid:
    """The grid of a family: what only ids or only codes read is left out where there are none."""
    if edition == 1:
        return FIRST_GRID
    ids, codes = OF_IDS if family != "id-free" else {}, OF_CODES if family not in ("id", "id+vector") else {}
    return GRID | ids | codes


def sample_settings(settings: RankerConfig, grid: Grid, count: int, *, seed: int) -> list[Setting]:
    """`count` settings of the grid, all when it has fewer: the given one first, the others drawn."""
    given = {name: _value(settings, name) for name in grid}
    others = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    others = [setting for setting in others if setting != given]
    order = np.random.default_rng([seed, 17]).permutation(len(others))
    return [given, *(others[row] for row in order[: count - 1])]


def _value(settings: RankerConfig, name: str) -> int | float:
    """A setting's value; a decay that is not given is `weight_decay`."""
    value: int | float | None = getattr(settings, name)
    return settings.weight_decay if value is None else value


def search_settings(
    settings: RankerConfig,
    count: int,
    trial: Trial,
    *,
    seed: int,
    grid: Grid = GRID,
    first: int = FIRST_EPOCHS[2],
) -> tuple[RankerConfig, Searched]:
    """The best of `count` settings, and every setting that was tried.

    Args:
        settings: values outside the grid; its values in the grid are the first setting.
        trial: trains each variant that is searched for, and returns validation figure and epochs of each.
        first: epochs of the first round.
    """
    left, epochs, trained = sample_settings(settings, grid, count, seed=seed), first, 0
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
    values = {name: list(row) for name, row in grid.items()}
    searched = Searched(grid=values, chosen=left[0], variant_epochs=trained, rounds=rounds)
    return apply_setting(settings, left[0]), searched


def apply_setting(settings: RankerConfig, setting: Setting) -> RankerConfig:
    """Settings with the values of a setting."""
    return RankerConfig.model_validate(settings.model_dump() | setting)
