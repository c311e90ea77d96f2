"""What a module does, seen by running a copy of it on random input: over which axis it normalizes, and what else.

Names lie. timm's LayerNorm2d is a LayerNorm that works on axis 1, T5's LayerNorm is an RMSNorm, Gemma's scale is
1 + weight. So a copy with random parameters runs on ``(..., C)`` and on ``(B, C, ...)``, and its output is compared
with scale * normalized + shift per channel. No size of the probe equals C, so the axis cannot be mistaken.
"""

import inspect
import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from dyt.conversion.probe import probe, shapes, twin
from dyt.norms.dynamic import DynamicTanh

TOLERANCE = 1e-3  # of an output of about 1; float32 errs by 1e-6, a wrong formula by 0.1
NOTHING = "only scales and shifts; it measures nothing"
UNNAMED = "its scale is not a parameter as it stands"
ELSE = "does something else than LayerNorm or RMSNorm over one axis"
# Element-wise layers of other libraries, by class name.
DYNAMIC = ("DynamicTanh", "DyT", "Derf", "DynamicErf", "LigerDyT")


@dataclass(frozen=True)
class Norm:
    """A module that normalizes over one axis and is understood to the last parameter."""

    kind: str  # layernorm, rmsnorm, groupnorm or batchnorm
    axis: int  # of the channels: -1, or 1
    width: int  # C
    scale: str | None  # the name of its scale parameter
    bias: str | None
    offset: float  # what is added to the scale: 1 in Gemma
    eps: float | None
    after: tuple[str, ...]  # children that run after the normalize step: dropout, activation
    ndim: int  # dimensions of an input that it accepts


def recognise(module: nn.Module, width: int | None = None) -> Norm | str:
    """A `Norm`, or in words why `module` is none that a per-channel layer can stand for.

    `width` is for a norm without parameters that does not say its own.
    """
    if why := _unfit(module):
        return why
    found = _width(module)
    if isinstance(found, str):
        return found
    guessed = found is None and width is None
    width = found or width or 6
    if width == 1:
        return "has one channel, and a mean over one number leaves nothing"
    if type(module) in (nn.LayerNorm, nn.RMSNorm) and set(module._parameters) <= {"weight", "bias"}:  # not pruned
        kind = "layernorm" if type(module) is nn.LayerNorm else "rmsnorm"
        scale, bias = (n if module._parameters.get(n) is not None else None for n in ("weight", "bias"))
        return Norm(kind, -1, width, scale, bias, 0.0, module.eps, (), 3)
    norms, reasons, ran, mixed = [], [], False, False
    tried = {axis: [(x, _try(module, x, axis)) for x in each] for axis, each in shapes(width, module).items()}
    deep = any(seen is not None and len(x) > 2 for each in tried.values() for x, seen in each)
    for each in tried.values():
        # In 2-D the last axis is axis 1, and says nothing about a module that takes more dimensions too.
        seen = [s for x, s in each if s is not None and not (deep and len(x) == 2)]
        ran = ran or bool(seen)
        found = [s for s in seen if isinstance(s, Norm)]
        norms += found[:1]
        mixed = mixed or bool(found) and len({replace(s, ndim=0) if isinstance(s, Norm) else s for s in seen}) > 1
        reasons += [s for s in seen if isinstance(s, str)]
    if not ran:
        return f"could not be tried on (..., {width}) or (B, {width}, ...)"
    if len(norms) == 2:
        return "normalizes over the last axis or over axis 1, depending on its input"
    if mixed:
        return "does not do the same to inputs of 2, 3 and 4 dimensions"
    if guessed and (norms or UNNAMED in reasons):  # x-transformers' SimpleRMSNorm scales by its own width
        return "has no parameters and does not say its width; type overrides={'its name': {'dim': C}}, C its channels"
    if norms:
        return norms[0]
    if set(reasons) == {NOTHING}:
        return NOTHING
    return next((r for r in reasons if r not in (ELSE, NOTHING)), ELSE)


def _unfit(module: nn.Module) -> str | None:
    """Why there is no point in running it."""
    name = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        return (
            "went through torch.jit already; convert before that, and type torch.export.export or torch.jit.trace in "
            "place of torch.jit.script, which takes no DyT"
        )
    if isinstance(module, DynamicTanh) or name in DYNAMIC:
        return "is element-wise already"
    if isinstance(module, _InstanceNorm):
        return "measures one channel over positions, not one position over channels"
    if re.search("frozen_?batch_?norm", name, re.I):
        return "scales and shifts by statistics that are frozen, as a BatchNorm of inference does"
    if isinstance(module, nn.LocalResponseNorm | nn.CrossMapLRN2d):
        return "divides by the response of neighbouring channels"
    if "forward" in vars(module):
        return "its forward was replaced from outside (a device map?); convert before that"
    if nn.utils.parametrize.is_parametrized(module):
        return "its parameters are parametrized"
    if any(nn.parameter.is_lazy(p) for p in (*module.parameters(), *module.buffers())):
        return "is lazy; run the model once first"
    if any(type(p).__name__ == "DTensor" for p in module.parameters()):
        return "is sharded; convert before fully_shard"
    if type(module).forward is nn.Module.forward:
        return "has no forward of its own"
    takes = list(inspect.signature(type(module).forward).parameters.values())[1:]
    more = [p.name for i, p in enumerate(takes) if i or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return f"takes more than its input: {', '.join(more)}" if more else None


def _width(module: nn.Module) -> int | str | None:
    """C, by its parameters or its normalized_shape; None where nothing says it, words where they disagree."""
    shape = getattr(module, "normalized_shape", None)
    if isinstance(shape, tuple | list) and len(shape) > 1:
        return f"normalizes over several axes at once, {tuple(shape)}"
    for key, p in module._parameters.items():
        if p is not None and p.numel() != max(p.shape, default=1):
            return f"its {key} has shape {tuple(p.shape)}: more than one number per channel"
    sizes = {p.numel() for p in module._parameters.values() if p is not None and p.numel() > 1}
    if len(sizes) > 1:
        return "has parameters of different sizes"
    if sizes:
        return sizes.pop()
    if any(p is not None for p in module._parameters.values()):
        own = shape[0] if isinstance(shape, tuple | list) else shape
        return own if own == 1 else "has one scale for all channels"
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    if isinstance(module, _BatchNorm):
        return module.num_features
    return shape[0] if isinstance(shape, tuple | list) and shape else shape if isinstance(shape, int) else None


@torch.no_grad()
def _try(module: nn.Module, shape: tuple[int, ...], axis: int) -> Norm | str | None:
    """None where it does not take this shape."""
    random = torch.Generator("cpu").manual_seed(0)
    copy, x = twin(module, random), probe(shape, axis, random)
    calls: list = []  # (child, its input, its output), in the order of the calls
    held: dict = {}
    for name, child in copy.named_children():
        child.register_forward_hook(
            lambda m, args, out, name=name: calls.append((name, held.pop(name, None), _kept(out)))
        )
        child.register_forward_pre_hook(lambda m, args, name=name: held.update({name: _kept(*args[:1])}))
    try:
        out = copy(x.clone())
    except Exception:  # whatever a foreign forward throws at this shape
        return None
    if not isinstance(out, Tensor):
        return "does not return one tensor"
    if out.shape != x.shape:
        return None
    if not isinstance(copy, _BatchNorm):
        seen, copy.training = list(calls), True  # of itself only: its children may be dropout
        with torch.random.fork_rng(devices=[]):
            again = copy(x.clone())
        if not torch.equal(again, out):
            return "does something else in training than in eval"
        calls = seen
    for body, after in (*([(calls[0][1], calls)] if calls else []), (out, [])):
        if body is None or body.shape != x.shape or not _chained(after, out):
            continue
        for kind, normal in _normals(copy, x, axis).items():
            found = _fit(copy, kind, normal, body, axis)
            if isinstance(found, str):
                return found
            if found and kind == "same" and not after:
                return NOTHING
            if found and kind != "same":
                if not after and (early := _hidden(copy, calls)):
                    return f"runs {early} before it normalizes"
                acts = tuple(n for n, _, _ in after if not isinstance(copy._modules[n], nn.Identity))
                return Norm(kind, axis, shape[axis], *found, _eps(module), acts, len(shape))
    return ELSE


def _hidden(copy: nn.Module, calls: list) -> str | None:
    """A child that ran and cannot be seen in the output, as a dropout in eval mode."""
    ran = ((name, copy._modules[name]) for name, _, _ in calls)
    return next((n for n, m in ran if not isinstance(m, nn.Identity) and not looks_like_norm("", m)), None)


def _kept(value=None):
    return value.clone() if isinstance(value, Tensor) else None


def _chained(calls: list, out: Tensor) -> bool:
    """Whether children ran one after the other, each on what the one before gave, and the last gave `out`."""
    ends = [c[2] for c in calls]
    starts = [c[1] for c in calls][1:] + [out]
    pairs = zip(ends, starts, strict=False)
    return all(e is not None and s is not None and e.shape == s.shape and torch.equal(e, s) for e, s in pairs)


def _normals(copy: nn.Module, x: Tensor, axis: int) -> dict[str, Tensor]:
    """What the output may be a scaled and shifted form of."""
    if isinstance(copy, nn.GroupNorm):
        return {"groupnorm": nn.functional.group_norm(x, copy.num_groups)}
    if isinstance(copy, _BatchNorm):
        return {"batchnorm": x}  # statistics of the batch: one scale and shift per channel
    centred = x - x.mean(axis, keepdim=True)
    return {
        "layernorm": centred / centred.square().mean(axis, keepdim=True).sqrt(),
        "rmsnorm": x / x.square().mean(axis, keepdim=True).sqrt(),
        "same": x,
    }


def _fit(copy: nn.Module, kind: str, normal: Tensor, out: Tensor, axis: int):
    """(scale name, bias name, offset) when out = scale * normal + bias; words where no parameter gives them."""
    n, y = (t.movedim(axis, -1).flatten(0, -2).double() for t in (normal, out))  # (N, C)
    mean_n, mean_y = n.mean(0), y.mean(0)
    s = ((n - mean_n) * (y - mean_y)).mean(0) / (n - mean_n).square().mean(0)
    t = mean_y - s * mean_n
    if not ((s * n + t - y).abs().max() <= TOLERANCE * y.abs().max()):
        return None
    if kind in ("same", "batchnorm"):
        direct = [k for k, p in copy._parameters.items() if p is not None]
        return ("weight" if "weight" in direct else None, "bias" if "bias" in direct else None, 0.0)

    def near(a, b) -> bool:
        return bool((a - b).abs().max() < TOLERANCE)

    own = {
        k: p.detach().flatten().double() for k, p in copy._parameters.items() if p is not None and p.numel() == len(s)
    }
    scale, offset, bias = None, 0.0, None
    if not near(s, torch.ones_like(s)):
        fits = [(k, o) for k, p in own.items() for o in (0.0, 1.0) if near(s, p + o)]
        if not fits:
            length = near(s * len(s) ** 0.5, torch.ones_like(s))
            return "scales to unit length, not to unit variance" if length else UNNAMED
        scale, offset = fits[0]
    if not near(t, torch.zeros_like(t)):
        fits = [k for k, p in own.items() if k != scale and near(t, p)]
        if not fits:
            return "its shift is not a parameter as it stands"
        bias = fits[0]
    if spare := [k for k, p in copy._parameters.items() if p is not None and k not in (scale, bias)]:
        return f"has a parameter whose part is not clear: {', '.join(spare)}"
    if bias and not scale:
        return "has a shift without a scale"
    return scale, bias, offset


def _eps(module: nn.Module) -> float | None:
    for name in ("eps", "variance_epsilon", "epsilon", "norm_eps", "layer_norm_eps"):
        if isinstance(value := getattr(module, name, None), float | int) and not isinstance(value, bool):
            return float(value)
    return None


def gives(module: nn.Module, norm: Norm, dtype: torch.dtype) -> torch.dtype | None:
    """The dtype of its output for an input of `dtype`, with its parameters as they are; None where it fails."""
    random = torch.Generator("cpu").manual_seed(0)
    shape = next(s for s in shapes(norm.width, module)[norm.axis] if len(s) == norm.ndim)
    try:
        with torch.no_grad():
            return twin(module, random, None)(probe(shape, norm.axis, random).to(dtype)).dtype
    except Exception:  # whatever a foreign forward throws at this dtype
        return None


def looks_like_norm(name: str, module: nn.Module) -> bool:
    """By class, class name or the last part of its own name; a no-op, an activation or a container is none."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | _BatchNorm | _InstanceNorm | DynamicTanh):
        return True
    kind = getattr(module, "original_name", None) or type(module).__name__  # a scripted module tells its own
    if re.search(r"norm|GRN$", kind, re.I) or re.match(r"(LN|RMS)([A-Z_\d]|$)", kind) or kind in DYNAMIC:
        return True
    if type(module).__module__.startswith("torch.nn.modules.") or kind == "Identity":
        return False
    last = name.rpartition(".")[2]
    return bool(re.search(r"norm|^ln_?(\d|f|$)|_ln$", last, re.I))
