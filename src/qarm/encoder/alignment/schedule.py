"""Learning-rate schedule: a linear warm-up, then a cosine, a line, or no decay."""

import math
from typing import Literal

__all__ = ["Schedule", "rate_share"]

Schedule = Literal["cosine", "linear", "constant"]


def rate_share(step: int, steps: int, *, warm_up: int, schedule: Schedule = "cosine") -> float:
    """Share of the highest learning rate at a step, 0 from `steps` on unless it is constant.

    Args:
        step: from 0. steps: of the whole training. warm_up: steps in which the rate rises, at least 1.
    """
    if step < warm_up:
        return (step + 1) / warm_up
    left = min(1.0, (step - warm_up) / max(1, steps - warm_up))
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * left))
    return 1 - left if schedule == "linear" else 1.0
