"""Run by test_kernels.py: what is Triton's own. The promise itself is in test_kernel_promise.py."""

import pytest
import torch

from dyt import kernels
from dyt.kernels import reference
from tests.test_kernel_promise import arguments, both, errors, give_back, kept  # noqa: F401


@pytest.mark.parametrize("squash", list(reference.SQUASH))
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("shape, last", [((41, 1030), True), ((1, 1), True), ((2, 3, 1300), False), ((2100, 3), False)])
def test_more_than_one_block_and_step(squash, each, shape, last, monkeypatch):
    from dyt.kernels import gpu

    monkeypatch.setattr(gpu, "PROGRAMS", 6)
    monkeypatch.setattr(gpu, "STEPS", 1)
    tensors = arguments(shape, shape[-1] if last else shape[1], each=each)
    assert kept(errors(tensors, torch.randn(shape), squash, last, "triton"))


@pytest.mark.parametrize("last", [True, False])
def test_parameters_of_one_value_with_gaps_or_absent(last):
    """What the kernels read by pointer must lie as they expect."""
    x, grad = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6)
    gaps = torch.randn(12)[::2].requires_grad_()
    one = torch.tensor([1.5], requires_grad=True)
    for weight, bias in ((one, gaps), (gaps, one), (gaps, None), (None, gaps), (None, None)):
        for alpha, shift in ((gaps, None), (one, one), (None, one), (None, None)):
            wanted = [t for t in (x, alpha, weight, bias, shift) if t is not None]
            found = []
            for kernel in ("triton", "reference"):
                kernels.force(kernel)
                out = kernels.dynamic(x, alpha, weight, bias, shift, "tanh", last)
                found.append([out, *torch.autograd.grad(out, wanted, grad)])
            for got, want in zip(*found, strict=True):
                assert got.shape == want.shape
                torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_operator_and_function_are_the_same():
    from dyt.kernels import gpu

    tensors, grad = arguments((9, 33), 33), torch.randn(9, 33)
    direct, op = (both(f, tensors, grad, 0, True) for f in (gpu.fused, torch.ops.dyt.triton))
    assert torch.equal(direct[0], op[0]) and all(map(torch.equal, direct[1], op[1]))


def test_gradients_lie_in_memory_of_their_own():
    """Inductor assumes so, and that each begins where an allocation would."""
    tensors = arguments((9, 70), 70)
    gradients = torch.ops.dyt.triton_backward(torch.randn(9, 70), *tensors, 0, True)
    assert len({g.untyped_storage().data_ptr() for g in gradients}) == 5
    assert all(g.storage_offset() == 0 for g in gradients)


def test_what_looks_into_operators_sees_one():
    from torch._subclasses.fake_tensor import FakeTensorMode

    from dyt.kernels import gpu

    with FakeTensorMode() as mode:
        x, *rest = (mode.from_tensor(t) for t in arguments((9, 70), 70))
        assert gpu.fused(x, *rest, 0, True).shape == (9, 70)
