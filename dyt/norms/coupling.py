"""Norms that take RMSNorm apart: which of what it does carries a transformer?

RMSNorm divides each channel by one number made of all channels. Forward, that fixes the size of what the next layer
sees; backward, the gradient of each channel depends on all the others, which is called coupling. The norms here keep
one and leave out the other, as in the blog post "What RMSNorm Actually Does" (Guha, May 2026), which finds for a GPT
fed with embeddings of std 0.02 that the coupling carries. None is meant for use outside such comparisons.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.norms.dynamic import DynamicTanh
from dyt.norms.registry import register


class _Divided(nn.Module):
    """gamma * x / denominator(x), channels last; sums in float32 at least.

    The input is ``(..., C)``, or ``(B, C, ...)`` with ``channels_last=False``. eps null is the model's own, else 1e-5.
    """

    def __init__(self, dim: int, *, eps: float | None = None, affine: bool = True, channels_last: bool = True):
        super().__init__()
        self.dim, self.eps, self.channels_last = dim, 1e-5 if eps is None else eps, channels_last
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Puts parameters and buffers back to their start, in place; what a layer needs after ``to_empty``."""
        if self.weight is not None:
            self.weight.fill_(1.0)
        for buffer in self.buffers(recurse=False):
            buffer.zero_()

    def denominator(self, x: Tensor) -> Tensor:
        """``(..., C)`` to what each channel is divided by: ``(..., C)``, ``(..., 1)`` or ``(1,)``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if not self.channels_last:
            x = x.movedim(1, -1)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        y = x / self.denominator(x)
        y = y if self.weight is None else y * self.weight
        return y if self.channels_last else y.movedim(-1, 1)

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps}"


def _rms(x: Tensor, eps: float) -> Tensor:
    return (x.square().mean(-1, keepdim=True) + eps).sqrt()


@register("rmsnorm_detached")
class DetachedRMSNorm(_Divided):
    """RMSNorm whose denominator hands back only the share `coupling` of its gradient; the output is RMSNorm's.

    Args:
        coupling: 0 detaches the denominator from the graph: backward, each channel then stands alone. 1 is RMSNorm.
    """

    def __init__(
        self,
        dim: int,
        *,
        coupling: float = 0.0,
        eps: float | None = None,
        affine: bool = True,
        channels_last: bool = True,
    ):
        super().__init__(dim, eps=eps, affine=affine, channels_last=channels_last)
        self.coupling = coupling

    def denominator(self, x: Tensor) -> Tensor:
        rms = _rms(x, self.eps)
        alone = rms.detach()
        return alone + self.coupling * (rms - alone)  # the value of rms, whatever the coupling


@register("l1norm")
class L1Norm(_Divided):
    """x / (mean |x| + eps): all channels coupled, by another measure of size."""

    def denominator(self, x: Tensor) -> Tensor:
        return x.abs().mean(-1, keepdim=True) + self.eps


@register("maxnorm")
class MaxNorm(_Divided):
    """x / (max |x| + eps): the largest channel alone is the measure, and alone is coupled to all others."""

    def denominator(self, x: Tensor) -> Tensor:
        return x.abs().amax(-1, keepdim=True) + self.eps


@register("grouprms")
class GroupRMSNorm(_Divided):
    """RMSNorm within groups of neighbouring channels: coupled within a group and not between groups.

    Raises:
        ValueError: dim is no multiple of `group_size`.
    """

    def __init__(
        self,
        dim: int,
        *,
        group_size: int = 8,
        eps: float | None = None,
        affine: bool = True,
        channels_last: bool = True,
    ):
        super().__init__(dim, eps=eps, affine=affine, channels_last=channels_last)
        if group_size < 1 or dim % group_size:
            raise ValueError(f"norm.group_size={group_size}: {dim} channels cannot be divided into groups of that size")
        self.group_size = group_size

    def denominator(self, x: Tensor) -> Tensor:
        groups = x.unflatten(-1, (-1, self.group_size))  # (..., C / group_size, group_size)
        return _rms(groups, self.eps).expand_as(groups).flatten(-2)


@register("runningrms")
class RunningRMSNorm(_Divided):
    """x / sqrt(running mean of x^2 + eps): one number for all tokens, no coupling, and no bound on a single token.

    In training the running mean takes each batch in before it divides; the first batch sets it. Evaluation uses it as
    it stands, and passes x on where nothing was ever seen. It is the buffer ``mean_square``, shape (1,), which
    checkpoints hold. No gradient flows through it.

    Args:
        momentum: share of a batch in the running mean, as in BatchNorm.
    """

    def __init__(
        self,
        dim: int,
        *,
        momentum: float = 0.1,
        eps: float | None = None,
        affine: bool = True,
        channels_last: bool = True,
    ):
        super().__init__(dim, eps=eps, affine=affine, channels_last=channels_last)
        self.momentum = momentum
        self.register_buffer("mean_square", torch.zeros(1))

    def denominator(self, x: Tensor) -> Tensor:
        seen = self.mean_square > 0
        if self.training:
            with torch.no_grad():
                batch = x.detach().square().mean().to(self.mean_square.dtype)
                self.mean_square.copy_(torch.where(seen, self.mean_square.lerp(batch, self.momentum), batch))
            return (self.mean_square + self.eps).sqrt().clone()  # the next batch changes the buffer in place
        return torch.where(seen, self.mean_square + self.eps, 1.0).sqrt()


@register("signedsqrt")
class SignedSqrt(_Divided):
    """x / sqrt(|x| + eps), which is sign(x) sqrt(|x|) with a finite slope at 0: element-wise, nothing coupled."""

    def denominator(self, x: Tensor) -> Tensor:
        return (x.abs() + self.eps).sqrt()


@register("gatednorm")
class GatedNorm(nn.Module):
    """y = norm(x), then sigmoid(up silu(down y)) * y (GatedNorm, arXiv 2601.22966): a gate that sees all channels.

    Args:
        inner: the norm before the gate, RMSNorm or DyT.
        alpha_init: DyT's alpha at the start.
        rank: channels inside the gate. ``down`` is (rank, C), ``up`` is (C, rank).

    ``up`` starts at 0, so that every gate starts at 1/2. The paper's start was not read.
    """

    def __init__(
        self,
        dim: int,
        *,
        inner: Literal["rmsnorm", "dyt"] = "rmsnorm",
        alpha_init: float = 0.5,
        rank: int = 16,
        eps: float | None = None,
        affine: bool = True,
        channels_last: bool = True,
    ):
        super().__init__()
        if rank < 1:
            raise ValueError(f"norm.rank={rank}: must be at least 1")
        self.channels_last = channels_last
        if inner == "dyt":
            self.norm = DynamicTanh(dim, alpha_init, affine=affine)
        else:
            self.norm = nn.RMSNorm(dim, eps=1e-5 if eps is None else eps, elementwise_affine=affine)
        self.down, self.up = nn.Parameter(torch.empty(rank, dim)), nn.Parameter(torch.empty(dim, rank))
        GatedNorm.reset_parameters(self)  # the inner norm is at its start

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Puts ``down`` and ``up`` back to their start, in place; what they need after ``to_empty``."""
        with torch.random.fork_rng(devices=[]):  # the model's other weights stay those of its seed
            self.down.copy_(torch.randn(self.down.shape, device="cpu") / math.sqrt(self.down.shape[1]))
        self.up.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x if self.channels_last else x.movedim(1, -1))
        y = F.linear(F.silu(F.linear(y, self.down)), self.up).sigmoid() * y
        return y if self.channels_last else y.movedim(-1, 1)
