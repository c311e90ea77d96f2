"""Run by test_kernels.py under TRITON_INTERPRET=1: the Triton kernels against the formula in float64."""

import pytest
import torch

from dyt.kernels import reference
from dyt.kernels.gpu import fused
from tests.test_kernels import arguments


@pytest.mark.parametrize("squash", list(reference.SQUASH))
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize(
    "shape, last",
    [((5, 7, 37), True), ((3, 1500), True), ((1, 1), True), ((2, 19, 4, 5), False), ((2, 3, 1300), False)],
)
def test_float32(squash, each, shape, last):
    channels = shape[-1] if last else shape[1]
    tensors = arguments(shape, channels, each=each)
    grad = torch.randn(shape)
    out = fused(*tensors, reference.SQUASH[squash][0], last)
    gradients = torch.autograd.grad(out, tensors, grad)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    want = reference.dynamic(*exact, squash, last)
    assert (out - want).abs().max() <= 4e-6 * max(1, want.abs().max().item())
    for got, true in zip(gradients, torch.autograd.grad(want, exact, grad.double()), strict=True):
        assert (got - true).abs().max() <= 1e-4 * max(1, true.abs().max().item())


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.bfloat16, 3e-2), (torch.float16, 3e-3)])
def test_dtypes(dtype, tolerance):
    tensors = arguments((6, 50), 50, dtype)
    out = fused(*tensors, 0, True)
    want = reference.dynamic(*(t.double() for t in tensors), "tanh")
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), want, rtol=tolerance, atol=tolerance)


def test_absent_parameters_empty_strided_and_nan():
    x = torch.tensor([[float("nan"), float("inf"), -float("inf"), 0.5]])
    out = fused(x, None, None, None, None, 0, True)
    torch.testing.assert_close(out, torch.tanh(x), equal_nan=True)
    assert fused(torch.empty(0, 4), *(torch.ones(n) for n in (1, 4, 4, 1)), 0, True).shape == (0, 4)
    strided = torch.randn(8, 6).t()
    torch.testing.assert_close(fused(strided, None, None, None, None, 0, True), torch.tanh(strided))
    x = torch.randn(4, 6, requires_grad=True)
    (grad,) = torch.autograd.grad(fused(x, torch.ones(1), None, None, None, 0, True).sum(), x)
    torch.testing.assert_close(grad, 1 - torch.tanh(x) ** 2)


def test_registration():
    x, *parameters = arguments((4, 8), 8)
    torch.library.opcheck(torch.ops.dyt.triton.default, (x, *parameters, 0, True), test_utils="test_schema")
    torch.library.opcheck(
        torch.ops.dyt.triton.default, (x, *parameters, 0, True), test_utils="test_autograd_registration"
    )
    torch.library.opcheck(torch.ops.dyt.triton.default, (x, *parameters, 0, True), test_utils="test_faketensor")
