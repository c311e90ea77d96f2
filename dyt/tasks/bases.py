"""Bases told from others: each from those before it, or masked ones from both sides. Beside it, a Markov chain's bits.

Letters that stand for several bases, N first, are seen and never told. Which bases are masked is a function of seed,
step and the sample's place; of an evaluation, of the place alone.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.config.arguments import check_arguments
from dyt.data.bases import MASK, UNKNOWN
from dyt.tasks import Place, Task, wide
from dyt.tasks.markov import Chain

LEFT_OUT = -100  # a target that is not told


class Bases(Task):
    """Batches are ids of bases (B, T) and the ids one later; targets that are not told are -100.

    Args:
        objective: ``next``, or ``masked`` as BERT has it: of the chosen ones 80% are hidden, 10% another base.
        mask: the share that is chosen.
        causal: whether the model sees only what comes before; one that sees more cannot be asked for the next base.

    Raises:
        ValueError: they do not fit.
    """

    best = ("val/loss", min)
    names = ("loss", "bits", "top1")
    unread = ("trainer.label_smoothing",)

    def __init__(self, objective: Literal["next", "masked"] = "next", mask: float = 0.15, *, causal: bool = True):
        if not 0 < mask < 1:
            raise ValueError(f"model.bases.mask={mask}: must be above 0 and below 1")
        if objective == "next" and not causal:
            raise ValueError(
                "model.bases.objective=next: this model sees the next base; type model.bases.objective=masked"
            )
        self.objective, self.mask = objective, mask

    def prepare(self, inputs: Tensor, targets: Tensor, place: Place):
        if self.objective == "masked":
            dice = place.rows(len(inputs), lambda g: torch.rand(3, inputs.shape[1], generator=g)).to(inputs.device)
            chosen, how, other = dice.unbind(dim=1)  # (B, T) each
            hidden = torch.where(how < 0.8, MASK, torch.where(how < 0.9, (4 * other).long(), inputs))
            chosen = (chosen < self.mask) & (inputs < UNKNOWN)
            inputs, targets = torch.where(chosen, hidden, inputs), inputs.masked_fill(~chosen, LEFT_OUT)
        return inputs, targets.masked_fill(targets >= UNKNOWN, LEFT_OUT)

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over samples of the mean loss of their bases in nats, so that a batch's parts add up."""
        losses = self._losses(wide(model(inputs)), targets)  # (B, T)
        told = (targets != LEFT_OUT).sum(dim=1).clamp_min(1)
        return (losses.sum(dim=1) / told).mean()

    def measure(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Sums of nats, of bits and of right first guesses, and the count of bases that are told."""
        logits = wide(model(inputs))
        nats = self._losses(logits, targets).sum()
        hits = (logits.argmax(dim=-1) == targets).sum()
        return torch.stack([nats, nats / math.log(2), hits.to(nats), (targets != LEFT_OUT).sum().to(nats)])

    @staticmethod
    def _losses(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=LEFT_OUT, reduction="none")

    def at_end(self, model: nn.Module, data, split: str, device: torch.device):
        """Bits a base of a fifth-order Markov chain, fitted on the training part, on the whole of the same split."""
        if self.objective != "next":
            return {}, None
        return {"markov5": Chain(data.tokens["train"]).bits(data.tokens[split])}, None


def build(config: dict, classes: int) -> Bases:
    """The task of a config, its arguments in ``model.bases``.

    Raises:
        ValueError: an argument that does not exist or does not fit.
    """
    arguments = config["model"].get("bases") or {}
    check_arguments(Bases, arguments, "model.bases")
    return Bases(**arguments, causal=config["model"].get("causal", True))
