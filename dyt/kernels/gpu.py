"""Fused DyT in Triton, for CUDA: forward and backward, only x saved. Runs anywhere under TRITON_INTERPRET=1.

The view is that of native.cpp: (rows, cols), "wide" with channels last, "tall" with channels first. Sums over rows go
to one partial a program and are added by torch: no atomics, so the same input gives the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _f(z, squash: tl.constexpr):
    if squash == 0:
        return 2.0 * tl.sigmoid(2.0 * z) - 1.0  # libdevice's tanh does not run in the interpreter
    if squash == 1:
        return tl.where(z > 1.0, 1.0, tl.where(z < -1.0, -1.0, z))  # NaN stays
    if squash == 2:
        return tl.sigmoid(z)
    if squash == 3:
        return tl.erf(z)
    if squash == 4:
        return z / tl.sqrt(1.0 + z * z)
    return z


@triton.jit
def _df(z, t, squash: tl.constexpr):
    if squash == 0:
        return 1.0 - t * t
    if squash == 1:
        return tl.where((z >= 1.0) | (z <= -1.0), 0.0, 1.0)
    if squash == 2:
        return t * (1.0 - t)
    if squash == 3:
        return 1.1283791670955126 * tl.exp(-z * z)
    if squash == 4:
        r = 1.0 / tl.sqrt(1.0 + z * z)
        return r * r * r
    return z * 0.0 + 1.0


@triton.jit
def _values(p, c, mask, missing: tl.constexpr, each: tl.constexpr, given: tl.constexpr, like):
    """A parameter for channels `c`, in the dtype of `like`."""
    if not given:
        return like * 0 + missing
    if each:
        return tl.load(p + c, mask=mask, other=missing).to(like.dtype)
    return tl.load(p).to(like.dtype) + like * 0


@triton.jit
def _forward(
    x, y, alpha, weight, bias, shift, rows, cols, channels,
    squash: tl.constexpr, wide: tl.constexpr, alpha_each: tl.constexpr, has_alpha: tl.constexpr,
    has_weight: tl.constexpr, has_bias: tl.constexpr, has_shift: tl.constexpr, acc: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)[:, None]
    c = tl.program_id(1) * C + tl.arange(0, C)[None, :]
    inside = (r < rows) & (c < cols)
    if wide:
        channel, known = c, c < cols
    else:
        channel, known = r % channels, r < rows
    at = r * cols + c  # int64: a tensor may hold over 2^31 elements
    a = tl.load(x + at, mask=inside, other=0.0).to(acc)
    none = (channel * 0).to(acc)
    z = a * _values(alpha, channel, known, 1, alpha_each, has_alpha, none)
    z += _values(shift, channel, known, 0, False, has_shift, none)
    out = _f(z, squash) * _values(weight, channel, known, 1, True, has_weight, none)
    out += _values(bias, channel, known, 0, True, has_bias, none)
    tl.store(y + at, out.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    g, x, dx, sums, alpha, weight, shift, rows, cols, channels, steps,
    squash: tl.constexpr, wide: tl.constexpr, alpha_each: tl.constexpr, has_alpha: tl.constexpr,
    has_weight: tl.constexpr, has_shift: tl.constexpr, acc: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Wide: a program takes C columns of `steps` blocks of R rows. Tall: R rows and `steps` blocks of C columns.

    sums is (4, programs along the summed axis, channels or rows): of alpha, shift, weight, bias.
    """
    p, q = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if wide:
        c = q * C + tl.arange(0, C)[None, :]
        channel, known = c, c < cols
        size = cols
    else:
        r = p * R + tl.arange(0, R)[:, None]
        channel, known = r % channels, r < rows
        size = rows
    none = (channel * 0).to(acc)
    slope = _values(alpha, channel, known, 1, alpha_each, has_alpha, none)
    scale = _values(weight, channel, known, 1, True, has_weight, none)
    offset = _values(shift, channel, known, 0, False, has_shift, none)
    s_alpha, s_shift, s_weight, s_bias = none, none, none, none
    for step in range(steps):
        if wide:
            r = (p * steps + step) * R + tl.arange(0, R)[:, None]
        else:
            c = step * C + tl.arange(0, C)[None, :]
        inside = (r < rows) & (c < cols)
        at = r * cols + c
        a = tl.load(x + at, mask=inside, other=0.0).to(acc)
        b = tl.load(g + at, mask=inside, other=0.0).to(acc)
        z = a * slope + offset
        t = _f(z, squash)
        gz = b * scale * _df(z, t, squash)
        tl.store(dx + at, (gz * slope).to(dx.dtype.element_ty), mask=inside)
        axis: tl.constexpr = 0 if wide else 1
        s_alpha += tl.sum(gz * a, axis=axis, keep_dims=True)
        s_shift += tl.sum(gz, axis=axis, keep_dims=True)
        s_weight += tl.sum(b * t, axis=axis, keep_dims=True)
        s_bias += tl.sum(b, axis=axis, keep_dims=True)
    to = channel if wide else r
    plane = (tl.num_programs(0) if wide else 1) * size
    base = (p * size if wide else 0) + to
    tl.store(sums + base, s_alpha, mask=known)
    tl.store(sums + plane + base, s_shift, mask=known)
    tl.store(sums + 2 * plane + base, s_weight, mask=known)
    tl.store(sums + 3 * plane + base, s_bias, mask=known)


def _shape(x: Tensor, channels_last: bool) -> tuple[int, int, int]:
    """(rows, cols, channels) of the view."""
    channels = x.shape[-1] if channels_last else x.shape[1]
    cols = channels if channels_last else x.numel() // max(1, x.shape[0] * channels)
    return x.numel() // max(1, cols), cols, channels


def _block(cols: int) -> tuple[int, int]:
    """(R, C): about 4,096 values a block, all columns of a narrow row."""
    c = min(1024, triton.next_power_of_2(max(1, cols)))
    return max(1, 4096 // c), c


def _options(x, alpha, weight, bias, shift, channels_last):
    rows, cols, channels = _shape(x, channels_last)
    r, c = _block(cols)
    acc = tl.float64 if x.dtype == torch.float64 else tl.float32
    flags = {
        "wide": channels_last,
        "alpha_each": alpha is not None and alpha.numel() > 1,
        "has_alpha": alpha is not None,
        "has_weight": weight is not None,
        "has_shift": shift is not None,
        "acc": acc,
    }
    return rows, cols, channels, r, c, flags


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
    rows, cols, channels, r, c, flags = _options(x, alpha, weight, bias, shift, channels_last)
    grid = (triton.cdiv(rows, r), triton.cdiv(cols, c))
    _forward[grid](
        x, y, alpha, weight, bias, shift, rows, cols, channels, squash, has_bias=bias is not None, **flags, R=r, C=c
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
    rows, cols, channels, r, c, flags = _options(x, alpha, weight, bias, shift, channels_last)
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    if x.numel() == 0:
        sums = torch.zeros(4, 1, channels, dtype=kind, device=x.device)
    elif channels_last:
        blocks = triton.cdiv(rows, r)
        programs = min(blocks, 512)  # enough to fill any GPU; each partial is a row of `sums`
        steps = triton.cdiv(blocks, programs)
        programs = triton.cdiv(blocks, steps)
        sums = torch.empty(4, programs, cols, dtype=kind, device=x.device)
        grid = (programs, triton.cdiv(cols, c))
        _backward[grid](
            grad, x, dx, sums, alpha, weight, shift, rows, cols, channels, steps, squash, **flags, R=r, C=c
        )  # fmt: skip
    else:
        sums = torch.empty(4, rows, dtype=kind, device=x.device)
        _backward[(triton.cdiv(rows, r), 1)](
            grad, x, dx, sums, alpha, weight, shift, rows, cols, channels, triton.cdiv(cols, c), squash, **flags,
            R=r, C=c,
        )  # fmt: skip
        sums = sums.view(4, -1, channels)
    sums = sums.sum(dim=1)  # (4, channels)

    def as_gradient(total: Tensor, p: Tensor | None) -> Tensor:
        if p is None:
            return torch.empty(0, dtype=kind, device=x.device)
        return (total if p.numel() > 1 or channels == 1 else total.sum()).to(p.dtype).reshape(p.shape)

    pairs = ((sums[0], alpha), (sums[2], weight), (sums[3], bias), (sums[1], shift))
    return dx, *(as_gradient(total, p) for total, p in pairs)


_arguments = "Tensor? alpha, Tensor? weight, Tensor? bias, Tensor? shift, int squash, bool channels_last"
torch.library.define("dyt::triton", f"(Tensor x, {_arguments}) -> Tensor")
torch.library.define(
    "dyt::triton_backward", f"(Tensor grad, Tensor x, {_arguments}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
torch.library.impl("dyt::triton", ("cpu", "cuda"), _forward_op)
torch.library.impl("dyt::triton_backward", ("cpu", "cuda"), _backward_op)


@torch.library.register_fake("dyt::triton")
def _(x, alpha, weight, bias, shift, squash, channels_last):
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


def _differentiate(ctx, grad):
    x, *parameters = ctx.saved_tensors
    dx, *sums = torch.ops.dyt.triton_backward(grad, x, *parameters, ctx.squash, ctx.channels_last)
    return dx, *(s if p is not None else None for s, p in zip(sums, parameters, strict=True)), None, None


torch.library.register_autograd("dyt::triton", _differentiate, setup_context=_save)
fused = torch.ops.dyt.triton
