"""The DyT operator, by whichever implementation fits: `dynamic` is the one place that picks.

    reference   plain PyTorch, any device, any derivative
    compiled    torch.compile of the reference
    native      C++, CPU: one pass forward, one backward, only x saved
    triton      CUDA: likewise

``DYT_KERNEL=auto|reference|compiled|native|triton`` or ``trainer.kernel=`` forces one. Whatever is forced, a graph
that leaves this process (torch.export, torch.fx, either ONNX exporter) holds plain operators only: it loads where this
package is not installed. Plain PyTorch also serves what sees through it alone: vmap, forward-mode AD, DTensor.
"""

import logging
import os
import sys
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling, is_exporting

from dyt.kernels import native, reference
from dyt.kernels.reference import SQUASH

log = logging.getLogger(__name__)
KERNELS = ("auto", "reference", "compiled", "native", "triton")
_forced: str | None = None
_native: Callable | None = None  # the operator, once a CPU tensor was seen to go to it
_functorch_level = torch._C._functorch.peek_interpreter_stack
_is_tracing = torch._C._is_tracing  # torch.jit.trace, and with it the older ONNX exporter


def force(kernel: str) -> None:
    """Makes every DyT of this process use one implementation; ``auto`` leaves it to DYT_KERNEL, or to what fits.

    What torch.compile made before is made anew: it holds the implementation as a constant.

    Raises:
        ValueError: an unknown name, or one that cannot run here, with the reason.
    """
    global _forced, _native
    before = _forced
    _forced, _native = _checked(kernel, "trainer.kernel="), None
    _from_environment()
    if _forced != before and (dynamo := sys.modules.get("torch._dynamo")):
        dynamo.reset()


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
    # DTensor and its kind are made of other tensors and know plain operators.
    if is_exporting() or hasattr(type(x), "__tensor_flatten__"):
        return "reference"
    if is_compiling():
        return _for(x.device.type, True)
    if _functorch_level() is not None or forward_ad._current_level >= 0 or _is_tracing():
        return "reference"
    return _for(x.device.type, False)


def misfit(x: Tensor, channels: int, channels_last: bool) -> str | None:
    """Why `x` is no input for a layer of `channels` channels, in words; None where it is one."""
    axis = -1 if channels_last else 1
    if x.dim() > (0 if channels_last else 1) and x.shape[axis] == channels:
        return None
    where = "last axis" if channels_last else "axis 1"
    other = 1 if channels_last else -1
    turned = x.dim() > 2 and x.shape[other] == channels
    advice = f"; type channels_last={not channels_last}" if turned else ""
    return f"DyT: x of shape {tuple(x.shape)} does not have this layer's {channels} channels on its {where}{advice}"


def _in_jagged(x: Tensor, alpha, weight, bias, shift, squash: str, channels_last: bool, channels: int | None) -> Tensor:
    """`dynamic` on the values of a nested tensor ``(B, ragged, ..., C)``."""
    if x.layout != torch.jagged:
        raise ValueError("DyT: a nested tensor needs layout=torch.jagged")
    if not channels_last or x._ragged_idx == x.dim() - 1:
        raise ValueError("DyT: a nested tensor needs its channels on the last axis and that axis regular")
    values = dynamic(x.values(), alpha, weight, bias, shift, squash, True, channels)
    return torch.nested.nested_tensor_from_jagged(values, x.offsets(), x.lengths(), jagged_dim=x._ragged_idx)


def dynamic(
    x: Tensor,
    alpha: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    shift: Tensor | None,
    squash: str,
    channels_last: bool = True,
    channels: int | None = None,
) -> Tensor:
    """weight * squash(alpha * x + shift) + bias in one kernel; None is left out. Shapes as in `reference.dynamic`.

    `channels` is the layer's, where it is known; else the parameters tell. The result has the dtype that PyTorch's
    promotion gives (bfloat16 x with float32 parameters: float32). ``(B, C, H, W)`` in memory format channels-last comes
    out so.

    Raises:
        ValueError: x or a parameter has another number of channels; the same line whichever kernel is taken.
    """
    # The short way. A layer runs with cold caches, where each Python call and lookup costs some microseconds: by the
    # long way a small GPT's layer took 80 of them where LayerNorm takes 55.
    global _native
    if (
        _native is not None
        and channels is not None
        and type(x) is Tensor
        and x.is_cpu
        and (channels_last or x.is_contiguous())
        and not is_compiling()
        and _functorch_level() is None
        and not _is_tracing()
        and forward_ad._current_level < 0
        and not x.is_nested
    ):
        if (x.shape[-1:] if channels_last else x.shape[1:2]) != (channels,):
            raise ValueError(misfit(x, channels, channels_last))
        return _native(x, alpha, weight, bias, shift, SQUASH[squash][0], channels_last)
    if not isinstance(x, Tensor) or _is_tracing():  # torch.fx's stand-in; in a trace, shapes are values that it records
        return reference.dynamic(x, alpha, weight, bias, shift, squash, channels_last)
    if x.is_nested:
        return _in_jagged(x, alpha, weight, bias, shift, squash, channels_last, channels)
    sizes = [p.numel() for p in (alpha, weight, bias, shift) if p is not None]
    if channels is None and max(sizes, default=1) > 1:
        channels = max(sizes)
    if channels is not None:
        if why := misfit(x, channels, channels_last):
            raise ValueError(why)
        if wrong := [size for size in sizes if size not in (1, channels)]:
            raise ValueError(f"DyT: a parameter has {wrong[0]} values for {channels} channels")
    if not channels_last and not x.is_contiguous() and (turned := x.movedim(1, -1)).is_contiguous():
        return dynamic(turned, alpha, weight, bias, shift, squash, True, channels).movedim(-1, 1)
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
