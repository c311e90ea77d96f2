"""What is learned: the loss of a batch and the evaluation of a split. A task is one file here."""

import torch
from torch import Tensor, nn


def build_task(config: dict, classes: int):
    """The task of a config: its ``model.task``."""
    if config["model"]["task"] == "image":
        from dyt.tasks.classification import Classification

        return Classification(config["data"], classes, config["trainer"]["label_smoothing"])
    from dyt.tasks.language import Language

    return Language(config["trainer"]["label_smoothing"])


def wide(logits: Tensor) -> Tensor:
    """Logits for a loss: float32 at least, float64 where the model is."""
    return logits if logits.dtype == torch.float64 else logits.float()


def sums_over(model: nn.Module, batches, device: torch.device, measure) -> Tensor:
    """Adds ``measure(model, inputs, targets)``, a 1-D tensor whose last entry counts, over batches. float64."""
    total = None
    for inputs, targets in batches:
        part = measure(model, inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)).double()
        total = part if total is None else total + part
    return total
