"""Swap the norms of somebody else's model: ``model = convert(model, norm="dyt", alpha_init=0.5)``."""

import logging
from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dyt.norms import NormFactory

log = logging.getLogger(__name__)

# Norms of (B, C, H, W) by class name: timm's LayerNorm2d is a LayerNorm subclass that works on axis 1.
_CHANNELS_FIRST = ("2d", "NCHW")


def is_norm(module: nn.Module) -> bool:
    """A LayerNorm, LayerNorm2d or RMSNorm: torch's, timm's, or one named so (Hugging Face's LlamaRMSNorm)."""
    name = type(module).__name__.lower()
    return isinstance(module, nn.LayerNorm | nn.RMSNorm) or (
        ("rmsnorm" in name or "layernorm" in name) and getattr(module, "weight", None) is not None
    )


def replace_norms(model: nn.Module, norm: NormFactory, site_of: Callable[[str], str]) -> int:
    """Replaces every norm of `model` in place by ``norm(dim, site_of(name))``; returns how many.

    Device and dtype of the old norm are kept; a norm without scale and shift stays without.

    Raises:
        ValueError: a LayerNorm over several axes, which no per-channel norm can stand for.
    """
    if is_norm(model):
        raise ValueError("convert: the model is itself a norm; build the new one with dyt.DynamicTanh(dim)")
    found = [(name, module) for name, module in model.named_modules() if is_norm(module)]
    for name, old in found:
        shape = getattr(old, "normalized_shape", None) or tuple(old.weight.shape)
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if len(shape) != 1:
            raise ValueError(f"convert: {name} normalizes over axes of shape {shape}; only one axis is supported")
        new = norm(
            shape[0],
            site_of(name),
            channels_last=not type(old).__name__.endswith(_CHANNELS_FIRST),
            eps=getattr(old, "eps", getattr(old, "variance_epsilon", None)),
            affine=getattr(old, "weight", None) is not None,
        )
        for like in old.parameters():
            new.to(device=like.device, dtype=like.dtype)
        new.train(old.training)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new)
    return len(found)


def convert(model: nn.Module, norm: str = "dyt", *, batchnorm: str = "refuse", **options) -> nn.Module:
    """Swaps every LayerNorm, LayerNorm2d and RMSNorm of `model` in place and returns it.

    Args:
        model: any module: timm's, Hugging Face's, your own. Trained scales and shifts are not carried over, so
            train the result (or train from scratch): DyT is not a drop-in for a trained LayerNorm.
        norm: a name from ``configs/norm/``: dyt, derf, layernorm, rmsnorm, none ...
        batchnorm: ``refuse`` a model that has a BatchNorm, or ``keep`` it as it is and swap the others.
        options: arguments of the norm, e.g. ``alpha_init=0.8``.

    Raises:
        ValueError: no norm was found, the model has a BatchNorm, or an option is unknown.

    Language models need more than the swap: alpha_init by width and a learnable sqrt(d) scalar after the embedding
    (arXiv 2503.10622, appendix A); DiT needs its zero initialisation removed.
    """
    if batchnorm not in ("refuse", "keep"):
        raise ValueError(f"batchnorm={batchnorm!r}: choose from refuse, keep")
    if norm == "dyt_unit_gain":
        norm, options = "dyt", {"gamma_init": "inverse_alpha", **options}
    if batchnorm == "refuse":
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                raise ValueError(
                    f"convert: {name or 'the model'} is a BatchNorm, and DyT does not replace it (the paper, Table 16: "
                    "ResNet-50 76.2 -> 68.9); pass batchnorm='keep' to leave BatchNorms and swap the other norms"
                )
    factory = NormFactory(norm, **options)
    count = replace_norms(model, factory, lambda name: "norm")
    if count == 0:
        raise ValueError(f"convert: {type(model).__name__} has no LayerNorm, LayerNorm2d or RMSNorm to replace")
    log.info("convert: replaced %d norms by %s", count, norm)
    return model
