"""Next-token prediction: cross-entropy in nats per token, and top-1."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.tasks import Task, wide


class Language(Task):
    """Batches are token ids (B, T) and the ids one token later (B, T)."""

    best = ("val/loss", min)
    names = ("loss", "top1")

    def __init__(self, label_smoothing: float):
        self.label_smoothing = label_smoothing

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss over the batch's tokens."""
        logits = wide(model(inputs)).flatten(0, 1)  # (B T, V)
        return F.cross_entropy(logits, targets.flatten(), label_smoothing=self.label_smoothing)

    def measure(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Sums of loss (no smoothing) and of right first guesses, and the count of tokens."""
        logits, targets = wide(model(inputs)).flatten(0, 1), targets.flatten()
        loss = F.cross_entropy(logits, targets, reduction="sum")
        hits = (logits.argmax(dim=-1) == targets).sum()
        return torch.stack([loss, hits.to(loss), loss.new_tensor(targets.numel())])


def build(config: dict, classes: int):
    return Language(config["trainer"]["label_smoothing"])
