"""The moving average of a model's weights, whole or sharded."""

import copy

import torch
from torch import Tensor, nn


def here(x: Tensor) -> Tensor:
    """The part of a tensor that is in this process."""
    return x.to_local() if is_spread(x) else x


def is_spread(x: Tensor) -> bool:
    """Whether `x` is a DTensor; importing that class takes a second, which a run on one process need not wait."""
    return hasattr(x, "full_tensor")


class Average:
    """The moving average of a model's weights, as a module of its own; `decay` as timm's ModelEmaV3.

    Buffers are the model's own, as torch's AveragedModel has them: between two a spectral norm's vectors are no longer
    of length 1, and statistics that start at 0 are too small.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module, self.decay = copy.deepcopy(model).eval(), decay

    def _pairs(self, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
        """Our tensors and those they follow, each once: a state dict names tied weights twice."""
        ours, theirs = (m.state_dict(keep_vars=True).values() for m in (self.module, model))
        once = {id(a): (a, b) for a, b in zip(ours, theirs, strict=True)}
        return list(once.values())

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        pairs = self._pairs(model)
        weights = [(here(a), here(b)) for a, b in pairs if isinstance(a, nn.Parameter)]
        torch._foreach_lerp_([a for a, _ in weights], [b for _, b in weights], weight=1.0 - self.decay)
        for a, b in pairs:
            if not isinstance(a, nn.Parameter):
                a.copy_(b)

    @torch.no_grad()
    def set(self, model: nn.Module) -> None:
        for a, b in self._pairs(model):
            here(a).copy_(here(b))
