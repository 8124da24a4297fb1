"""Placebo codes and frequency groups by hand."""

import numpy as np
import polars as pl

from qarm.comparison.code_sources import permute_codes, training_frequency_groups
from qarm.data.codes import Codes
from qarm.data.interactions import Log


def test_the_placebo_deals_codes_out_anew_within_groups() -> None:
    random = np.random.default_rng(0)
    ids = [f"i{n:03d}" for n in range(200)]
    codes = Codes(ids, random.integers(0, 9, (200, 2)).astype(np.int32), random.integers(0, 9, (200, 3)))
    groups = random.integers(0, 4, 200)
    found = permute_codes(codes, groups, seed=1)
    assert (found.rq != codes.rq).any(axis=1).mean() > 0.5
    assert found.vq is not None
    assert codes.vq is not None
    for group in range(4):
        rows = [
            sorted(map(tuple, np.concatenate([c.rq, c.vq], axis=1)[groups == group].tolist()))
            for c in (codes, found)
        ]
        assert rows[0] == rows[1]


def test_event_groups_by_hand() -> None:
    rows = [(f"u{n}", item, n, 1, n) for n, item in enumerate("aabbbccccdddddeeeeeeffffffff")]
    schema = ["user_id", "item_id", "time", "label", "row"]
    log = Log(pl.DataFrame(rows, schema=schema, orient="row"))
    assert training_frequency_groups("abcdefz", log).tolist() == [1, 2, 3, 4, 5, 6, 0]
