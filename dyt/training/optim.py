"""AdamW, what it decays, and the learning rate of a step."""

import math

import torch
from torch import nn


def learning_rate(step: int, total: int, *, lr: float, min_lr: float, warmup_steps: int) -> float:
    """Rate of step `step` (from 0) of `total`: linear up over the warm-up, then a cosine down to `min_lr`."""
    if step < warmup_steps:
        return lr * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total - warmup_steps)
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def adamw(model: nn.Module, *, lr: float, betas, weight_decay: float) -> torch.optim.AdamW:
    """AdamW in two groups: matrices decay; alpha, s, gamma, beta, biases and every other 1-D parameter do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=tuple(betas), fused=True)
