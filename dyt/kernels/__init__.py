"""The DyT operator, by whichever implementation fits: `dynamic` is the one place that picks.

    reference   plain PyTorch, any device, any derivative
    compiled    torch.compile of the reference
    native      C++, CPU: one pass forward, one backward, only x saved
    triton      CUDA: likewise

``DYT_KERNEL=auto|reference|compiled|native|triton`` or ``trainer.kernel=`` forces one.
"""

import logging
import os
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.compiler import is_compiling

from dyt.kernels import native, reference
from dyt.kernels.reference import SQUASH

log = logging.getLogger(__name__)
KERNELS = ("auto", "reference", "compiled", "native", "triton")
_forced: str | None = None
_native: Callable | None = None  # the operator, once a CPU tensor was seen to go to it
_functorch_level = torch._C._functorch.peek_interpreter_stack


def force(kernel: str) -> None:
    """Makes every DyT of this process use one implementation; ``auto`` leaves it to DYT_KERNEL, or to what fits.

    Raises:
        ValueError: an unknown name, or one that cannot run here, with the reason.
    """
    global _forced, _native
    _forced, _native = _checked(kernel, "trainer.kernel="), None
    _from_environment()


def _checked(kernel: str, typed: str) -> str | None:
    """None for auto; native and triton are loaded."""
    if kernel not in KERNELS:
        raise ValueError(f"{typed}{kernel}: choose from {', '.join(KERNELS)}")
    if why := _why_not(kernel):
        raise ValueError(f"{typed}{kernel}: {why}; type {typed}auto")
    return None if kernel == "auto" else kernel


@cache
def _from_environment() -> str | None:
    return _checked(os.environ.get("DYT_KERNEL", "auto"), "DYT_KERNEL=")


@cache
def _triton_missing() -> str | None:
    """Why Triton's kernels cannot run here: no package, no GPU, no C compiler for what launches them."""
    try:
        from triton.runtime import JITFunction, driver

        from dyt.kernels import gpu

        if isinstance(gpu.forward, JITFunction):  # not in the interpreter
            if not torch.cuda.is_available():
                return "torch sees no GPU here"
            driver.active.get_current_target()
    except Exception as error:  # whatever a driver throws
        return f"Triton cannot be used ({' '.join(str(error).split())[:200]})"
    return None


def _why_not(kernel: str) -> str | None:
    """Why it cannot run here, in words; what can is loaded."""
    return {"native": native.load, "triton": _triton_missing}.get(kernel, lambda: None)()


@cache
def _unless_missing(kernel: str) -> str:
    if why := _why_not(kernel):
        log.warning("the fused DyT kernel cannot be used (%s); plain PyTorch takes its place, slower", why)
        return "reference"
    return kernel


@cache
def _compiled():
    return torch.compile(reference.dynamic)


def _for(device: str, compiling: bool) -> str:
    forced = _forced or _from_environment()
    if forced:
        return forced
    if device == "cpu":
        return _unless_missing("native")
    # Under torch.compile on CUDA, Inductor fuses the plain form with its neighbours.
    return _unless_missing("triton") if device == "cuda" and not compiling else "reference"


# Decided while tracing: files and compilers are no part of a graph. torch.compiler.assume_constant_result does just
# this, but imports Dynamo, a second for everybody.
_for._dynamo_marked_constant = True


def chosen(x: Tensor) -> str:
    """The implementation that `dynamic` takes for `x`."""
    if is_compiling():
        return _for(x.device.type, True)
    if _functorch_level() is not None:
        return "reference"  # vmap and torch.func.grad see through plain PyTorch only
    return _for(x.device.type, False)


def dynamic(
    x: Tensor,
    alpha: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    shift: Tensor | None,
    squash: str,
    channels_last: bool = True,
) -> Tensor:
    """weight * squash(alpha * x + shift) + bias in one kernel; None is left out. Shapes as in `reference.dynamic`.

    The result has the dtype that PyTorch's promotion gives (bfloat16 x with float32 parameters: float32).
    """
    # The short way. A layer runs with cold caches, where each Python call and lookup costs some microseconds: by the
    # long way a small GPT's layer took 80 of them where LayerNorm takes 55.
    global _native
    if x.is_cpu and not is_compiling() and _native is not None and _functorch_level() is None:
        return _native(x, alpha, weight, bias, shift, SQUASH[squash][0], channels_last)
    kernel = chosen(x)
    if kernel == "reference":
        return reference.dynamic(x, alpha, weight, bias, shift, squash, channels_last)
    if kernel == "compiled":
        return _compiled()(x, alpha, weight, bias, shift, squash, channels_last)
    if kernel == "native":
        operator = torch.ops.dyt.fused.default
        if not is_compiling():
            _native = operator
        return operator(x, alpha, weight, bias, shift, SQUASH[squash][0], channels_last)
    from dyt.kernels.gpu import fused

    for p in (alpha, weight, bias, shift):
        if p is not None and p.dtype != x.dtype:
            x = x.to(torch.promote_types(x.dtype, p.dtype))
    return fused(x, alpha, weight, bias, shift, SQUASH[squash][0], channels_last)
