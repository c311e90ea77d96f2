"""What is learned: the loss of a batch and the evaluation of a split. A task is one file here with ``build``."""

import importlib
from pathlib import Path

import torch
from torch import Tensor, nn

from dyt.config.arguments import closest

FILES = {"image": "classification", "text": "language"}  # of the tasks that are not called as their file


def build_task(config: dict, classes: int):
    """The task of a config, its ``model.task``: what ``build(config, classes)`` of that file of this folder returns.

    Raises:
        ValueError: no file here is called so.
    """
    task = config["model"]["task"]
    known = sorted({*FILES, *(p.stem for p in Path(__file__).parent.glob("[a-z]*.py") if p.stem not in FILES.values())})
    if task not in known:
        raise ValueError(f"model.task={task}: {closest(task, known)}choose from {', '.join(known)}")
    return importlib.import_module(f"dyt.tasks.{FILES.get(task, task)}").build(config, classes)


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
