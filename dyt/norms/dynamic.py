"""The element-wise family: Dynamic Tanh and its relatives.

No statistics are computed: every element passes through the same S-curve, whose slope alpha is learned. What a trained
LayerNorm does to its inputs looks like such a curve (arXiv 2503.10622, Figures 2 to 4).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from dyt.kernels import SQUASH, dynamic
from dyt.norms.registry import register

ALPHAS = ("learned", "ratio", "log", "fixed", "absent")  # how alpha may be learned


@register("dyt")
class DynamicTanh(nn.Module):
    """DyT(x) = gamma * tanh(alpha * x) + beta, in the place of a LayerNorm or RMSNorm.

    Args:
        dim: channels C. The input is ``(..., C)``, or ``(B, C, ...)`` with ``channels_last=False``.
        alpha_init: alpha at the start. 0.5 outside language models; those need it by width and site
            (arXiv 2503.10622, Tables 11 to 13).
        squash: the function in tanh's place (Table 7). ``isru`` is x / sqrt(1 + x^2).
        alpha: how the slope is learned. ``learned``: alpha itself, as published. ``ratio``: alpha = alpha_init * r, and
            r is learned from 1. ``log``: alpha = exp(l), and l is learned. ``fixed``: not learned, a buffer at
            alpha_init. ``absent``: 1, no parameter (Table 8). Adam moves a parameter by about the learning rate a
            step whatever its size, so a small alpha that is learned as published moves by a large share of itself;
            ``ratio`` and ``log`` move by the same share at any alpha_init. Not from the papers.
        alpha_shape: one alpha per ``layer``, shape (1,), or per ``channel``, shape (C,).
        gamma_init: a number, or ``inverse_alpha`` for 1 / alpha_init: the layer then starts with gain 1 instead of
            alpha_init. Not from the papers.
        affine: with gamma and beta at all.
        bias: with beta. The LLaMA form has none.
        channels_last: False for ``(B, C, H, W)``, as in ConvNeXt's stem and downsampling.

    Parameters are named as in the official code, ``alpha``, ``weight``, ``bias``, so that its checkpoints load. alpha
    has shape (1,) and not (): FSDP2 refuses 0-d parameters. ``ratio`` has ``alpha_ratio`` and the buffer ``alpha0`` in
    alpha's place, ``log`` has ``log_alpha``; each loads the checkpoints of the others, at equal slope.

    Raises:
        ValueError: dim below 1, an unknown choice, ``inverse_alpha`` or ``ratio`` with alpha_init 0, ``log`` with
            alpha_init not above 0.
    """

    def __init__(
        self,
        dim: int,
        alpha_init: float = 0.5,
        *,
        squash: Literal["tanh", "hardtanh", "sigmoid", "erf", "isru", "identity"] = "tanh",
        alpha: Literal["learned", "ratio", "log", "fixed", "absent"] = "learned",
        alpha_shape: Literal["layer", "channel"] = "layer",
        gamma_init: float | Literal["inverse_alpha"] = 1.0,
        affine: bool = True,
        bias: bool = True,
        channels_last: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim={dim}: a norm needs at least one channel")
        for name, value, choices in (
            ("squash", squash, SQUASH),
            ("alpha", alpha, ALPHAS),
            ("alpha_shape", alpha_shape, ("layer", "channel")),
        ):
            if value not in choices:
                raise ValueError(f"{name}={value!r}: choose from {', '.join(choices)}")
        like = {"device": device, "dtype": dtype}
        self.dim, self.alpha_init, self.squash, self.channels_last = dim, alpha_init, squash, channels_last

        start = torch.full((dim if alpha_shape == "channel" else 1,), float(alpha_init), **like)
        self.learns = alpha
        if alpha == "learned":
            self.alpha = nn.Parameter(start)
        elif alpha == "fixed":
            self.register_buffer("alpha", start)
        elif alpha == "absent":
            self.alpha = None
        elif alpha == "ratio":
            if alpha_init == 0:
                raise ValueError("alpha='ratio' needs alpha_init other than 0")
            self.alpha_ratio = nn.Parameter(torch.ones_like(start))
            self.register_buffer("alpha0", start)
        else:
            if alpha_init <= 0:
                raise ValueError(f"alpha='log' needs alpha_init above 0, not {alpha_init}")
            self.log_alpha = nn.Parameter(start.log())
        if gamma_init == "inverse_alpha":
            slope = 1.0 if alpha == "absent" else alpha_init
            if slope == 0:
                raise ValueError("gamma_init='inverse_alpha' needs alpha_init other than 0")
            gamma_init = 1.0 / slope
        elif isinstance(gamma_init, str):
            raise ValueError(f"gamma_init={gamma_init!r}: choose a number or inverse_alpha")
        self.weight = nn.Parameter(torch.full((dim,), float(gamma_init), **like)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim, **like)) if affine and bias else None

    def slope(self) -> Tensor | None:
        """alpha as it acts, shape (1,) or (C,), however it is learned; None where there is none."""
        if self.learns == "ratio":
            return self.alpha0 * self.alpha_ratio
        return self.log_alpha.exp() if self.learns == "log" else self.alpha

    def forward(self, x: Tensor) -> Tensor:
        return dynamic(x, self.slope(), self.weight, self.bias, None, self.squash, self.channels_last)

    def extra_repr(self) -> str:
        last = "" if self.channels_last else ", channels_last=False"
        learns = "" if self.learns == "learned" else f", alpha={self.learns}"
        return f"{self.dim}, alpha_init={self.alpha_init}{learns}, squash={self.squash}{last}"

    def _load_from_state_dict(self, state, prefix, *args):
        """Takes alpha from a checkpoint in which it was learned in another way."""
        found = {
            key: state[prefix + key] for key in ("alpha", "alpha_ratio", "alpha0", "log_alpha") if prefix + key in state
        }
        own = {"ratio": "alpha_ratio", "log": "log_alpha", "absent": ""}.get(self.learns, "alpha")
        if found and own and own not in found:
            if "log_alpha" in found:
                alpha = found["log_alpha"].exp()
            elif "alpha_ratio" in found and "alpha0" in found:
                alpha = found["alpha0"] * found["alpha_ratio"]
            else:
                alpha = found.get("alpha")
            if alpha is not None:
                for key in found:
                    del state[prefix + key]
                if own == "alpha_ratio":
                    state[prefix + "alpha0"] = self.alpha0
                    state[prefix + own] = alpha.to(self.alpha0) / self.alpha0
                else:
                    state[prefix + own] = alpha.log() if own == "log_alpha" else alpha
        super()._load_from_state_dict(state, prefix, *args)


@register("derf")
class Derf(DynamicTanh):
    """Derf(x) = gamma * erf(alpha * x + s) + beta (arXiv 2512.10938): alpha 0.5, s 0 at the start, both scalars.

    Shapes and arguments as in `DynamicTanh`; s is the parameter ``shift``, shape (1,), as in the official code.
    """

    def __init__(
        self,
        dim: int,
        alpha_init: float = 0.5,
        *,
        shift_init: float = 0.0,
        alpha: Literal["learned", "ratio", "log", "fixed", "absent"] = "learned",
        alpha_shape: Literal["layer", "channel"] = "layer",
        gamma_init: float | Literal["inverse_alpha"] = 1.0,
        affine: bool = True,
        bias: bool = True,
        channels_last: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__(
            dim,
            alpha_init,
            squash="erf",
            alpha=alpha,
            alpha_shape=alpha_shape,
            gamma_init=gamma_init,
            affine=affine,
            bias=bias,
            channels_last=channels_last,
            device=device,
            dtype=dtype,
        )
        self.shift = nn.Parameter(torch.full((1,), float(shift_init), device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return dynamic(x, self.slope(), self.weight, self.bias, self.shift, "erf", self.channels_last)
