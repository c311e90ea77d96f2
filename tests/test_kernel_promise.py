"""A fused DyT against the formula in float64: every squash, dtype, layout and kind of value.

Of the native kernel; test_kernels.py runs it once more with DYT_TEST_KERNEL=triton, in the interpreter or on a GPU.
"""

import contextlib
import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from dyt import Derf, DynamicTanh, kernels
from dyt.kernels import reference

from .helpers import NO_COMPILER

KERNEL = os.environ.get("DYT_TEST_KERNEL", "native")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if KERNEL == "triton" and not INTERPRETED else "cpu"
NAMES = list(reference.SQUASH)
# Only where there is no compiler: a source that no longer compiles must fail, not skip.
pytestmark = pytest.mark.skipif(KERNEL == "native" and NO_COMPILER, reason="no C++ compiler here")


@pytest.fixture(autouse=True)
def give_back():
    torch.set_default_device(DEVICE)
    yield
    torch.set_default_device(None)
    torch.set_num_threads(1)
    kernels.force("auto")


def arguments(shape, channels, dtype=torch.float32, scale=2.0, each=False, seed=0):
    g = torch.Generator(DEVICE).manual_seed(seed)
    x = (torch.randn(shape, generator=g) * scale).to(dtype).requires_grad_()
    parameters = [
        (torch.rand(n, generator=g) + 0.3).to(dtype).requires_grad_()
        for n in (channels if each else 1, channels, channels)
    ]
    shift = torch.full((1,), 0.1, dtype=dtype, requires_grad=True)
    return [x, *parameters, shift]


def both(function, tensors, grad, squash, last):
    out = function(*tensors, squash, last)
    return out, torch.autograd.grad(out, tensors, grad.to(out.dtype))


def kept(found: list[float]) -> bool:
    """Whether every error is within the promise; NaN is not."""
    return all(error <= 1 for error in found)


def errors(tensors, grad, squash, last, kernel=KERNEL):
    """(error of the output, errors of the gradients) in units of what the kernel promises in float32."""
    kernels.force(kernel)
    out, gradients = both(kernels.dynamic, tensors, grad, squash, last)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    want, expected = both(reference.dynamic, exact, grad.double(), squash, last)
    x, alpha, weight, bias, shift = exact
    size = (weight.abs().max() + bias.abs().max() + 1).item()
    if squash == "identity":
        size *= max(1.0, (alpha.abs().max() * x.abs().max()).item()) if x.numel() else 1.0
    found = [(out.double() - want).abs().max().item() / (1e-6 * size) if out.numel() else 0.0]
    # Every gradient of a parameter is a sum, and a sum may cancel. For alpha and shift, over all elements, the measure
    # is the sum of absolute terms; for weight and bias the largest gradient, or a tenth of that sum where it cancels.
    elementwise, floors = x, [0.0] * 5
    if x.numel():
        rows = [d for d in range(x.dim()) if d != (x.dim() - 1 if last else 1)]
        inner = reference.dynamic(x.detach(), alpha.detach(), None, None, shift.detach(), squash, last)
        floors[2:4] = [(terms.abs().sum(rows).max().item() / 10) if rows else 0.0 for terms in (grad * inner, grad)]
        z = x + 0  # a copy whose gradient is dx, before the sums
        spread = alpha.expand(x.shape) if alpha.numel() == 1 and last else alpha
        out = reference.dynamic(z, spread, weight, bias, shift, squash, last)
        elementwise = torch.autograd.grad(out, z, grad.double())[0].abs()
    slope = alpha.abs().min().item()
    for i, (got, true) in enumerate(zip(gradients, expected, strict=True)):
        limit = max(true.abs().max().item() if true.numel() else 1.0, floors[i])
        if i == 1:
            limit = (elementwise * x.detach().abs()).sum().item() / slope
        if i == 4:
            limit = elementwise.sum().item() / slope
        found.append(((got.double() - true).abs().max().item() if got.numel() else 0.0) / (1e-5 * max(limit, 1e-30)))
    return found


@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "channels_first"])
@pytest.mark.parametrize("squash", NAMES)
@pytest.mark.parametrize("each", [False, True], ids=["one_alpha", "alpha_by_channel"])
def test_float32_is_within_its_promise(squash, last, each):
    shape = (9, 11, 70) if last else (5, 70, 3, 7)
    tensors = arguments(shape, 70, each=each)
    assert kept(errors(tensors, torch.randn(shape), squash, last))


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 30.0, 1e4])
@pytest.mark.parametrize("squash", NAMES)
def test_float32_at_any_size(squash, scale):
    tensors = arguments((64, 129), 129, scale=scale)
    assert kept(errors(tensors, torch.randn(64, 129), squash, True))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), min_size=0, max_size=3),
    channels=st.integers(1, 200),
    squash=st.sampled_from(NAMES),
    each=st.booleans(),
    last=st.booleans(),
    transpose=st.booleans(),
    seed=st.integers(0, 99),
)
def test_for_drawn_shapes_and_strides(shape, channels, squash, each, last, transpose, seed):
    full = (*shape, channels) if last else (2, channels, *shape)
    tensors = arguments(full, channels, each=each, seed=seed)
    if transpose and len(full) > 1:
        tensors[0] = tensors[0].detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
        assert tensors[0].numel() < 2 or 1 in full or 0 in full or not tensors[0].is_contiguous()
    assert kept(errors(tensors, torch.randn(full), squash, last))


def test_sums_that_cancel_to_nothing():
    """One channel, two rows whose terms of gamma's gradient are equal and opposite: what is left is rounding."""
    tensors = arguments((2, 1), 1, seed=1)
    x, alpha, _, _, shift = (t.detach() for t in tensors)
    first, second = torch.tanh(alpha * x + shift).flatten().tolist()
    assert kept(errors(tensors, torch.tensor([[-second], [first]]), "tanh", True))


SPECIAL = [0.0, -0.0, 1e-45, -1e-42, 1e-30, 1e-7, 0.5, 4.0, 9.0, -9.1, 44.0, 88.5, 1e4, -1e30, 3e38]
SPECIAL += [math.nan, math.inf, -math.inf]


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.one_of(st.sampled_from(SPECIAL), st.floats(width=32)), min_size=1, max_size=70),
    squash=st.sampled_from(["tanh", "hardtanh", "sigmoid", "erf", "identity"]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    slope=st.sampled_from([0.5, 1.0, -2.0]),
)
def test_for_drawn_values_and_dtypes(values, squash, dtype, slope):
    """Huge, denormal, NaN and infinite: output and slope stand where the formula in float64 has them."""
    x = torch.tensor(values, dtype=torch.float64).to(dtype)[None].requires_grad_()
    alpha = torch.full((1,), slope, dtype=dtype)
    exact = x.detach().double().requires_grad_()
    kernels.force(KERNEL)
    got = kernels.dynamic(x, alpha, None, None, None, squash)
    want = reference.dynamic(exact, alpha.double(), None, None, None, squash)
    step = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2, torch.float16: 1e-3}[dtype]
    largest = torch.finfo(dtype).max
    expected = want.detach().to(dtype).double() if dtype != torch.float64 else want.detach()
    torch.testing.assert_close(got.detach().double(), expected, rtol=step, atol=step, equal_nan=True)
    got_slope = torch.autograd.grad(got.sum(), x)[0].double()
    want_slope = torch.autograd.grad(want.sum(), exact)[0]
    inside = exact.detach().abs() < min(largest, 1e30)  # beyond, 0 * infinity is anybody's
    torch.testing.assert_close(got_slope[inside], want_slope[inside], rtol=1e-5 + step, atol=1e-5 + step)


@pytest.mark.parametrize("kernel", [KERNEL, "reference"])
def test_hardtanh_is_flat_at_its_corners(kernel):
    x = torch.tensor([[-1.0, 1.0, 0.5, -0.9999]], requires_grad=True)
    kernels.force(kernel)
    y = kernels.dynamic(x, torch.ones(1), None, None, None, "hardtanh")
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("squash", ["tanh", "erf", "isru"])
@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e-2])
def test_small_inputs_keep_their_digits(squash, scale):
    """gamma's gradient is a sum of f(z): near 0 an error of 1e-7 would be all of it."""
    x, alpha, weight, bias, _ = arguments((40, 33), 33, scale=scale)
    grad = torch.randn(40, 33)
    kernels.force(KERNEL)
    got = torch.autograd.grad(kernels.dynamic(x, alpha, weight, bias, None, squash), [x, weight], grad)
    exact = [t.detach().double().requires_grad_() for t in (x, alpha, weight, bias)]
    true = torch.autograd.grad(reference.dynamic(*exact, None, squash), [exact[0], exact[2]], grad.double())
    for a, b in zip(got, true, strict=True):
        assert (a.double() - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize("shape, last", [((2049, 4096), True), ((8200, 1031), True), ((2, 64, 257, 258), False)])
def test_large_results_that_go_past_the_caches(shape, last):
    channels = shape[-1] if last else shape[1]
    if INTERPRETED:
        pytest.skip("hours in the interpreter")
    tensors = arguments(shape, channels)
    assert tensors[0].nbytes >= 32 << 20
    assert kept(errors(tensors, torch.randn(shape), "tanh", last))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("squash", NAMES)
def test_other_dtypes(squash, dtype, tolerance):
    tensors = arguments((6, 50), 50, dtype)
    grad = torch.randn(6, 50).to(dtype)
    kernels.force(KERNEL)
    out, gradients = both(kernels.dynamic, tensors, grad, squash, True)
    want, expected = both(
        reference.dynamic, [t.detach().double().requires_grad_() for t in tensors], grad, squash, True
    )
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), want, rtol=tolerance, atol=tolerance)
    for got, true in zip(gradients, expected, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), true, rtol=tolerance, atol=tolerance * max(1, true.abs().max().item()))


@pytest.mark.parametrize("squash", NAMES)
def test_nan_and_infinity_go_where_they_go_in_the_reference(squash):
    x = torch.tensor([[math.nan, math.inf, -math.inf, 1e38, -1e38, 1e-42, 0.0, 9.0, -9.0, 88.0]])
    ones = [torch.ones(1), torch.ones(10), torch.zeros(10), None]
    kernels.force(KERNEL)
    got, want = kernels.dynamic(x, *ones, squash), reference.dynamic(x.double(), *ones, squash)
    if squash == "isru":  # the reference's own x * rsqrt(1 + x^2) overflows where float64 does not
        want = reference.dynamic(x, *ones, squash).double()
        got, want = got[:, [0, 5, 6, 7, 8, 9]], want[:, [0, 5, 6, 7, 8, 9]]
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-6, equal_nan=True)
    if squash in ("tanh", "hardtanh"):
        assert got[0, 1] == 1 and got[0, 2] == -1


def test_saturated_elements_have_the_true_vanishing_gradient():
    x = torch.tensor([[9.0, -9.0, 50.0, -1e30]], requires_grad=True)
    kernels.force(KERNEL)
    y = kernels.dynamic(x, torch.ones(1), None, None, None, "tanh")
    assert y.tolist() == [[1, -1, 1, -1]]
    slope = torch.autograd.grad(y.sum(), x)[0]
    torch.testing.assert_close(slope.double(), 1 / torch.cosh(x.detach().double()) ** 2, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("threads", [1, 2])
def test_same_input_same_bits(threads):
    torch.set_num_threads(threads)
    tensors = arguments((700, 96), 96)
    grad = torch.randn(700, 96)
    kernels.force(KERNEL)
    first, second = (both(kernels.dynamic, tensors, grad, "tanh", True) for _ in range(2))
    assert torch.equal(first[0], second[0]) and all(map(torch.equal, first[1], second[1]))


@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "channels_first"])
@pytest.mark.parametrize("each", [False, True], ids=["one_alpha", "alpha_by_channel"])
def test_two_threads_add_their_parts_of_each_gradient(each, last):
    """Large enough that both work: a sum without one's part would be about half of it."""
    shape = (700, 96) if last else (7, 96, 10, 10)
    tensors = arguments(shape, 96, each=each)
    torch.set_num_threads(2)
    assert kept(errors(tensors, torch.rand(shape), "tanh", last))  # of one sign: no part of a sum is small


def test_registration_passes_torchs_own_check():
    x, alpha, weight, bias, shift = arguments((4, 8), 8)
    kernels.force(KERNEL)
    kernels.dynamic(x, alpha, weight, bias, shift, "tanh")  # registers it
    operator = torch.ops.dyt.triton.default if KERNEL == "triton" else torch.ops.dyt.fused.default
    for given_arguments in ((alpha, weight, bias, shift), (None, None, None, None), (alpha, weight, None, None)):
        torch.library.opcheck(operator, (x, *given_arguments, 0, True))


def test_gradcheck():
    tensors = arguments((3, 5), 5, torch.float64)
    kernels.force(KERNEL)
    for squash in ("tanh", "sigmoid", "erf", "isru", "identity"):
        assert torch.autograd.gradcheck(lambda *t, s=squash: kernels.dynamic(*t, s), tensors)


def test_a_second_derivative_is_refused_by_name_and_reference_has_it():
    x = torch.randn(3, 4, requires_grad=True)
    m = DynamicTanh(4)
    kernels.force(KERNEL)
    for how in (contextlib.nullcontext(), LoggingMode()):  # the second looks into operators, as checkpointing may
        with how, pytest.raises(RuntimeError, match="no second derivative; set DYT_KERNEL=reference"):
            torch.autograd.grad(m(x).sum(), x, create_graph=True)
    kernels.force("reference")
    (first,) = torch.autograd.grad(m(x).sum(), x, create_graph=True)
    assert torch.autograd.grad(first.sum(), x)[0].abs().max() > 0


class LoggingMode(TorchDispatchMode):
    """Passes every operator on."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **kwargs or {})


def test_many_gradients_at_once():
    m, x = DynamicTanh(5), torch.randn(3, 5)
    kernels.force(KERNEL)
    got = torch.autograd.functional.jacobian(m, x, vectorize=True)
    kernels.force("reference")
    torch.testing.assert_close(got, torch.autograd.functional.jacobian(m, x))


@pytest.mark.parametrize("name", ["alpha", "weight", "bias", "shift"])
def test_a_parameter_left_on_meta_is_an_error_and_not_noise(name):
    """Its result was memory that nobody had written."""
    m, x = Derf(5), torch.randn(3, 5)
    setattr(m, name, torch.nn.Parameter(getattr(m, name).detach().to("meta")))
    kernels.force(KERNEL)
    with pytest.raises(Exception, match="a parameter is on meta|of meta tensor|Pointer argument"):
        m(x)
    assert m.to("meta")(x.to("meta")).is_meta


def test_isru_of_large_numbers_in_float16():
    x = torch.tensor([[0.5, 200.0, 300.0, -6e4]], dtype=torch.float16, requires_grad=True)
    for kernel in (KERNEL, "reference"):
        kernels.force(kernel)
        alpha = torch.ones(1, dtype=torch.float16, requires_grad=True)
        y = kernels.dynamic(x, alpha, None, None, None, "isru")
        torch.testing.assert_close(y.detach(), torch.tensor([[0.4472, 1, 1, -1]], dtype=torch.float16))
        slope, of_alpha = torch.autograd.grad(y.sum(), [x, alpha])
        torch.testing.assert_close(slope.float(), torch.tensor([[0.7155, 0, 0, 0]]), rtol=1e-3, atol=2e-7)
        assert of_alpha.item() == pytest.approx(0.5 * 0.7155, rel=2e-3)


def test_only_x_is_kept():
    from dyt.efficiency.timing import saved_bytes

    m, x = DynamicTanh(64), torch.randn(100, 64, requires_grad=True)
    kernels.force(KERNEL)
    assert saved_bytes(lambda: m(x), list(m.parameters())) == x.numel() * 4
    kernels.force("reference")
    assert saved_bytes(lambda: m(x), list(m.parameters())) >= 2 * x.numel() * 4
