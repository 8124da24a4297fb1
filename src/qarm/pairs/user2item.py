"""User2Item: an id model of users and items, and the past item it holds nearest to each click."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import polars as pl

from qarm.core.parallel.engine import EngineName
from qarm.data.interactions import Log
from qarm.errors import Problems
from qarm.pairs.matrix_factorization import factorized
from qarm.pairs.trigger_search import NONE, similar_triggers

__all__ = ["user2item"]

Model = Literal["two_tower", "als", "bpr"]


def user2item(
    log: Log,
    *,
    window: int = 50,
    model: Model = "two_tower",
    dim: int = 64,
    epochs: int = 10,
    batch: int = 1024,
    lr: float = 0.01,
    temperature: float = 0.2,
    max_steps: int = 20_000,
    seed: int = 0,
    engine: EngineName = "local",
) -> pl.DataFrame:
    """One (trigger, target) row for every positive click that has a past.

    An id model is trained on the clicks, so that a user's vector is nearer to those of items that she
    clicked than to others. The trigger of a click is then the item whose vector is nearest, by cosine,
    among the user's latest `window` distinct other items clicked strictly before it; `similar_triggers`
    says how ties and repetitions count. A user's first click, and those of the same moment, have no past
    and no row.

    Args:
        log: events; only positives count.
        window: past items that compete.
        model: "two_tower" (`qarm.pairs.two_tower`), or "als" or "bpr" of the package `implicit`
            (`qarm.pairs.matrix_factorization`).
        dim: numbers per vector.
        epochs: passes over the clicks.
        batch: clicks per step, each other's negatives; of two_tower.
        lr: step size, of Adam in two_tower and of gradient descent in bpr.
        temperature: divides the cosines before the softmax; of two_tower.
        max_steps: where training ends even if epochs are left; of two_tower. 20,000 steps of 1,024 clicks
            take minutes, and only logs of more than two million clicks have so many.
        seed: of the first vectors and of what is drawn.
        engine: "local", or "ray" to search triggers for buckets of users on a Ray cluster; the model trains
            here, and the bytes are the same.

    Returns:
        user_id str, trigger_id str, target_id str, score f32 (cosine), in the order of the log.

    Raises:
        InputError: an argument is out of range, or the log has no positive event.
        MissingExtraError: the model or the engine is not installed.
    """
    numbers = {"window": window, "dim": dim, "epochs": epochs, "batch": batch, "max_steps": max_steps}
    clicks = log.positives().frame
    _check(clicks, model, numbers, {"lr": lr, "temperature": temperature})
    item_ids = clicks["item_id"].unique().sort()
    users = clicks["user_id"].rle_id().to_numpy()
    items = clicks["item_id"].cast(pl.Enum(item_ids)).to_physical().to_numpy().astype(np.int32)
    if model == "two_tower":
        from qarm.pairs.two_tower import two_tower  # torch takes a second to import

        vectors = two_tower(
            users,
            items,
            dim=dim,
            epochs=epochs,
            batch=batch,
            lr=lr,
            temperature=temperature,
            max_steps=max_steps,
            seed=seed,
        )
    else:
        vectors = factorized(model, users, items, dim=dim, epochs=epochs, lr=lr, seed=seed)
    starts, times = np.concatenate(([0], np.cumsum(np.bincount(users)))), clicks["time"].to_numpy()
    triggers, scores = similar_triggers(
        vectors, items, starts=starts, times=times, window=window, engine=engine
    )
    kept = np.flatnonzero(triggers != NONE)
    columns = {
        "user_id": clicks["user_id"].gather(kept),
        "trigger_id": item_ids.gather(triggers[kept]),
        "target_id": clicks["item_id"].gather(kept),
        "score": scores[kept],
    }
    return pl.DataFrame(columns)


def _check(clicks: pl.DataFrame, model: str, counts: Mapping[str, int], sizes: Mapping[str, float]) -> None:
    problems = Problems()
    if model not in get_args(Model):
        problems.add(f"got model={model!r}, need one of {', '.join(get_args(Model))}")
    if not clicks.height:
        problems.add("the log has no positive event; check the label column")
    for name, count in counts.items():
        if count < 1:
            problems.add(f"got {name}={count}, need at least 1")
    for name, size in sizes.items():
        if not size > 0.0:
            problems.add(f"got {name}={size:g}, need more than 0")
    problems.raise_any()
