"""Norms on a residual stream whose channels lie over several processes, ``(B, T, C / n)`` in each.

A statistic over the channels then takes a sum over the processes, forward and backward. LayerNorm and RMSNorm pay that,
and DyT, which works on each element for itself, does not. Parameters are those of each process's own channels.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """Over the processes; backward likewise, since each of them uses the sum."""

    @staticmethod
    def forward(ctx, x: Tensor, group) -> Tensor:
        ctx.group = group
        x = x.clone()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor):
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


class SplitRMSNorm(nn.Module):
    """RMSNorm over all processes' channels; x is ``(..., C / n)``."""

    def __init__(self, channels: int, eps: float, group, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps, self.group, self.size = eps, group, size

    def forward(self, x: Tensor) -> Tensor:
        squares = _Sum.apply(x.square().sum(dim=-1, keepdim=True), self.group)  # (..., 1)
        return x * torch.rsqrt(squares / (self.size * x.shape[-1]) + self.eps) * self.weight


class SplitLayerNorm(SplitRMSNorm):
    """LayerNorm over all processes' channels: the sum and the sum of squares travel together."""

    def __init__(self, channels: int, eps: float, group, size: int):
        super().__init__(channels, eps, group, size)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        sums = _Sum.apply(torch.stack((x.sum(dim=-1), x.square().sum(dim=-1)), dim=-1), self.group)  # (..., 2)
        mean, square = (sums / (self.size * x.shape[-1])).unsqueeze(-2).unbind(dim=-1)  # (..., 1) each
        return (x - mean) * torch.rsqrt(square - mean.square() + self.eps) * self.weight + self.bias


def split_norm(kind: str, channels: int, group, size: int) -> nn.Module:
    """``layernorm``, ``rmsnorm`` or ``dyt`` for `channels` channels of a process."""
    if kind == "dyt":
        from dyt.norms.dynamic import DynamicTanh

        return DynamicTanh(channels, alpha_init=0.5)
    return {"layernorm": SplitLayerNorm, "rmsnorm": SplitRMSNorm}[kind](channels, 1e-5, group, size)
