"""Image classification: cross-entropy, mixup and cutmix (timm's), top-1 and top-5."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.data.order import derive
from dyt.tasks import Place, Task, wide


class Classification(Task):
    """Batches are images (B, C, H, W) and labels (B,)."""

    best = ("val/top1", max)
    names = ("loss", "top1", "top5")

    def __init__(self, data: dict, classes: int, label_smoothing: float):
        self.label_smoothing = label_smoothing
        self.mixup, self.paired = None, bool(data["mixup"] or data["cutmix"])
        if self.paired:
            from timm.data import Mixup

            self.mixup = Mixup(
                mixup_alpha=data["mixup"],
                cutmix_alpha=data["cutmix"],
                label_smoothing=label_smoothing,
                num_classes=classes,
            )

    def prepare(self, inputs: Tensor, targets: Tensor, place: Place):
        """Leaves them as they are; the pieces of a step then mix alike, in every process.

        timm's Mixup draws one ratio and one box a batch, from numpy's generator.
        """
        if self.paired and place.trains:
            _, seed, step = place.key
            np.random.seed(derive(seed, "step", step, 0, 0) & 0xFFFFFFFF)  # what `seed_all` gives a step's first piece
        return inputs, targets

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch."""
        if self.mixup is not None:
            inputs, targets = self.mixup(inputs, targets)  # targets become (B, classes)
            logits = wide(model(inputs))
            return F.cross_entropy(logits, targets.to(logits))
        return F.cross_entropy(wide(model(inputs)), targets, label_smoothing=self.label_smoothing)

    def measure(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Sums of loss (no smoothing), top-1 and top-5 hits, and the count."""
        logits = wide(model(inputs))
        ranked = logits.topk(min(5, logits.shape[-1]), dim=-1).indices == targets[:, None]
        loss = F.cross_entropy(logits, targets, reduction="sum")
        return torch.stack([loss, ranked[:, 0].sum().to(loss), ranked.sum().to(loss), loss.new_tensor(len(targets))])


def build(config: dict, classes: int):
    return Classification(config["data"], classes, config["trainer"]["label_smoothing"])
