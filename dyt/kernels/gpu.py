"""Fused DyT in Triton, for CUDA: forward and backward, only x saved. Runs anywhere under TRITON_INTERPRET=1.

The view is that of native.cpp: (rows, cols), "wide" with channels last, "tall" with channels first. Sums over rows go
to one partial a program and are added by torch: no atomics, so the same input gives the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _tanh_and_slope(z):
    """Both from E = exp(-2 |z|): 1 - t * t would lose all digits where t is near 1. Near 0, where 1 - E loses them,
    t is tanh's series. (libdevice's tanh does not run in the interpreter.)
    """
    e = tl.exp2(-2.8853900817779268 * tl.abs(z))  # 2 log2(e)
    r = 1.0 / (1.0 + e)
    size = (1.0 - e) * r
    u = z * z
    if z.dtype == tl.float64:
        s = -929569.0 / 638512875 * u + 21844.0 / 6081075
        s = s * u - 1382.0 / 155925
        s = s * u + 62.0 / 2835
        s = s * u - 17.0 / 315
        s = s * u + 2.0 / 15
    else:
        s = 2.0 / 15 + u * 0
    near = z + z * u * (s * u - 1.0 / 3)
    t = tl.where(tl.abs(z) < 0.1, near, tl.where(z < 0, -size, size))
    return t, 4.0 * (e * r) * r


@triton.jit
def _value_and_slope(z, squash: tl.constexpr):
    """f(z) and f'(z); what a caller leaves unused is not computed."""
    if squash == 0:
        t, d = _tanh_and_slope(z)
    elif squash == 1:  # NaN stays
        t = tl.where(z > 1.0, 1.0, tl.where(z < -1.0, -1.0, z))
        d = tl.where((z >= 1.0) | (z <= -1.0), 0.0, 1.0).to(z.dtype)
    elif squash == 2:
        t, d = _tanh_and_slope(0.5 * z)
        t, d = 0.5 + 0.5 * t, 0.25 * d
    elif squash == 3:
        t, d = tl.erf(z), 1.1283791670955126 * tl.exp(-z * z)
    elif squash == 4:
        r = 1.0 / tl.sqrt(1.0 + z * z)
        t, d = z * r, r * r * r
    else:
        t, d = z, tl.full(z.shape, 1.0, z.dtype)
    return t, d


@triton.jit
def _values(p, c, mask, missing: tl.constexpr, each: tl.constexpr, given: tl.constexpr, like):
    """A parameter for channels `c`, in the dtype of `like`."""
    if not given:  # one return: the compiler goes on past one inside an if, the interpreter does not
        v = like * 0 + missing
    elif each:
        v = tl.load(p + c, mask=mask, other=missing).to(like.dtype)
    else:
        v = tl.load(p).to(like.dtype) + like * 0
    return v


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
    t, _ = _value_and_slope(z, squash)
    out = t * _values(weight, channel, known, 1, True, has_weight, none)
    out += _values(bias, channel, known, 0, True, has_bias, none)
    tl.store(y + at, out.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    g, x, dx, sums, totals, alpha, weight, shift, rows, cols, channels, steps,
    squash: tl.constexpr, wide: tl.constexpr, alpha_each: tl.constexpr, has_alpha: tl.constexpr,
    has_weight: tl.constexpr, has_bias: tl.constexpr, has_shift: tl.constexpr, acc: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Wide: a program takes C columns of `steps` blocks of R rows. Tall: R rows and `steps` blocks of C columns.

    sums is (those of weight, bias and, by channel, alpha that there are; programs along the summed axis; channels or
    rows); totals, of what is one number, (alpha and shift; programs).
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
    # Whole blocks are added up and reduced once at the end.
    by_weight, by_bias = tl.zeros((R, C), acc), tl.zeros((R, C), acc)
    by_alpha, by_shift = tl.zeros((R, C), acc), tl.zeros((R, C), acc)
    for step in range(steps):
        if wide:
            r = (p * steps + step) * R + tl.arange(0, R)[:, None]
        else:
            c = step * C + tl.arange(0, C)[None, :]
        inside = (r < rows) & (c < cols)
        at = r * cols + c
        a = tl.load(x + at, mask=inside, other=0.0).to(acc)
        b = tl.load(g + at, mask=inside, other=0.0).to(acc)
        t, d = _value_and_slope(a * slope + offset, squash)
        gz = b * scale * d
        tl.store(dx + at, (gz * slope).to(dx.dtype.element_ty), mask=inside)
        if has_weight:
            by_weight += b * t
        if has_bias:
            by_bias += b
        if has_alpha:
            by_alpha += gz * a
        if has_shift:
            by_shift += gz
    axis: tl.constexpr = 0 if wide else 1
    plane = (tl.num_programs(0) if wide else 1) * size
    to = sums + (p * size if wide else 0) + (channel if wide else r)
    if has_weight:
        tl.store(to, tl.sum(by_weight, axis=axis, keep_dims=True), mask=known)
        to += plane
    if has_bias:
        tl.store(to, tl.sum(by_bias, axis=axis, keep_dims=True), mask=known)
        to += plane
    program = p * tl.num_programs(1) + q
    if alpha_each:
        tl.store(to, tl.sum(by_alpha, axis=axis, keep_dims=True), mask=known)
    elif has_alpha:
        tl.store(totals + program, tl.sum(by_alpha))
    if has_shift:
        tl.store(totals + tl.num_programs(0) * tl.num_programs(1) + program, tl.sum(by_shift))


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
        _forward[grid](
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
            _backward[grid](
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


def _differentiate(ctx, grad, backward=torch.ops.dyt.triton_backward):
    x, *parameters = ctx.saved_tensors
    dx, *sums = backward(grad, x, *parameters, ctx.squash, ctx.channels_last)
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
        if torch.is_grad_enabled():
            raise RuntimeError(
                "dyt: the fused kernel has no second derivative; set DYT_KERNEL=reference for create_graph=True"
            )
        return _differentiate(ctx, grad, _backward_op)


def fused(x: Tensor, *rest) -> Tensor:
    """As `dyt.kernels.dynamic`, with the squash's number; x has the dtype of the result."""
    plain = type(x) in (Tensor, torch.nn.Parameter) and not torch._C._len_torch_dispatch_stack()
    if torch.compiler.is_compiling() or not plain:  # what looks into operators: fake tensors, DTensor, counters
        return torch.ops.dyt.triton(x, *rest)
    return _Direct.apply(x, *rest)
