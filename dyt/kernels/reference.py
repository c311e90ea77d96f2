"""The formula in plain PyTorch: the oracle, and what runs where nothing faster can."""

import torch
from torch import Tensor


def isru(z: Tensor) -> Tensor:
    """z / sqrt(1 + z^2), by a size that z is divided by first: in float16 z^2 is infinite from 256 on."""
    size = z.detach().abs().clamp(min=1.0)  # it cancels, so that no gradient is to flow through it
    part, one = z / size, 1.0 / size
    return part * torch.rsqrt(one * one + part * part)


SQUASH = {  # name -> (number in the fused kernels, function)
    "tanh": (0, torch.tanh),
    "hardtanh": (1, torch.nn.functional.hardtanh),  # slope 0 at +-1; clamp's differs between versions
    "sigmoid": (2, torch.sigmoid),
    "erf": (3, torch.erf),
    "isru": (4, isru),
    "identity": (5, lambda z: z),
}


def dynamic(
    x: Tensor,
    alpha: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    shift: Tensor | None,
    squash: str,
    channels_last: bool = True,
) -> Tensor:
    """weight * squash(alpha * x + shift) + bias; None is left out.

    x is ``(..., C)``, or ``(B, C, ...)`` with `channels_last` False. Parameters are ``(C,)`` or ``(1,)``.
    """
    if not channels_last and not isinstance(x, Tensor):  # torch.fx's stand-in does not know how many axes it has
        turned = dynamic(x.transpose(1, -1), alpha, weight, bias, shift, squash)
        return turned.transpose(1, -1)

    def placed(p: Tensor) -> Tensor:
        return p if channels_last else p.view(-1, *[1] * (x.dim() - 2))  # (C,) -> (C, 1, 1)

    z = x if alpha is None else placed(alpha) * x
    z = SQUASH[squash][1](z if shift is None else z + placed(shift))
    z = z if weight is None else z * placed(weight)
    return z if bias is None else z + placed(bias)
