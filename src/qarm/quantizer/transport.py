"""Rows to codes of given sizes at the least total cost: prices first, then shortest augmenting paths.

Every code has a price, and a row takes the code with the least cost plus price. Prices rise where too many
rows come (an auction; Bertsekas, 1988), until little is wrong; the rest moves along shortest paths, which
keeps an assignment optimal for its sizes (Ahuja, Magnanti and Orlin, Network Flows, section 9.7).
"""

import numpy as np
import numpy.typing as npt

from qarm.quantizer.compiled import compiled

__all__ = ["centre_prices", "cheapest", "raise_prices", "reach_sizes"]

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


@compiled()
def raise_prices(
    places: Places, costs: Floats, prices: Floats, capacity: int, rounds: int, enough: int
) -> Integers:
    """Raise prices until at most `enough` rows are above the capacity of their code, or rounds run out.

    A code that is above its capacity gets the price at which its surplus rows prefer their second choice.

    Returns:
        Slots int64 [n], as in `cheapest`, at the prices as they have become.
    """
    n, width = places.shape[0], len(prices)
    slots, regrets = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.float64)
    for turn in range(rounds + 1):
        cheapest(places, costs, prices, slots, regrets)
        starts = np.zeros(width + 1, dtype=np.int64)
        for i in range(n):
            starts[places[i, slots[i]] + 1] += 1
        surplus = 0
        for k in range(width):
            surplus += max(starts[k + 1] - capacity, 0)
            starts[k + 1] += starts[k]
        if surplus <= enough or turn == rounds:
            break
        by_code, at = np.empty(n, dtype=np.float64), starts.copy()
        for i in range(n):
            k = places[i, slots[i]]
            by_code[at[k]] = regrets[i]
            at[k] += 1
        for k in range(width):
            over = starts[k + 1] - starts[k] - capacity
            if over > 0:
                here = np.partition(by_code[starts[k] : starts[k + 1]], over)
                step = 0.5 * (here[:over].max() + here[over])
                if np.isfinite(step):
                    prices[k] += step
    return slots


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
