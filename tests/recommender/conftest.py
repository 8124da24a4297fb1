"""A log whose users stay within one group of items, with codes and vectors that show the groups."""

from collections.abc import Callable

import numpy as np
import pytest

from qarm.data.codes import Codes
from qarm.data.embeddings import Embeddings
from qarm.data.interactions import Log

GROUPS, PER_GROUP, COLD = 4, 8, 2


@pytest.fixture(scope="session")
def toy(make_log: Callable[..., Log]) -> tuple[Log, Codes, Embeddings]:
    """32 users with 16 events each, nine in ten within the user's own group of items.

    The first code of an item is its group, and so is its nearest pool entry; the last two items of each
    group have no event before time 130 (of 160).
    """
    random = np.random.default_rng(0)
    ids = [f"g{group}-{place}" for group in range(GROUPS) for place in range(PER_GROUP)]
    group = np.repeat(np.arange(GROUPS), PER_GROUP)
    place = np.tile(np.arange(PER_GROUP), GROUPS)
    events = []
    for user in range(32):
        for step in range(16):
            time = 10 * step + user % 10
            open_to_all = (place < PER_GROUP - COLD) | (time >= 130)
            chance = np.where(group == user % GROUPS, 9.0, 1 / 3) * open_to_all
            item = random.choice(len(ids), p=chance / chance.sum())
            events.append((f"u{user:02d}", ids[item], time))
    rq = np.stack([group, place % 3], axis=1).astype(np.int32)
    vq = np.stack([group, 4 + random.integers(0, 6, len(ids))], axis=1).astype(np.int32)
    vectors = np.eye(GROUPS)[group] + 0.1 * random.normal(size=(len(ids), GROUPS))
    return make_log(events), Codes(ids, rq, vq), Embeddings(ids, vectors.astype(np.float32))
