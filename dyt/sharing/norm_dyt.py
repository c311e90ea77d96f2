"""DyT, Derf and the norms they replace, in plain PyTorch: goes along with exported weights, so that they load anywhere.

DyT(x) = gamma * tanh(alpha * x) + beta (arXiv 2503.10622), Derf(x) = gamma * erf(alpha * x + s) + beta (2512.10938).
"""

from functools import partial

import torch
from torch import nn


def isru(z):
    """z / sqrt(1 + z^2), by a size that z is divided by first: in float16 z^2 is infinite from 256 on."""
    size = z.detach().abs().clamp(min=1.0)  # it cancels, so that no gradient is to flow through it
    part, one = z / size, 1.0 / size
    return part * torch.rsqrt(one * one + part * part)


SQUASH = {
    "tanh": torch.tanh,
    "hardtanh": nn.functional.hardtanh,
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "isru": isru,
    "identity": lambda z: z,
}


class DynamicTanh(nn.Module):
    """weight * squash(alpha * x + shift) + bias of ``(..., dim)``."""

    def __init__(
        self, dim, squash="tanh", shift=False, by_channel=False, affine=True, bias=True, device=None, dtype=None
    ):
        super().__init__()
        like = {"device": device, "dtype": dtype}
        self.squash = squash
        self.alpha = nn.Parameter(torch.full((dim if by_channel else 1,), 0.5, **like))
        self.weight = nn.Parameter(torch.ones(dim, **like)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim, **like)) if bias else None
        self.shift = nn.Parameter(torch.zeros(1, **like)) if shift else None

    def forward(self, x):
        z = self.alpha * x
        y = SQUASH[self.squash](z if self.shift is None else z + self.shift)
        y = y if self.weight is None else y * self.weight
        return y if self.bias is None else y + self.bias


class NoNorm(nn.Identity):
    """The identity, with the constructor of a norm."""

    def __init__(self, dim, device=None, dtype=None):
        super().__init__()


def norm_layer(kind, **settings):
    """What builds the norm of ``dim`` channels, by the name and settings that a model card or config.json gives."""
    return partial(
        {"dyt": DynamicTanh, "layernorm": nn.LayerNorm, "rmsnorm": nn.RMSNorm, "none": NoNorm}[kind], **settings
    )
