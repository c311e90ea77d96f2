"""The statistical family: norms that measure their input, and no norm at all. The layers are torch's own."""

import logging

import torch
from torch import Tensor, nn

from dyt.norms.registry import register

log = logging.getLogger(__name__)


def layer_norm_by_hand(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """LayerNorm over the last axis, step by step: the oracle of the tests, and the explanation.

    x is ``(..., C)``; weight and bias are ``(C,)``. Source: Ba, Kiros, Hinton 2016, arXiv 1607.06450.
    """
    mean = x.mean(dim=-1, keepdim=True)  # (..., 1): one token's channels, averaged
    centred = x - mean
    variance = (centred * centred).mean(dim=-1, keepdim=True)  # biased: divided by C, not C - 1
    normal = centred / torch.sqrt(variance + eps)  # mean 0, variance 1, whatever came in
    return normal * weight + bias  # gamma and beta: the scale and place the next layer wants


class _ChannelsFirst(nn.Module):
    """Runs a channels-last norm on ``(B, C, ...)``."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def _placed(norm: nn.Module, channels_last: bool) -> nn.Module:
    return norm if channels_last else _ChannelsFirst(norm)


@register("layernorm")
def layernorm(
    dim: int, *, eps: float | None = None, affine: bool = True, bias: bool = True, channels_last: bool = True
) -> nn.Module:
    """torch's LayerNorm. eps null is the model's own (1e-6 in timm's models), else torch's 1e-5."""
    eps = 1e-5 if eps is None else eps
    return _placed(nn.LayerNorm(dim, eps=eps, elementwise_affine=affine, bias=bias), channels_last)


@register("rmsnorm")
def rmsnorm(dim: int, *, eps: float | None = None, affine: bool = True, channels_last: bool = True) -> nn.Module:
    """torch's RMSNorm (arXiv 1910.07467). eps null is the model's own, else 1e-5, LLaMA's."""
    return _placed(nn.RMSNorm(dim, eps=1e-5 if eps is None else eps, elementwise_affine=affine), channels_last)


_warned = False


def warn_if_causal(chosen: dict[str, str]) -> None:
    """Says once that a norm over tokens lets a causal model see the future; `chosen` is a `NormFactory`'s."""
    global _warned
    over = [f"{key}={kind}" for key, kind in chosen.items() if kind in ("batchnorm", "instancenorm")]
    if over and not _warned:
        _warned = True
        log.warning(
            "%s takes its mean and variance over all tokens: in a causal model each token then sees "
            "the ones after it, and its loss is not comparable with that of the other norms",
            over[0],
        )


class _OverTokens(nn.Module):
    """A ``(B, C, L)`` norm on ``(B, T, C)`` tokens (or any ``(B, ..., C)``); ``(B, C)`` is one token each.

    Mean and variance run over tokens: in a causal language model that lets a token see the ones after it.
    """

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])  # (B, T, C)
        return self.norm(tokens.transpose(1, 2)).transpose(1, 2).reshape(x.shape)


@register("batchnorm")
def batchnorm(
    dim: int, *, eps: float | None = None, momentum: float = 0.1, affine: bool = True, channels_last: bool = True
) -> nn.Module:
    """torch's BatchNorm over batch and tokens (or pixels). In a causal language model tokens see the future."""
    if not channels_last:
        return nn.BatchNorm2d(dim, eps=1e-5 if eps is None else eps, momentum=momentum, affine=affine)
    norm = nn.BatchNorm1d(dim, eps=1e-5 if eps is None else eps, momentum=momentum, affine=affine)
    return _OverTokens(norm)


class _InstanceNorm1d(nn.InstanceNorm1d):
    """One token has no spread: after global pooling the input passes with scale and shift alone."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > 1:
            return super().forward(x)
        return x if self.weight is None else x * self.weight[:, None] + self.bias[:, None]


@register("instancenorm")
def instancenorm(dim: int, *, eps: float | None = None, affine: bool = True, channels_last: bool = True) -> nn.Module:
    """torch's InstanceNorm1d over the tokens of each sample. In a causal language model tokens see the future."""
    return _placed(_OverTokens(_InstanceNorm1d(dim, eps=1e-5 if eps is None else eps, affine=affine)), channels_last)


@register("none")
def none(dim: int, *, channels_last: bool = True) -> nn.Module:
    """No norm: the identity. In shallow nets a strong baseline."""
    return nn.Identity()
