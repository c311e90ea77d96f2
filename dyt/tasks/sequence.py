"""Classes of sequences: cross-entropy, and the share that is named rightly."""

import torch
from torch import Tensor, nn

from dyt.tasks.classification import Classification


class Sequences(Classification):
    """Batches are ids of bases (B, T) and classes (B,)."""

    names = ("loss", "top1")

    def __init__(self, label_smoothing: float):
        super().__init__({"mixup": 0.0, "cutmix": 0.0}, 0, label_smoothing)

    def measure(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Sums of loss (no smoothing) and of right first guesses, and the count."""
        loss, top1, _, count = super().measure(model, inputs, targets)
        return torch.stack([loss, top1, count])


def build(config: dict, classes: int) -> Sequences:
    return Sequences(config["trainer"]["label_smoothing"])
