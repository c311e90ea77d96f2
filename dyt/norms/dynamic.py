"""The element-wise family: Dynamic Tanh and its relatives.

No statistics are computed: every element passes through the same S-curve, whose slope alpha is learned. What a trained
LayerNorm does to its inputs looks like such a curve (arXiv 2503.10622, Figures 2 to 4).
"""

import operator
from functools import wraps
from numbers import Real
from typing import Literal

import torch
from torch import Tensor, nn

from dyt.kernels import SQUASH, dynamic
from dyt.norms.registry import register

ALPHAS = ("learned", "ratio", "log", "fixed", "absent")  # how alpha may be learned
OFFICIAL = {"normalized_shape": "dim", "alpha_init_value": "alpha_init", "shift_init_value": "shift_init"}


def _as_official_too(init):
    """Lets a constructor be called as in the official code: its names, and for DyT its order too.

    ``DynamicTanh(normalized_shape, channels_last, alpha_init_value)``: a bool in second place is channels_last, and
    never an alpha of 0. ``Dynamic_erf(normalized_shape, alpha_init_value, shift_init_value)``.
    """

    @wraps(init)
    def either(self, *values, **named):
        kind = type(self).__name__
        for official, ours in OFFICIAL.items():
            if official in named:
                if ours in named:
                    raise ValueError(f"{kind}: {official} and {ours} are the same; give one")
                named[ours] = named.pop(official)
        order = ["dim", "alpha_init", *(["shift_init"] if isinstance(self, Derf) else [])]
        if len(values) > 1 and isinstance(values[1], bool):
            order = ["dim", "channels_last", "alpha_init"]
        if len(values) > len(order):
            raise ValueError(f"{kind}: too many values in a row; name the later ones, as in channels_last=False")
        for name, value in zip(order, values, strict=False):
            if name in named:
                raise ValueError(f"{kind}: {name} is given twice")
            named[name] = value
        if "dim" not in named:
            raise ValueError(f"{kind}: dim, the number of channels, is missing")
        for name in ("alpha_init", "shift_init"):
            if isinstance(value := named.get(name, 0.0), bool) or not isinstance(value, Real):
                raise ValueError(f"{kind}: {name}={value!r}: needs a number")
        if not isinstance(named.get("channels_last", True), bool):
            raise ValueError(f"{kind}: channels_last={named['channels_last']!r}: needs True or False")
        init(self, **named | {"dim": _channels(named["dim"])})

    return either


def _channels(dim) -> int:
    """`dim` as a number; also from a normalized_shape ``(C,)``.

    Raises:
        ValueError: several axes, or no whole number above 0.
    """
    sizes = list(dim) if isinstance(dim, tuple | list) else [dim]
    if len(sizes) != 1:
        raise ValueError(f"normalized_shape={tuple(sizes)}: DyT works on one axis of channels; give its size")
    try:
        size = 0 if isinstance(sizes[0], bool) else operator.index(sizes[0])
    except TypeError:
        size = 0
    if size < 1:
        raise ValueError(f"dim={dim!r}: a norm needs at least one channel, a whole number")
    return size


@register("dyt")
class DynamicTanh(nn.Module):
    """DyT(x) = gamma * tanh(alpha * x) + beta, in the place of a LayerNorm or RMSNorm.

    Args:
        dim: channels C, as a number or as LayerNorm's normalized_shape ``(C,)``. The input is ``(..., C)``, or
            ``(B, C, ...)`` with ``channels_last=False``.
        alpha_init: alpha at the start. 0.5 outside language models; those need it by width and site
            (arXiv 2503.10622, Tables 10 and 11).
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

    The official constructor's order, ``DynamicTanh(normalized_shape, channels_last, alpha_init_value)``, and its names
    are understood too. Parameters are named as in the official code, ``alpha``, ``weight``, ``bias``, so that its
    checkpoints load; `dyt.load_foreign` reads those of other libraries. alpha has shape (1,) and not (): FSDP2 refuses
    0-d parameters. ``ratio`` has ``alpha_ratio`` and the buffer ``alpha0`` in alpha's place, ``log`` has ``log_alpha``;
    each loads the checkpoints of the others, at equal slope.

    Raises:
        ValueError: dim below 1 or of several axes, an unknown choice, ``inverse_alpha`` or ``ratio`` with alpha_init 0,
            ``log`` with alpha_init not above 0.
    """

    @_as_official_too
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
        for name, value, choices in (
            ("squash", squash, SQUASH),
            ("alpha", alpha, ALPHAS),
            ("alpha_shape", alpha_shape, ("layer", "channel")),
        ):
            if value not in choices:
                raise ValueError(f"{name}={value!r}: choose from {', '.join(choices)}")
        if alpha == "ratio" and alpha_init == 0:
            raise ValueError("alpha='ratio' needs alpha_init other than 0")
        if alpha == "log" and alpha_init <= 0:
            raise ValueError(f"alpha='log' needs alpha_init above 0, not {alpha_init}")
        if gamma_init == "inverse_alpha":
            slope = 1.0 if alpha == "absent" else alpha_init
            if slope == 0:
                raise ValueError("gamma_init='inverse_alpha' needs alpha_init other than 0")
            gamma_init = 1.0 / slope
        elif isinstance(gamma_init, str):
            raise ValueError(f"gamma_init={gamma_init!r}: choose a number or inverse_alpha")
        self.dim, self.alpha_init, self.squash, self.channels_last = dim, alpha_init, squash, channels_last
        self.learns, self.gamma_init = alpha, float(gamma_init)

        def empty(size: int) -> Tensor:
            return torch.empty(size, device=device, dtype=dtype)

        slopes = dim if alpha_shape == "channel" else 1
        if alpha == "learned":
            self.alpha = nn.Parameter(empty(slopes))
        elif alpha == "fixed":
            self.register_buffer("alpha", empty(slopes))
        elif alpha == "absent":
            self.alpha = None
        elif alpha == "ratio":
            self.alpha_ratio = nn.Parameter(empty(slopes))
            self.register_buffer("alpha0", empty(slopes))
        else:
            self.log_alpha = nn.Parameter(empty(slopes))
        self.weight = nn.Parameter(empty(dim)) if affine else None
        self.bias = nn.Parameter(empty(dim)) if affine and bias else None
        DynamicTanh.reset_parameters(self)  # a subclass's own parameters are not there yet

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Puts every parameter and buffer back to its start, in place; what a layer needs after ``to_empty``."""
        if self.learns in ("learned", "fixed"):
            self.alpha.fill_(self.alpha_init)
        elif self.learns == "ratio":
            self.alpha_ratio.fill_(1.0)
            self.alpha0.fill_(self.alpha_init)
        elif self.learns == "log":
            self.log_alpha.fill_(self.alpha_init).log_()
        if self.weight is not None:
            self.weight.fill_(self.gamma_init)
        if self.bias is not None:
            self.bias.zero_()

    def slope(self) -> Tensor | None:
        """alpha as it acts, shape (1,) or (C,), however it is learned; None where there is none."""
        if self.learns == "ratio":  # FSDP2's mixed precision casts parameters and no buffers
            return self.alpha0.to(self.alpha_ratio.dtype) * self.alpha_ratio
        if self.learns == "fixed" and self.weight is not None:
            return self.alpha.to(self.weight.dtype)
        return self.log_alpha.exp() if self.learns == "log" else self.alpha

    @torch.no_grad()
    def set_slope(self, alpha: Tensor) -> None:
        """Makes alpha, as it acts, these values, ``(1,)`` or ``(C,)``, however it is learned; a ratio starts at 1 anew.

        Raises:
            ValueError: alpha is not above 0 where its logarithm is learned.
        """
        for key, value in self._as_learned(alpha).items():
            getattr(self, key).copy_(value)

    def _as_learned(self, alpha: Tensor) -> dict[str, Tensor]:
        """What this layer keeps of an alpha: parameters and buffers by name."""
        if self.learns == "log":
            if not alpha.is_meta and bool((alpha <= 0).any()):
                raise ValueError(
                    f"alpha is {alpha.min().item():.3g}, not above 0, and has no logarithm; load it into a layer with "
                    "alpha='learned' or alpha='ratio'"
                )
            return {"log_alpha": alpha.log()}
        if self.learns == "ratio":  # at 0 the ratio carries it, for alpha0 could never leave 0
            wide = alpha.to(self.alpha0.dtype).expand(max(alpha.numel(), self.alpha0.numel()))
            start = torch.where(wide == 0, self.alpha_init, wide)
            return {"alpha0": start, "alpha_ratio": wide / start}
        return {"alpha": alpha}

    def forward(self, x: Tensor) -> Tensor:
        return dynamic(x, self.slope(), self.weight, self.bias, None, self.squash, self.channels_last, self.dim)

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
                try:
                    kept = self._as_learned(alpha)
                except ValueError as error:
                    args[-1].append(f"{prefix.rstrip('.')}: {error}")  # error_msgs
                    return
                for key in found:
                    del state[prefix + key]
                state |= {prefix + key: value for key, value in kept.items()}
        super()._load_from_state_dict(state, prefix, *args)


@register("derf")
class Derf(DynamicTanh):
    """Derf(x) = gamma * erf(alpha * x + s) + beta (arXiv 2512.10938): alpha 0.5, s 0 at the start, both scalars.

    Shapes and arguments as in `DynamicTanh`; s is the parameter ``shift``, shape (1,), as in the official code. Its
    constructor's order, ``(normalized_shape, alpha_init_value, shift_init_value)``, is understood.
    """

    @_as_official_too
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
        self.shift_init = float(shift_init)
        self.shift = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.shift.fill_(self.shift_init)

    def forward(self, x: Tensor) -> Tensor:
        return dynamic(x, self.slope(), self.weight, self.bias, self.shift, "erf", self.channels_last, self.dim)
