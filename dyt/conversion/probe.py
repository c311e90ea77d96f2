"""A copy of a module to run, and the inputs to run it on: the module itself is never called."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

PLAIN = {"device": "cpu", "dtype": torch.float32}


def shapes(width: int, module: nn.Module) -> dict[int, list[tuple[int, ...]]]:
    a, b, c, d = [n for n in (3, 5, 2, 7, 11) if n != width][:4]
    first = [(a, width, b, c), (a, width, b), (a, width, b, c, d)]
    if isinstance(module, _BatchNorm):
        return {1: [*first, (a * b, width)]}
    if isinstance(module, nn.GroupNorm):
        return {1: first}
    return {-1: [(a, b, width), (a, b, c, width), (a * b, width)], 1: first}


def twin(module: nn.Module, random: torch.Generator, dtype: torch.dtype | None = torch.float32) -> nn.Module:
    """A copy in eval mode, on the CPU, without hooks, with random parameters; `dtype` None keeps theirs."""
    copy = type(module).__new__(type(module))
    copy.__dict__ = dict(vars(module))
    for key, value in vars(module).items():
        if "hooks" in key and isinstance(value, dict):
            copy.__dict__[key] = OrderedDict()
        elif isinstance(value, list | dict | set):
            copy.__dict__[key] = value.copy()  # what a forward writes down stays with the copy

    def anew(t: Tensor | None) -> Tensor | None:
        if t is None:
            return None
        if not t.is_floating_point():
            return torch.zeros(t.shape, dtype=t.dtype, device="cpu")
        return (torch.rand(t.shape, generator=random, **PLAIN) + 0.5).to(dtype or t.dtype)

    def held(b: Tensor | None) -> Tensor | None:  # as it is: a shift of zeros that is not learned is no shift
        plain = b is not None and not b.is_meta and b.is_floating_point()
        return b.detach().to("cpu", dtype or b.dtype, copy=True) if plain else anew(b)

    copy.__dict__["_parameters"] = {
        k: None if p is None else nn.Parameter(anew(p), requires_grad=False) for k, p in module._parameters.items()
    }
    copy.__dict__["_buffers"] = {k: held(b) for k, b in module._buffers.items()}
    copy.__dict__["_modules"] = {k: None if m is None else twin(m, random, dtype) for k, m in module._modules.items()}
    copy.__dict__["training"] = False
    copy.__dict__["_compiled_call_impl"] = None
    return copy


def probe(shape: tuple[int, ...], axis: int, random: torch.Generator) -> Tensor:
    """Numbers of about 30 with another mean at each position, so that an eps of 1e-3 cannot be seen."""
    mean = list(shape)
    mean[axis] = 1
    return 30 * (torch.randn(shape, generator=random, **PLAIN) + torch.randn(mean, generator=random, **PLAIN))
