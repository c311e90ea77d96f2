"""What others put in the place of norms (arXiv 2503.10622, Table 9): changes to residual branches and weights.

fixup          Zhang et al. 2019, arXiv 1901.09321: branches start at zero, their first layers scaled by L^(-1/2) for L
               branches of two layers; a scalar bias before each layer and a scalar factor after each branch
skipinit       De and Smith 2020, arXiv 2002.10444: a scalar after each branch, zero at the start
sigma_reparam  Zhai et al. 2023, arXiv 2303.06296: every linear layer's weight is gamma W / sigma(W), sigma its largest
               singular value by power iteration, gamma a scalar from 1

They work on any model whose `blocks` are pre-norm Transformer blocks as timm's and ours: norm1 or attn_norm, attn,
ls1, norm2 or mlp_norm, mlp, ls2.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from dyt.norms import NormFactory

METHODS = ("fixup", "skipinit", "sigma_reparam")


class Scale(nn.Module):
    """x times a learned scalar, shape (1,); it ends a residual branch."""

    def __init__(self, init: float):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Shift(nn.Module):
    """x plus a learned scalar, shape (1,), zero at the start."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def apply_method(model: nn.Module, method: str | None, norm: NormFactory) -> None:
    """Changes `model`, whose norms are those of `norm`, in place. None does nothing.

    Raises:
        ValueError: the model still has norms: these methods stand in their place.
    """
    if method is None:
        return
    for key, kind in sorted(norm.chosen().items()):
        if kind != "none":
            raise ValueError(f"model.method={method} stands in the place of norms; type {key}=none instead of {kind}")
    if method == "sigma_reparam":
        for module in model.modules():
            if isinstance(module, nn.Linear):
                parametrizations.spectral_norm(module)
                parametrize.register_parametrization(module, "weight", Scale(1.0))
        return
    for block in model.blocks:
        block.ls1, block.ls2 = Scale(float(method == "fixup")), Scale(float(method == "fixup"))
    if method == "fixup":
        _fixup(model)


@torch.no_grad()
def _fixup(model: nn.Module) -> None:
    branches = 2 * len(model.blocks)
    for block in model.blocks:
        for names, first, last in (
            (("norm1", "attn_norm"), block.attn.qkv, _one(block.attn, "proj", "out")),
            (("norm2", "mlp_norm"), _one(block.mlp, "fc1", "up"), _one(block.mlp, "fc2", "down")),
        ):
            first.weight.mul_(1 / math.sqrt(branches))
            nn.init.zeros_(last.weight)
            setattr(block, next(n for n in names if hasattr(block, n)), Shift())
            last.register_forward_pre_hook(_Before(last))
    if isinstance(model.head, nn.Linear) and model.head.weight is not getattr(
        getattr(model, "embed", None), "weight", 0
    ):
        nn.init.zeros_(model.head.weight)


class _Before:
    """A branch's second scalar bias, kept as a parameter of the layer before which it stands."""

    def __init__(self, layer: nn.Module):
        layer.before = nn.Parameter(torch.zeros(1))

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0] + layer.before,)


def _one(module: nn.Module, *names: str) -> nn.Module:
    return next(getattr(module, n) for n in names if hasattr(module, n))
