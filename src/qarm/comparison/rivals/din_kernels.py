"""Compiled loops of DIN's activation unit: no padding, one pass where a graph of tensor operations needs ten.

Rows are candidates, row n's history is `past[low[n]:high[n]]`, and its positions follow those of row n - 1.
Every pass is serial and in order, so that the same input gives the same bytes.
"""

import numpy as np
import numpy.typing as npt

from qarm.core.parallel.numba_jit import compiled

__all__ = ["affine", "attend", "attend_back", "dice", "dice_back", "moments", "products", "products_back"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# sigmoid(x) - 1/2 = x * polynomial in x^2; |x| <= 1 here, where the next term is below 3e-9
SERIES = (1 / 4, -1 / 48, 1 / 480, -17 / 80640, 31 / 1451520, -691 / 319334400, 5461 / 24908083200)
C0, C1, C2, C3, C4, C5, C6 = (np.float32(c) for c in SERIES)
HALF, ONE, EPSILON = np.float32(0.5), np.float32(1), np.float32(1e-3)


@compiled(reorder=True)
def moments(z: Floats, of_z: Doubles, of_zz: Doubles) -> None:
    """Adds the sums of z [n, u] and of its squares to [u]."""
    for n in range(len(z)):
        for u in range(z.shape[1]):
            value = np.float64(z[n, u])
            of_z[u] += value
            of_zz[u] += value * value


@compiled(reorder=True)
def gates(x: Floats, gate: Floats) -> tuple[np.float32, np.float32]:
    """Mean and 1 / spread of the units [u]; `gate` becomes Dice's sigmoid of the units scaled by them."""
    units = len(x)
    mean = np.float32(0)
    for u in range(units):
        mean += x[u]
    mean /= np.float32(units)
    spread = np.float32(0)
    for u in range(units):
        spread += (x[u] - mean) * (x[u] - mean)
    inverse = ONE / np.sqrt(spread + np.float32(units) * EPSILON)
    for u in range(units):
        r = (x[u] - mean) * inverse
        s = r * r
        gate[u] = HALF + r * (C0 + s * (C1 + s * (C2 + s * (C3 + s * (C4 + s * (C5 + s * C6))))))
    return mean, inverse


@compiled(reorder=True)
def gates_back(
    x: Floats, gate: Floats, mean: np.float32, inverse: np.float32, alpha: np.float32, g: Floats
) -> np.float32:
    """Gradient of alpha; `g`, the gradient of x * (gate + alpha * (1 - gate)), becomes that of x."""
    units = len(x)
    of_alpha, along, total = np.float32(0), np.float32(0), np.float32(0)
    for u in range(units):
        of_alpha += g[u] * x[u] * (ONE - gate[u])
        of_r = g[u] * x[u] * (ONE - alpha) * gate[u] * (ONE - gate[u])
        along += of_r * (x[u] - mean)
        total += of_r
    along *= inverse * inverse * inverse
    total *= inverse / np.float32(units)
    for u in range(units):
        of_r = g[u] * x[u] * (ONE - alpha) * gate[u] * (ONE - gate[u])
        straight = g[u] * (alpha + (ONE - alpha) * gate[u])
        g[u] = straight + of_r * inverse - (x[u] - mean) * along - total
    return of_alpha


@compiled(reorder=True)
def dice(z: Floats, scale: Floats, shift: Floats, alpha: np.float32, out: Floats) -> None:
    """Dice of z * scale + shift, [n, u], into `out`."""
    units = z.shape[1]
    x, gate = np.empty(units, np.float32), np.empty(units, np.float32)
    for n in range(len(z)):
        for u in range(units):
            x[u] = z[n, u] * scale[u] + shift[u]
        gates(x, gate)
        for u in range(units):
            out[n, u] = x[u] * (alpha + (ONE - alpha) * gate[u])


@compiled(reorder=True)
def dice_back(
    z: Floats, scale: Floats, shift: Floats, alpha: np.float32, g: Floats, of_x: Doubles, of_xz: Doubles
) -> float:
    """`g` [n, u] becomes the gradient of z * scale + shift, whose sum and sum with z are added to [u]."""
    units = z.shape[1]
    x, gate = np.empty(units, np.float32), np.empty(units, np.float32)
    of_alpha = 0.0
    for n in range(len(z)):
        for u in range(units):
            x[u] = z[n, u] * scale[u] + shift[u]
        mean, inverse = gates(x, gate)
        of_alpha += float(gates_back(x, gate, mean, inverse, alpha, g[n]))
        for u in range(units):
            of_x[u] += g[n, u]
            of_xz[u] += g[n, u] * z[n, u]
    return of_alpha


@compiled(reorder=True)
def products(
    query: Floats, past: Floats, target: Floats, key: Floats, weight: Floats, low: Ints, high: Ints, z: Floats
) -> None:
    """z[p] = query[n] + key[m] + weight.T @ (target[n] * past[m]) for position p, item m of row n's history.

    query: [n, u]; past: [m, d]; target: [n, d]; key: [m, u]; weight: [d, u]; z: [positions, u].
    """
    dim, units = weight.shape
    scaled = np.empty((dim, units), np.float32)
    p = 0
    for n in range(len(low)):
        for d in range(dim):
            for u in range(units):
                scaled[d, u] = weight[d, u] * target[n, d]
        for m in range(low[n], high[n]):
            for u in range(units):
                z[p, u] = query[n, u] + key[m, u]
            for d in range(0, dim - 3, 4):
                a, b, c, e = past[m, d], past[m, d + 1], past[m, d + 2], past[m, d + 3]
                for u in range(units):
                    z[p, u] += (
                        scaled[d, u] * a + scaled[d + 1, u] * b + scaled[d + 2, u] * c + scaled[d + 3, u] * e
                    )
            for d in range(dim - dim % 4, dim):
                for u in range(units):
                    z[p, u] += scaled[d, u] * past[m, d]
            p += 1


@compiled(reorder=True)
def products_back(
    g: Floats,
    past: Floats,
    target: Floats,
    weight: Floats,
    low: Ints,
    high: Ints,
    of_query: Floats,
    of_past: Floats,
    of_target: Floats,
    of_key: Floats,
    of_weight: Doubles,
) -> None:
    """Adds the gradients of `products`, given that of z, to zeroed arrays (`of_past` may hold more)."""
    dim, units = weight.shape
    scaled, of_scaled = np.empty((dim, units), np.float32), np.empty((dim, units), np.float32)
    p = 0
    for n in range(len(low)):
        for d in range(dim):
            for u in range(units):
                scaled[d, u] = weight[d, u] * target[n, d]
                of_scaled[d, u] = 0
        for m in range(low[n], high[n]):
            for u in range(units):
                of_query[n, u] += g[p, u]
                of_key[m, u] += g[p, u]
            for d in range(dim):
                total = np.float32(0)
                for u in range(units):
                    of_scaled[d, u] += past[m, d] * g[p, u]
                    total += scaled[d, u] * g[p, u]
                of_past[m, d] += total
            p += 1
        for d in range(dim):
            total = np.float32(0)
            for u in range(units):
                of_weight[d, u] += of_scaled[d, u] * target[n, d]
                total += of_scaled[d, u] * weight[d, u]
            of_target[n, d] = total


@compiled(reorder=True)
def attend(
    z: Floats,
    scale: Floats,
    shift: Floats,
    alpha: np.float32,
    last: Floats,
    bias: np.float32,
    past: Floats,
    low: Ints,
    high: Ints,
    out: Floats,
) -> None:
    """out[n] = sum of past[m] by the weight last @ dice(z[p]) + bias; zero for an empty history."""
    units, dim = z.shape[1], past.shape[1]
    x, gate = np.empty(units, np.float32), np.empty(units, np.float32)
    p = 0
    for n in range(len(low)):
        for d in range(dim):
            out[n, d] = 0
        for m in range(low[n], high[n]):
            for u in range(units):
                x[u] = z[p, u] * scale[u] + shift[u]
            gates(x, gate)
            score = bias
            for u in range(units):
                score += last[u] * x[u] * (alpha + (ONE - alpha) * gate[u])
            for d in range(dim):
                out[n, d] += score * past[m, d]
            p += 1


@compiled(reorder=True)
def attend_back(
    z: Floats,
    scale: Floats,
    shift: Floats,
    alpha: np.float32,
    last: Floats,
    bias: np.float32,
    past: Floats,
    low: Ints,
    high: Ints,
    of_out: Floats,
    g: Floats,
    of_past: Floats,
    of_x: Doubles,
    of_xz: Doubles,
    of_last: Doubles,
) -> tuple[float, float]:
    """`g` [positions, u] becomes the gradient of z * scale + shift; the others are added to.

    Returns:
        gradients of alpha and bias.
    """
    units, dim = z.shape[1], past.shape[1]
    x, gate = np.empty(units, np.float32), np.empty(units, np.float32)
    of_alpha, of_bias = 0.0, 0.0
    p = 0
    for n in range(len(low)):
        for m in range(low[n], high[n]):
            for u in range(units):
                x[u] = z[p, u] * scale[u] + shift[u]
            mean, inverse = gates(x, gate)
            of_score, score = np.float32(0), bias
            for d in range(dim):
                of_score += of_out[n, d] * past[m, d]
            for u in range(units):
                y = x[u] * (alpha + (ONE - alpha) * gate[u])
                score += last[u] * y
                of_last[u] += of_score * y
                g[p, u] = of_score * last[u]
            for d in range(dim):
                of_past[m, d] += score * of_out[n, d]
            of_bias += float(of_score)
            of_alpha += float(gates_back(x, gate, mean, inverse, alpha, g[p]))
            for u in range(units):
                of_x[u] += g[p, u]
                of_xz[u] += g[p, u] * z[p, u]
            p += 1
    return of_alpha, of_bias


@compiled(reorder=True)
def affine(g: Floats, z: Floats, a: Floats, b: Floats, c: Floats) -> None:
    """`g` [n, u] becomes a * g + b * z + c, by unit."""
    for n in range(len(g)):
        for u in range(g.shape[1]):
            g[n, u] = a[u] * g[n, u] + b[u] * z[n, u] + c[u]
