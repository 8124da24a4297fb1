"""Optimal transport of rows to codes of given sizes: prices first, then shortest augmenting paths.

Every code has a price, and a row takes the code with the least cost plus price. Prices follow the sizes
until little is wrong; the rest moves along shortest paths, which keeps an assignment optimal for its sizes
(Ahuja, Magnanti and Orlin, Network Flows, section 9.7).
"""

import numpy as np
import numpy.typing as npt

from qarm.core.parallel.numba_jit import compiled

__all__ = ["centre_prices", "cheapest", "fair_prices", "mean_gap", "reach_sizes"]

_STEPS, _SHARPEST, _EMPTY = 60, 1 / 50, 1e-3

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]


@compiled()
def cheapest(places: Places, costs: Floats, prices: Floats, slots: Integers, regrets: Floats) -> None:
    """Each row's candidate with the least cost plus price, ties to the lowest code.

    Args:
        places: int32 [n, m], candidate codes of each row.
        costs: float64 [n, m], what they cost.
        prices: float64 [width].
        slots: filled, int64 [n], which candidate it is.
        regrets: filled, float64 [n], how much more the second best costs; infinite where there is none.
    """
    for i in range(places.shape[0]):
        best, second, slot = np.inf, np.inf, 0
        for s in range(places.shape[1]):
            total = costs[i, s] + prices[places[i, s]]
            if total < best or (total == best and places[i, s] < places[i, slot]):
                best, second, slot = total, best, s
            elif total < second:
                second = total
        slots[i] = slot
        regrets[i] = second - best


@compiled(reorder=True)
def soft_sizes(places: Places, costs: Floats, prices: Floats, blur: float, sizes: Floats) -> None:
    """Rows per code, into float64 [width], each row shared among its candidates by exp(-total / blur)."""
    shares = np.empty(places.shape[1], dtype=np.float64)
    sizes[:] = 0.0
    for i in range(places.shape[0]):
        least = np.inf
        for s in range(len(shares)):
            shares[s] = costs[i, s] + prices[places[i, s]]
            least = min(least, shares[s])
        whole = 0.0
        for s in range(len(shares)):
            shares[s] = np.exp((least - shares[s]) / blur)
            whole += shares[s]
        for s in range(len(shares)):
            sizes[places[i, s]] += shares[s] / whole


def mean_gap(places: Places, costs: Floats) -> float:
    """Mean difference between the costs of a row's two cheapest candidates; 0 where it has but one."""
    gaps = np.empty(len(places))
    cheapest(places, costs, np.zeros(int(places.max()) + 1), np.empty(len(places), dtype=np.int64), gaps)
    return float(gaps.mean()) if np.isfinite(gaps).all() else 0.0


def fair_prices(places: Places, costs: Floats, prices: Floats) -> Floats:
    """Prices float64 [width] under which codes get nearly equal numbers of rows; starts from given ones.

    Sinkhorn's iteration (Cuturi, 2013) while the blur falls from the mean gap between a row's two cheapest
    candidates to a fiftieth of it: a blurred row counts for several codes, so that sizes answer to prices
    smoothly and groups far apart do not change sides as one.
    """
    n, width = len(places), len(prices)
    blur, sizes = mean_gap(places, costs), np.empty(width)
    if blur <= 0.0:
        return prices
    prices = prices.copy()
    for step in range(_STEPS):
        now = blur * _SHARPEST ** (step / (_STEPS - 1))
        soft_sizes(places, costs, prices, now, sizes)
        prices += now * np.log(np.maximum(sizes * width / n, _EMPTY))
    return prices


@compiled()
def _link(i: int, k: int, head: Integers, following: Integers, before: Integers) -> None:
    following[i], before[i] = head[k], -1
    if head[k] >= 0:
        before[head[k]] = i
    head[k] = i


@compiled()
def _unlink(i: int, k: int, head: Integers, following: Integers, before: Integers) -> None:
    if before[i] >= 0:
        following[before[i]] = following[i]
    else:
        head[k] = following[i]
    if following[i] >= 0:
        before[following[i]] = before[i]


@compiled()
def reach_sizes(places: Places, costs: Floats, prices: Floats, slots: Integers, sizes: Integers) -> Integers:
    """Move rows until every code has its size, at the least total cost for these sizes and candidates.

    Args:
        places: int32 [n, m], candidate codes of each row.
        costs: float64 [n, m].
        prices: changed, float64 [width]; rows start, and end, at their cheapest candidate.
        slots: changed, int64 [n], the candidate that each row takes.
        sizes: int64 [width], adding up to n.

    Returns:
        Surplus rows per code, int64 [width], that no path of candidates leads away; mostly zeros.
    """
    n, width = places.shape[0], len(prices)
    head = np.full(width, -1, dtype=np.int64)
    following, before = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    room = sizes.copy()
    for i in range(n):
        k = places[i, slots[i]]
        room[k] -= 1
        _link(i, k, head, following, before)
    distances, settled = np.empty(width, dtype=np.float64), np.empty(width, dtype=np.bool_)
    touched, carrier = np.empty(width, dtype=np.int64), np.empty(width, dtype=np.int64)
    target = np.empty(width, dtype=np.int64)  # slot of the carrier for the code it goes to
    for source in range(width):
        while room[source] < 0:
            distances[:] = np.inf
            settled[:] = False
            distances[source], touched[0], count, sink = 0.0, source, 1, -1
            while True:
                u, pick = -1, -1
                for t in range(count):
                    if u < 0 or distances[touched[t]] < distances[u]:
                        u, pick = touched[t], t
                if u < 0:
                    break
                count -= 1
                touched[pick] = touched[count]
                settled[u] = True
                if room[u] > 0:
                    sink = u
                    break
                i = head[u]
                while i >= 0:
                    base = costs[i, slots[i]] + prices[u]
                    for s in range(places.shape[1]):
                        k = places[i, s]
                        if not settled[k]:
                            reach = distances[u] + max(costs[i, s] + prices[k] - base, 0.0)
                            if reach < distances[k]:
                                if distances[k] == np.inf:
                                    touched[count] = k
                                    count += 1
                                distances[k], carrier[k], target[k] = reach, i, s
                    i = following[i]
            if sink < 0:
                break
            for k in range(width):
                if settled[k]:
                    prices[k] += distances[sink] - distances[k]
            room[source] += 1
            room[sink] -= 1
            k = sink
            while k != source:
                i = carrier[k]
                origin = places[i, slots[i]]
                _unlink(i, origin, head, following, before)
                _link(i, k, head, following, before)
                slots[i] = target[k]
                k = origin
    return np.maximum(-room, 0)


@compiled()
def centre_prices(places: Places, costs: Floats, slots: Integers, prices: Floats, sweeps: int) -> None:
    """Move prices into the middle of those under which every row keeps its code, so that no row is on edge.

    Each price has a lowest and a highest value at which no row would move; half way to their middle, for
    all prices at once, leaves at least half of every margin.
    """
    width = len(prices)
    for _ in range(sweeps):
        up, down = np.full(width, np.inf), np.full(width, np.inf)
        for i in range(places.shape[0]):
            own = slots[i]
            k = places[i, own]
            base = costs[i, own] + prices[k]
            for s in range(places.shape[1]):
                if s != own:
                    other = places[i, s]
                    margin = max(costs[i, s] + prices[other] - base, 0.0)
                    up[k] = min(up[k], margin)
                    down[other] = min(down[other], margin)
        for k in range(width):
            if up[k] < np.inf and down[k] < np.inf:
                prices[k] += 0.25 * (up[k] - down[k])
