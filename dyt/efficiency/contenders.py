"""What a user would pick in a norm's place."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from dyt.kernels import dynamic, reference


class HuggingFaceRMSNorm(nn.Module):
    """RMSNorm as Hugging Face's LLaMA computes it without fusion: in float32, several kernels."""

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


class Dynamic(nn.Module):
    """DyT or, with squash erf, Derf, computed by the function `how`."""

    def __init__(self, dim: int, how: Callable, squash: str = "tanh"):
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(1)) if squash == "erf" else None
        self.how, self.squash = how, squash

    def forward(self, x: Tensor) -> Tensor:
        return self.how(x, self.alpha, self.weight, self.bias, self.shift, self.squash)


def contenders(dim: int, device, dtype) -> dict[str, nn.Module]:
    """By name, each a module for ``(..., dim)``."""
    made = {
        "no norm": nn.Identity(),
        "LayerNorm": nn.LayerNorm(dim),
        "RMSNorm (fused)": nn.RMSNorm(dim, eps=1e-6),
        "RMSNorm (Hugging Face, eager)": HuggingFaceRMSNorm(dim),
        "DyT (as in the paper, eager)": Dynamic(dim, reference.dynamic),
        "DyT (torch.compile)": Dynamic(dim, torch.compile(reference.dynamic, dynamic=False)),
        "DyT (ours)": Dynamic(dim, partial(dynamic, channels=dim)),
        "Derf (ours)": Dynamic(dim, partial(dynamic, channels=dim), "erf"),
    }
    if torch.device(device).type == "cuda":
        try:
            from liger_kernel.transformers import LigerDyT

            made["DyT (liger-kernel)"] = LigerDyT(dim)
        except ImportError:
            pass
    return {name: module.to(device=device, dtype=dtype) for name, module in made.items()}


class Sites:
    """``make(dim)`` at every site of a model: what models/ takes for a norm."""

    def __init__(self, kind: str, make: Callable[[int], nn.Module]):
        self.kind, self.make = kind, make

    def __call__(self, dim: int, site: str, **_) -> nn.Module:
        return self.make(dim)


PAPER, OURS, EAGER_RMS, FUSED_RMS = "DyT (as in the paper)", "DyT (ours)", "RMSNorm (Hugging Face)", "RMSNorm (fused)"


def llama_models(sizes: dict, device, dtype) -> dict[str, nn.Module]:
    """LLaMA-style models that differ in the norm alone; "none" is the one whose time is taken off for the layers'."""
    from dyt.data import Spec
    from models.gpt import build

    norms = {
        "none": Sites("none", lambda dim: nn.Identity()),
        EAGER_RMS: Sites("rmsnorm", HuggingFaceRMSNorm),
        FUSED_RMS: Sites("rmsnorm", lambda dim: nn.RMSNorm(dim, eps=1e-6)),
        PAPER: Sites("dyt", lambda dim: Dynamic(dim, reference.dynamic)),
        OURS: Sites("dyt", lambda dim: Dynamic(dim, partial(dynamic, channels=dim))),
    }
    style = {"positions": "rope", "mlp": "swiglu", "tied": False}
    made = {}
    for name, norm in norms.items():
        with torch.device(device):
            model = build(norm, Spec("text", "", {}, vocab_size=1000), **sizes, **style).to(dtype)
        # All share the first one's matrices: five times 7B would not fit, nor be alike.
        model.load_state_dict(made["none"].state_dict() if made else {}, strict=False, assign=True)
        made[name] = model
    return made
