"""The optimizer, what it decays, and the learning rate of a step."""

import math

import torch
from torch import nn

from dyt.training.blocks import blocks_of

MOMENTUM = 0.9  # of sgd


def learning_rate(step: int, total: int, *, lr: float, min_lr: float, warmup_steps: int) -> float:
    """Rate of step `step` (from 0) of `total`: linear up over the warm-up, then a cosine down to `min_lr`."""
    if step < warmup_steps:
        return lr * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total - warmup_steps)
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Both:
    """Two optimizers that share a model's parameters, as one."""

    def __init__(self, *parts: torch.optim.Optimizer):
        self.parts = parts
        self.param_groups = [group for part in parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict) -> None:
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def decays(p: nn.Parameter) -> bool:
    """Whether weight decay is for `p`: matrices and up, not alpha, s, gamma, beta, biases and all else of one axis."""
    return len(getattr(p, "ds_shape", p.shape)) >= 2  # DeepSpeed's ZeRO-3 empties a parameter and keeps its shape there


def param_groups(model: nn.Module, weight_decay: float, *, decay_gain: bool = False) -> list[dict]:
    """Groups for any torch optimizer: ``torch.optim.AdamW(param_groups(model, 0.1), lr=1e-3)``.

    Matrices decay; alpha, s, gamma, beta, biases and every other 1-D parameter do not, but gamma with `decay_gain`.
    Frozen parameters are left out. Call it before a wrapper that flattens parameters (FSDP1): they have one axis then.

    Raises:
        ValueError: weight_decay below 0, or nothing in the model is trained.
    """
    if not weight_decay >= 0:
        raise ValueError(f"param_groups: weight_decay={weight_decay}: must be at least 0")
    decayed, plain = [], []
    for name, p in model.named_parameters():
        gain = p.ndim == 1 and name.split(".")[-1] == "weight"  # a norm's gamma is the only 1-D weight
        if p.requires_grad:
            (decayed if decays(p) or (gain and decay_gain) else plain).append(p)
    if not decayed and not plain:
        raise ValueError(f"param_groups: {type(model).__name__} has no parameter that is trained")
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]


class TrainerMixin:
    """For Hugging Face's Trainer, whose own rule decays a converted model's alpha and gamma: it goes by LayerNorm's
    class and by names with "norm" (GPT-2 calls them ``ln_1``). Put it first:

        class Trainer(dyt.TrainerMixin, transformers.Trainer): ...
    """

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Those of the Trainer's own rule that have two axes or more."""
        own = dict(model.named_parameters(remove_duplicate=False))
        names = super().get_decay_parameter_names(model)
        return [name for name in names if name not in own or decays(own[name])]


def build(model: nn.Module, optim: dict) -> torch.optim.Optimizer | Both:
    """The optimizer of a config's ``optim``; what decays is `param_groups`' rule, gamma too with ``decay_gain``.

    Muon takes the matrices of the blocks, at AdamW's scale (Moonlight's 0.2 sqrt(max(rows, columns))), so that one
    learning rate serves both; AdamW takes embeddings, head, convolutions and all 1-D parameters.

    Raises:
        ValueError: ``kind=muon`` for a model that has no matrix in a block, or trains none.
    """
    kind, lr, decay = optim["kind"], optim["lr"], optim["weight_decay"]
    matrices = [p for block in blocks_of(model) for p in block.parameters() if p.ndim == 2]
    hidden = [p for p in matrices if kind == "muon" and p.requires_grad]
    taken = {id(p) for p in hidden}
    groups = param_groups(model, decay, decay_gain=optim["decay_gain"])
    groups = [g | {"params": [p for p in g["params"] if id(p) not in taken]} for g in groups]
    groups = [g for g in groups if g["params"]]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=MOMENTUM)
    adamw = torch.optim.AdamW(groups, lr=lr, betas=tuple(optim["betas"]), fused=True)
    if kind == "adamw":
        return adamw
    if matrices and not hidden:
        raise ValueError(
            "optim.kind=muon: the matrices of this model's blocks are frozen, as model.frozen=true has it; choose "
            "optim.kind=adamw or sgd"
        )
    if not hidden:
        raise ValueError("optim.kind=muon: this model has no matrices in its blocks; choose optim.kind=adamw or sgd")
    return Both(torch.optim.Muon(hidden, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"), adamw)
