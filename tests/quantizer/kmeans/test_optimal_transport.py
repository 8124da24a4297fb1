"""Transport of rows to codes of given sizes, against linear programming and points by hand."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog
from scipy.special import softmax

from qarm.quantizer.kmeans.optimal_transport import (
    centre_prices,
    cheapest,
    fair_prices,
    mean_gap,
    reach_sizes,
    soft_sizes,
)


def every(rows: int, width: int) -> Any:
    """Every code is a candidate of every row."""
    return np.tile(np.arange(width, dtype=np.int32), (rows, 1))


def choice(places: Any, costs: Any, prices: Any) -> tuple[Any, Any]:
    slots, regrets = np.empty(len(places), dtype=np.int64), np.empty(len(places))
    cheapest(places, costs, prices, slots, regrets)
    return slots, regrets


def test_the_cheapest_code_by_hand() -> None:
    places = np.array([[2, 0, 1], [1, 2, 0], [0, 1, 2]], dtype=np.int32)
    costs = np.array([[1.0, 3.0, 2.5], [4.0, 1.0, 1.5], [2.0, 2.0, 9.0]])
    slots, regrets = choice(places, costs, np.array([0.0, 0.0, 1.0]))
    # totals: 2, 3, 2.5; 4, 2, 1.5; 2, 2, 10: a tie goes to the lower code
    assert slots.tolist() == [0, 2, 0]
    assert regrets.tolist() == [0.5, 0.5, 0.0]
    _, alone = choice(places[:, :1], costs[:, :1], np.zeros(3))
    assert np.isinf(alone).all()


def test_the_mean_gap_ignores_prices_and_is_zero_without_a_second_candidate() -> None:
    costs = np.array([[1.0, 4.0, 2.0], [5.0, 5.5, 9.0]])
    assert mean_gap(every(2, 3), costs) == pytest.approx((1.0 + 0.5) / 2)
    assert mean_gap(every(2, 1), costs[:, :1]) == 0.0


def test_soft_sizes_are_sums_of_softmax() -> None:
    random = np.random.default_rng(0)
    costs, prices, sizes = random.normal(size=(20, 4)), random.normal(size=4), np.empty(4)
    soft_sizes(every(20, 4), costs, prices, 0.3, sizes)
    assert sizes == pytest.approx(softmax(-(costs + prices) / 0.3, axis=1).sum(0))
    assert sizes.sum() == pytest.approx(20)


def test_fair_prices_even_out_the_sizes() -> None:
    random = np.random.default_rng(1)
    points, centres = random.exponential(size=(600, 2)), random.exponential(size=(6, 2))
    costs = ((points[:, None] - centres) ** 2).sum(-1)
    places = every(600, 6)
    before = np.bincount(choice(places, costs, np.zeros(6))[0], minlength=6)
    prices = fair_prices(places, costs, np.zeros(6))
    after = np.bincount(choice(places, costs, prices)[0], minlength=6)
    assert before.max() > 150
    assert np.abs(after - 100).max() <= 5
    equal = np.zeros((4, 3))
    assert fair_prices(every(4, 3), equal, np.array([1.0, 2.0, 3.0])).tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("seed", range(4))
def test_the_least_cost_for_given_sizes_is_that_of_the_assignment_problem(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, width = 40, 5
    costs, places = random.integers(0, 30, (rows, width)).astype(np.float64), every(rows, width)
    sizes = random.multinomial(rows, random.dirichlet(np.ones(width))).astype(np.int64)
    prices = np.zeros(width)
    slots, _ = choice(places, costs, prices)
    assert reach_sizes(places, costs, prices, slots, sizes).tolist() == [0] * width
    assert np.bincount(slots, minlength=width).tolist() == sizes.tolist()
    columns = np.repeat(np.arange(width), sizes)
    best = costs[:, columns][linear_sum_assignment(costs[:, columns])].sum()
    assert costs[np.arange(rows), slots].sum() == pytest.approx(best)
    totals = costs + prices  # complementary slackness: no row would rather be elsewhere
    assert (totals[np.arange(rows), slots] <= totals.min(1) + 1e-9).all()


def test_few_candidates_reach_what_linear_programming_reaches() -> None:
    random = np.random.default_rng(7)
    rows, width, kept = 30, 6, 3
    places = np.stack([random.permutation(width)[:kept] for _ in range(rows)]).astype(np.int32)
    places[:, 0] = np.arange(rows) % width  # equal sizes can be reached
    costs, sizes, prices = random.random((rows, kept)), np.full(width, rows // width), np.zeros(width)
    slots, _ = choice(places, costs, prices)
    assert not reach_sizes(places, costs, prices, slots, sizes).any()
    one_each = np.kron(np.eye(rows), np.ones(kept))
    of_size = np.array([(places.ravel() == code) for code in range(width)], dtype=float)
    limits = np.concatenate([np.ones(rows), sizes])
    found = linprog(costs.ravel(), A_eq=np.vstack([one_each, of_size]), b_eq=limits, bounds=(0, 1))
    assert costs[np.arange(rows), slots].sum() == pytest.approx(found.fun)


def test_a_surplus_that_no_candidate_leads_away_is_counted() -> None:
    places = np.array([[0, 1], [0, 1], [0, 1], [2, 1]], dtype=np.int32)
    costs, prices = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, 9.0]]), np.zeros(3)
    slots, _ = choice(places, costs, prices)
    surplus = reach_sizes(places, costs, prices, slots, np.array([1, 1, 2]))
    assert surplus.tolist() == [1, 0, 0]  # nobody of code 0 or 1 may take code 2
    assert slots.tolist() == [1, 0, 0, 0]  # the row for which code 1 costs least


def test_centred_prices_leave_every_row_where_it_is_and_widen_the_least_margin() -> None:
    random = np.random.default_rng(3)
    costs, places = random.random((50, 4)), every(50, 4)
    sizes, prices = np.array([13, 12, 13, 12]), np.zeros(4)
    slots, _ = choice(places, costs, prices)
    reach_sizes(places, costs, prices, slots, sizes)

    def margin() -> float:
        totals = costs + prices
        own = totals[np.arange(50), slots]
        totals[np.arange(50), slots] = np.inf
        return float((totals.min(1) - own).min())

    before = margin()
    centre_prices(places, costs, slots, prices, 20)
    assert margin() > before
    assert margin() > 1e-4
