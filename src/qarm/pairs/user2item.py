"""User2Item pairs: for each click, the nearest of the user's earlier items in the space of an id model."""

import numpy as np
import polars as pl

from qarm.config import PairsConfig, User2ItemConfig
from qarm.config.sources import settings_with
from qarm.core.parallel.engine import EngineName
from qarm.data.interactions import Log
from qarm.errors import Problems
from qarm.pairs.matrix_factorization import factorized
from qarm.pairs.trigger_search import NONE, similar_triggers
from qarm.pairs.two_tower import two_tower

__all__ = ["user2item"]


def user2item(
    log: Log,
    settings: User2ItemConfig | None = None,
    *,
    window: int | None = None,
    seed: int = 0,
    engine: EngineName = "local",
    **changes: object,
) -> pl.DataFrame:
    """Pairs of trigger and target: a row for every positive click with earlier ones (QARM, section 3.1).

    An id model is trained on the clicks, so that a user's vector is nearer to those of clicked items
    than to others. The trigger of a click is then the item whose vector is nearest, by cosine,
    among the user's latest `window` distinct other items clicked strictly before it; `similar_triggers`
    explains ties and repetitions. A user's first click, and clicks at the same time, have no
    earlier item and no row.

    Args:
        log: events; only positives count.
        settings: of the id model; default: those of `User2ItemConfig`.
        window: earlier items that are compared; default: that of `PairsConfig`.
        seed: of the initial vectors and of the draws.
        engine: "local", or "ray" to search triggers for buckets of users on a Ray cluster; the model trains
            here, and the bytes are the same.
        changes: fields of `User2ItemConfig` in place of those of `settings`: `model`, "two_tower"
            (`qarm.pairs.two_tower`), or "als" or "bpr" of the package `implicit`
            (`qarm.pairs.matrix_factorization`); `dim`, numbers per vector; `epochs` over the clicks; of
            two_tower alone `batch`, clicks per step, `temperature`, which divides the
            cosines before the softmax, and `max_steps`, where training ends even if epochs are left; `lr`,
            step size of Adam in two_tower and of gradient descent in bpr.

    Returns:
        user_id str, trigger_id str, target_id str, score f32 (cosine), in the order of the log.

    Raises:
        InputError: a setting is out of range, or the log has no positive event.
        MissingExtraError: the model or the engine is not installed.
    """
    problems, clicks = Problems(), log.positives().frame
    if not clicks.height:
        problems.add("the log has no positive event; check the label column")
    latest = settings_with(PairsConfig(), {} if window is None else {"window": window}, problems=problems)
    chosen = settings_with(settings or User2ItemConfig(), changes, problems=problems)
    problems.raise_any()
    item_ids = clicks["item_id"].unique().sort()
    users = clicks["user_id"].rle_id().to_numpy()
    items = clicks["item_id"].cast(pl.Enum(item_ids)).to_physical().to_numpy().astype(np.int32)
    if chosen.model == "two_tower":
        vectors = two_tower(users, items, chosen, seed=seed)
    else:
        vectors = factorized(chosen, users, items, seed=seed)
    starts, times = np.concatenate(([0], np.cumsum(np.bincount(users)))), clicks["time"].to_numpy()
    triggers, scores = similar_triggers(
        vectors, items, starts=starts, times=times, window=latest.window, engine=engine
    )
    kept = np.flatnonzero(triggers != NONE)
    columns = {
        "user_id": clicks["user_id"].gather(kept),
        "trigger_id": item_ids.gather(triggers[kept]),
        "target_id": clicks["item_id"].gather(kept),
        "score": scores[kept],
    }
    return pl.DataFrame(columns)
