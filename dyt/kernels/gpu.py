"""Fused DyT on CUDA: forward and backward by Triton, only x saved. Runs anywhere under TRITON_INTERPRET=1."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from dyt.kernels.gpu_kernels import backward, forward

PROGRAMS = 1024  # of a backward pass, at most: enough for any GPU
STEPS = 4  # of a program, at least: each program leaves a row of sums, which must be few beside x


def _shape(x: Tensor, channels_last: bool) -> tuple[int, int, int]:
    """(rows, cols, channels) of the view."""
    channels = x.shape[-1] if channels_last else x.shape[1]
    cols = channels if channels_last else x.numel() // max(1, x.shape[0] * channels)
    return x.numel() // max(1, cols), cols, channels


def _block(cols: int, values: int) -> tuple[int, int]:
    """(R, C): about `values` a block, all columns of a narrow row."""
    c = min(1024, triton.next_power_of_2(max(1, cols)))
    return max(1, values // c), c


def _flags(x, alpha, weight, bias, shift, channels_last) -> dict:
    """What the kernels are compiled for."""
    return {
        "wide": channels_last,
        "alpha_each": alpha is not None and alpha.numel() > 1,
        "has_alpha": alpha is not None,
        "has_weight": weight is not None,
        "has_bias": bias is not None,
        "has_shift": shift is not None,
        "acc": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "enable_fp_fusion": True,  # a * b + c in one instruction; Triton's default differs between versions
    }


def _laid_out(parameters, channels: int) -> list[Tensor | None]:
    """As the kernels read them: weight and bias by channel, alpha too unless it is one number; contiguous."""

    def by_channel(p: Tensor | None) -> Tensor | None:
        return p if p is None else p.reshape(-1).expand(channels).contiguous()

    alpha, weight, bias, shift = parameters
    single = alpha is None or alpha.numel() == 1
    return [alpha if single else by_channel(alpha), by_channel(weight), by_channel(bias), shift]


def _forward_op(
    x: Tensor,
    alpha: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    shift: Tensor | None,
    squash: int,
    channels_last: bool,
) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    if x.numel() == 0:
        return y
    rows, cols, channels = _shape(x, channels_last)
    parameters = _laid_out((alpha, weight, bias, shift), channels)
    r, c = _block(cols, 4096)
    grid = (triton.cdiv(rows, r), triton.cdiv(cols, c))
    with torch.cuda.device_of(x):
        forward[grid](
            x, y, *parameters, rows, cols, channels, squash, **_flags(x, *parameters, channels_last), R=r, C=c
        )  # fmt: skip
    return y


def _backward_op(
    grad: Tensor,
    x: Tensor,
    alpha: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    shift: Tensor | None,
    squash: int,
    channels_last: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x, grad = x.contiguous(), grad.contiguous()
    dx = torch.empty_like(x)
    rows, cols, channels = _shape(x, channels_last)
    a, w, b, s = _laid_out((alpha, weight, bias, shift), channels)
    flags = _flags(x, a, w, b, s, channels_last)
    planes = flags["has_weight"] + flags["has_bias"] + flags["alpha_each"]
    r, c = _block(cols, 2048)
    across, down = triton.cdiv(cols, c), triton.cdiv(rows, r)
    if channels_last:
        steps = max(STEPS, triton.cdiv(down, max(1, PROGRAMS // max(1, across))))
        grid = (triton.cdiv(down, steps), across)
        shape = (planes, grid[0], cols)
    else:
        steps, grid, shape = across, (down, 1), (planes, rows // max(1, channels), channels)
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    sums = torch.empty(shape, dtype=kind, device=x.device)
    totals = torch.empty(2, grid[0] * grid[1], dtype=kind, device=x.device)
    if x.numel():
        with torch.cuda.device_of(x):
            backward[grid](
                grad, x, dx, sums, totals, a, w, s, rows, cols, channels, steps, squash, **flags, R=r, C=c
            )  # fmt: skip
    each = iter(sums)

    def gradient(p: Tensor | None, of_one: Tensor | None = None) -> Tensor:
        if p is None:
            return torch.empty(0, dtype=kind, device=x.device)
        total = (
            next(each).sum(dim=0) if of_one is None else of_one.sum()
        )  # memory of its own: an operator's must not be shared
        return (total if p.numel() == total.numel() else total.sum()).to(p.dtype).reshape(p.shape)

    d_weight, d_bias = gradient(weight), gradient(bias)
    d_alpha = gradient(alpha, None if flags["alpha_each"] else totals[0])
    return dx, d_alpha, d_weight, d_bias, gradient(shift, totals[1])


_arguments = "Tensor? alpha, Tensor? weight, Tensor? bias, Tensor? shift, int squash, bool channels_last"
torch.library.define("dyt::triton", f"(Tensor x, {_arguments}) -> Tensor")
torch.library.define(
    "dyt::triton_backward", f"(Tensor grad, Tensor x, {_arguments}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
torch.library.impl("dyt::triton", ("cpu", "cuda"), _forward_op)
torch.library.impl("dyt::triton_backward", ("cpu", "cuda"), _backward_op)


def _all_meta(x: Tensor) -> None:
    if x.device.type != "meta" and type(x) is Tensor:  # no fake one
        raise RuntimeError(
            f"dyt: a parameter is on meta and the input on {x.device}; load the parameter, or type "
            "layer.to_empty(device=...) and layer.reset_parameters()"
        )


@torch.library.register_fake("dyt::triton")
def _(x, alpha, weight, bias, shift, squash, channels_last):
    _all_meta(x)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.register_fake("dyt::triton_backward")
def _(grad, x, alpha, weight, bias, shift, squash, channels_last):
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32

    def like(p):
        return (
            torch.empty_like(p, memory_format=torch.contiguous_format) if p is not None else x.new_empty(0, dtype=kind)
        )

    return torch.empty_like(x, memory_format=torch.contiguous_format), *map(like, (alpha, weight, bias, shift))


def _save(ctx, inputs, output):
    *tensors, ctx.squash, ctx.channels_last = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad, operator=torch.ops.dyt.triton_backward):
    if torch.is_grad_enabled():
        raise RuntimeError(
            "dyt: the fused kernel has no second derivative; set DYT_KERNEL=reference for create_graph=True"
        )
    x, *parameters = ctx.saved_tensors
    dx, *sums = operator(grad, x, *parameters, ctx.squash, ctx.channels_last)
    return dx, *(s if p is not None else None for s, p in zip(sums, parameters, strict=True)), None, None


torch.library.register_autograd("dyt::triton", _differentiate, setup_context=_save)


class _Direct(torch.autograd.Function):
    """The same without torch's dispatcher, which takes a Python operator longer than the GPU takes for a layer."""

    @staticmethod
    def forward(ctx, *inputs):
        _save(ctx, inputs, None)
        return _forward_op(*inputs)

    @staticmethod
    def backward(ctx, grad):
        several = torch._C._functorch.is_batchedtensor(grad) or torch._C._functorch.is_legacy_batchedtensor(grad)
        if several:  # is_grads_batched: the operator is called for one after the other
            return _differentiate(ctx, grad)
        return _differentiate(ctx, grad, _backward_op)


def fused(x: Tensor, *rest) -> Tensor:
    """As `dyt.kernels.dynamic`, with the squash's number; x has the dtype of the result."""
    plain = type(x) in (Tensor, torch.nn.Parameter) and not torch._C._len_torch_dispatch_stack()
    # What looks into operators: fake tensors, DTensor, counters; and tensors of which there are shapes alone.
    if torch.compiler.is_compiling() or not plain or x.is_meta:
        return torch.ops.dyt.triton(x, *rest)
    return _Direct.apply(x, *rest)
