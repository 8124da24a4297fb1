"""Layers of DIN with their gradients: batch norm with Dice, products of target attention, weighted sum."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function

from qarm.comparison.rivals import din_kernels as kernels

__all__ = ["Attention", "Line", "Normed", "Products"]


class Line(NamedTuple):
    """Statistics that z [n, u] is normalised by: mean and 1 / deviation [u]; of_batch: of z itself."""

    mean: Tensor
    inverse: Tensor
    of_batch: bool


class Normed(nn.BatchNorm1d):
    """Batch norm and Dice in one pass."""

    def __init__(self, units: int) -> None:
        super().__init__(units)
        self.alpha = nn.Parameter(torch.randn(1))

    @torch.no_grad()
    def line(self, z: Tensor) -> Line:
        """Statistics of z itself in training, which updates the running ones; else the running ones."""
        running = [part for part in (self.running_mean, self.running_var) if part is not None]
        if self.training and len(z) > 1:
            of_z, of_zz = np.zeros((2, z.shape[1]))
            kernels.moments(_array(z), of_z, of_zz)
            middle = of_z / len(z)
            spread = np.maximum(of_zz / len(z) - middle * middle, 0)
            mean, variance = (torch.from_numpy(part).float() for part in (middle, spread))
            for part, now in zip(running, (mean, variance * len(z) / (len(z) - 1)), strict=True):
                part.lerp_(now, self.momentum or 0.0)
            return Line(mean, (variance + self.eps).rsqrt(), True)
        return Line(running[0].clone(), (running[1] + self.eps).rsqrt(), False)

    def forward(self, z: Tensor) -> Tensor:
        """Dice of the normalised z, [n, u]."""
        normed: Tensor = _Dice.apply(z, self.line(z), self.weight, self.bias, self.alpha)  # type: ignore[no-untyped-call]
        return normed


class Products(Function):
    """query[n] + key[m] + weight.T @ (target[n] * past[m]) at every position, [p, u]; see the kernel."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        past: Tensor,
        target: Tensor,
        key: Tensor,
        weight: Tensor,
        low: Tensor,
        high: Tensor,
    ) -> Tensor:
        """Z at every position."""
        weight = weight.contiguous()
        z = torch.empty(int((high - low).sum()), query.shape[1])
        kernels.products(*_arrays(query, past, target, key, weight, low, high, z))
        ctx.save_for_backward(past, target, weight, low, high)
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients in the order of the inputs of `forward`."""
        past, target, weight, low, high = ctx.saved_tensors
        units = weight.shape[1]
        of_query, of_key = torch.zeros(len(target), units), torch.zeros(len(past), units)
        of_past, of_target = torch.zeros_like(past), torch.zeros_like(target)
        of_weight = torch.zeros(weight.shape, dtype=torch.float64)
        kernels.products_back(
            *_arrays(grads[0].contiguous(), past, target, weight, low, high),
            *_arrays(of_query, of_past, of_target, of_key, of_weight),
        )
        return of_query, of_past, of_target, of_key, of_weight.float(), None, None


class Attention(Function):
    """Sum of each row's history by the weights of the last layer over Dice, [n, d]; see the kernel."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        line: Line,
        weight: Tensor,
        bias: Tensor,
        alpha: Tensor,
        last: Tensor,
        last_bias: Tensor,
        past: Tensor,
        low: Tensor,
        high: Tensor,
    ) -> Tensor:
        """Pooled histories."""
        ctx.line = line
        ctx.save_for_backward(z, weight, bias, alpha, last, last_bias, past, low, high)
        out = past.new_empty(len(low), past.shape[1])
        inputs = _inputs(z, line, weight, bias, alpha, last, last_bias, past, low, high)
        kernels.attend(*inputs, *_arrays(out))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients in the order of the inputs of `forward`."""
        z, weight, bias, alpha, last, last_bias, past, low, high = ctx.saved_tensors
        g, of_past = torch.empty_like(z), torch.zeros_like(past)
        of_x, of_xz, of_last = np.zeros((3, z.shape[1]))
        inputs = _inputs(z, ctx.line, weight, bias, alpha, last, last_bias, past, low, high)
        outputs = [*_arrays(grads[0].contiguous(), g, of_past), of_x, of_xz, of_last]
        of_alpha, of_bias = kernels.attend_back(*inputs, *outputs)
        norm = _unnormed(g, z, ctx.line, weight, of_x, of_xz)
        of_last = torch.from_numpy(of_last).float()
        rest = alpha.new_tensor([of_alpha]), of_last, last_bias.new_tensor([of_bias]), of_past
        return norm[0], None, *norm[1:], *rest, None, None


class _Dice(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, line: Line, weight: Tensor, bias: Tensor, alpha: Tensor) -> Tensor:
        """Dice of the normalised z."""
        z = z.contiguous()
        ctx.line = line
        ctx.save_for_backward(z, weight, bias, alpha)
        out = torch.empty_like(z)
        kernels.dice(_array(z), *_affine(line, weight, bias), _number(alpha), _array(out))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients in the order of the inputs of `forward`."""
        z, weight, bias, alpha = ctx.saved_tensors
        g = grads[0].clone(memory_format=torch.contiguous_format)
        of_x, of_xz = np.zeros((2, z.shape[1]))
        affine = _affine(ctx.line, weight, bias)
        of_alpha = kernels.dice_back(_array(z), *affine, _number(alpha), _array(g), of_x, of_xz)
        norm = _unnormed(g, z, ctx.line, weight, of_x, of_xz)
        return norm[0], None, *norm[1:], alpha.new_tensor([of_alpha])


def _unnormed(
    g: Tensor, z: Tensor, line: Line, weight: Tensor, of_x: Any, of_xz: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of z, weight and bias from `g`, that of the normalised z, and its sums alone and with z."""
    mean, inverse = (part.double().numpy() for part in line[:2])
    of_weight = (of_xz - mean * of_x) * inverse
    a = inverse * weight.detach().numpy()
    b = -a * inverse * of_weight / len(z) if line.of_batch else np.zeros_like(a)
    c = -a * of_x / len(z) - b * mean if line.of_batch else b
    kernels.affine(_array(g), _array(z), *(part.astype(np.float32) for part in (a, b, c)))
    return g, torch.from_numpy(of_weight).float(), torch.from_numpy(of_x).float()


def _inputs(
    z: Tensor,
    line: Line,
    weight: Tensor,
    bias: Tensor,
    alpha: Tensor,
    last: Tensor,
    last_bias: Tensor,
    *rest: Tensor,
) -> list[Any]:
    norm = *_affine(line, weight, bias), _number(alpha)
    return [_array(z), *norm, _array(last.contiguous()), _number(last_bias), *_arrays(*rest)]


def _affine(line: Line, weight: Tensor, bias: Tensor) -> tuple[Any, Any]:
    """Batch norm as z * scale + shift."""
    scale = line.inverse * weight.detach()
    return scale.numpy(), (bias.detach() - line.mean * scale).numpy()


def _number(value: Tensor) -> np.float32:
    return np.float32(value.item())


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


def _arrays(*tensors: Tensor) -> list[Any]:
    return [_array(tensor) for tensor in tensors]
