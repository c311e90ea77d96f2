"""What runs on the GPU: DyT forward and backward in Triton, launched by gpu.py.

The view is that of native.cpp: (rows, cols), "wide" with channels last, "tall" with channels first. Sums over rows go
to one partial a program and are added by torch: no atomics, so the same input gives the same bits.
"""

import triton
import triton.language as tl


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
def forward(
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
def backward(
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
