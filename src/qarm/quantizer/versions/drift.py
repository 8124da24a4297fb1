"""Drift: codes of new items against those of fit time."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.errors import InputError
from qarm.quantizer.evaluation.residual_energy import Decoder, residual_energies
from qarm.schemas.codes import Drift, DriftLevel, Profile, ProfileLevel

__all__ = ["THRESHOLDS", "fit_profile", "monitor"]

THRESHOLDS = {"stability_excess": 0.25, "energy_ratio": 1.25, "hottest_ratio": 3.0}
_DRAWS, _HALF = 50, 0.5

Counts = npt.NDArray[np.int64]


def fit_profile(embeddings: Embeddings, codes: Codes, quantizer: Decoder) -> Profile:
    """Profile of the items that the codebooks were fitted on, which `monitor` compares with.

    `items`; per level `counts`, items of each code, and `energy_left`, the squared length of what the
    levels so far leave, over that of the vectors.

    Args:
        embeddings: n vectors.
        codes: of the same items in the same order.
        quantizer: that made the codes.

    Raises:
        InputError: items differ, or there are none.
    """
    if codes.item_ids != embeddings.item_ids or not len(codes):
        raise InputError("embeddings and codes are not of the same items in the same order, 1 or more")
    left = residual_energies(embeddings.vectors, codes.rq, quantizer)
    counts = [
        np.bincount(codes.rq[:, level], minlength=width).tolist()
        for level, width in enumerate(quantizer.widths_)
    ]
    levels = [ProfileLevel(counts=c, energy_left=energy) for c, energy in zip(counts, left, strict=True)]
    return Profile(items=len(codes), levels=levels)


def monitor(profile: Profile, new: Profile, *, thresholds: Mapping[str, float] = THRESHOLDS) -> Drift:
    """Drift of new items since fit time.

    Figures, per level: `stability_index`, the sum of (p - q) ln(p / q) over the shares p of new items and
    q at fit time of each code (the population stability index); `chance`, its mean over 50 samples of as many
    items drawn as at fit time; `stability_excess`, the difference, below 0.1 taken as stable and above 0.25
    as shifted; `energy_left` now and `energy_left_at_fit`, with their `energy_ratio`; `hottest`, the share of
    the code with most new items, `hottest_code`, `hottest_at_fit`, the share of the hottest code then, and
    `hottest_ratio`, of the former to the highest share of a code in those samples, so that few items raise
    no alarm.

    Args:
        profile: of fit time, by `fit_profile`.
        new: of new items, by `fit_profile` too.
        thresholds: the highest stability_excess, energy_ratio and hottest_ratio that pass.

    Raises:
        InputError: a threshold has another name, or the profiles are of different codebooks.
    """
    unknown = sorted(set(thresholds) - set(THRESHOLDS))
    if unknown:
        raise InputError(f"got thresholds {', '.join(unknown)}, need some of {', '.join(THRESHOLDS)}")
    widths = [[len(level.counts) for level in side.levels] for side in (profile, new)]
    if widths[0] != widths[1]:
        raise InputError(f"profiles are of widths {widths[0]} and {widths[1]}; give those of one quantiser")
    levels: list[DriftLevel] = []
    exceeded: list[str] = []
    for number, (then, now) in enumerate(zip(profile.levels, new.levels, strict=True), start=1):
        level = _compared(number, then, now)
        levels.append(level)
        exceeded.extend(
            f"level {number}: {name} is {getattr(level, name):.3g}, at most {limit:g} passes"
            for name, limit in thresholds.items()
            if getattr(level, name) > limit
        )
    return Drift(items=new.items, items_at_fit=profile.items, levels=levels, exceeded=exceeded)


def _compared(number: int, then: ProfileLevel, now: ProfileLevel) -> DriftLevel:
    old, new = (np.array(side.counts, dtype=np.int64) for side in (then, now))
    shares = (old + _HALF) / (old + _HALF).sum()
    draws = np.random.default_rng(0).multinomial(int(new.sum()), shares, size=_DRAWS)
    # with about as many codes as items the index is large without any shift
    index, chance = _index(shares, new), float(np.mean([_index(shares, drawn) for drawn in draws]))
    before, after = then.energy_left, now.energy_left
    return DriftLevel(
        level=number,
        stability_index=index,
        chance=chance,
        stability_excess=index - chance,
        energy_left=after,
        energy_left_at_fit=before,
        energy_ratio=after / before if before > 0.0 else 1.0 + after,
        hottest=float(new.max() / new.sum()),
        hottest_code=int(new.argmax()),
        hottest_at_fit=float(old.max() / old.sum()),
        hottest_ratio=float(new.max() / draws.max()),
    )


def _index(shares: npt.NDArray[np.float64], counts: Counts) -> float:
    """Half an item is added to every code, so that one without items has a logarithm."""
    here = (counts + _HALF) / (counts + _HALF).sum()
    return float(((here - shares) * np.log(here / shares)).sum())
