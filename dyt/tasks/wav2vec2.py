"""wav2vec 2.0's pretraining (arXiv 2006.11477): which of these sounds was hidden here? And a linear probe at the end.

Loss of a hidden frame: cross-entropy of its own quantized sound among distractors, quantized sounds of other hidden
frames of the same recording, by cosine similarity. Beside it a term for codes that are used alike, and one for features
that stay small. Spans, distractors and Gumbel noise are a function of seed, step and the sample's place; of an
evaluation, of the place alone, and there codes are chosen without noise. Every recording weighs the same.
"""

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.config.arguments import check_arguments
from dyt.data.spec import frames_of
from dyt.tasks import Place, Task, exactly, wide
from dyt.tasks.hearing import picture_of, probed

LEAST_SPANS = 2  # as fairseq has it; one hidden frame alone would have no distractor


def hide(chance: Tensor, counts: Tensor, share: float, length: int) -> Tensor:
    """Which frames are hidden ``(B, T)``: spans of `length` frames, about `share` of all, overlaps included.

    A recording of few frames has spans of less than half of them, so that two are hidden and one is heard.

    Args:
        chance: ``(B, 1 + T)``, uniform; the first rounds the number of spans, the rest choose where they begin.
        counts: ``(B,)`` frames of each recording; those beyond are never hidden.
        share: of the frames that would be hidden if no spans overlapped.
        length: of a span.
    """
    B, T = chance.shape[0], chance.shape[1] - 1
    at = torch.arange(T, device=chance.device)
    span = ((counts - 1) // 2).clamp(1, length)[:, None]  # (B, 1)
    spans = (share * counts / length + chance[:, 0]).floor().clamp(min=LEAST_SPANS)[:, None]
    possible = at <= counts[:, None] - span
    order = chance[:, 1:].masked_fill(~possible, 2.0).argsort(dim=1)
    rank = torch.empty_like(order).scatter_(1, order, at.expand(B, T).contiguous())
    starts = ((rank < spans) & possible).long().cumsum(dim=1)
    before = F.pad(starts, (1, 0)).gather(1, (at + 1 - span).clamp(min=0))
    return starts > before


def distractors(chance: Tensor, hidden: Tensor) -> Tensor:
    """``(B, T, K)``: for each hidden frame K others that are hidden, drawn alike; `chance` ``(B, T, K)`` is uniform."""
    frames = (~hidden).long().argsort(dim=1, stable=True)  # the hidden ones first, in order
    own = (hidden.long().cumsum(dim=1) - 1)[..., None]
    others = (hidden.sum(dim=1) - 1)[:, None, None]
    drawn = torch.minimum((chance * others).long(), others - 1)
    drawn = drawn + (drawn >= own)
    return frames[:, None].expand(-1, hidden.shape[1], -1).gather(2, drawn)


class Wav2Vec2(Task):
    """Batches are (waves (B, L), lengths (B,)) and labels, not read.

    Prepared ones are the model's arguments, and hidden (B, T) with distractors (B, T, K).
    """

    best = ("val/loss", min)
    names = ("loss", "top1")
    unread = ("trainer.label_smoothing",)
    knows_classes = False

    def __init__(
        self,
        frames,
        code_shape: tuple[int, int],
        *,
        mask_prob: float = 0.65,
        mask_length: int = 10,
        negatives: int = 100,
        similarity_scale: float = 0.1,
        diversity: float = 0.1,
        feature_penalty: float = 10.0,
        temperature: list[float] = (2.0, 0.5, 0.999995),
        probe: int = 3000,
    ):
        for name, value in (("mask_length", mask_length), ("negatives", negatives)):
            if value < 1:
                raise ValueError(f"model.wav2vec2.{name}={value}: must be at least 1")
        if not 0 < mask_prob <= 1:
            raise ValueError(f"model.wav2vec2.mask_prob={mask_prob}: must be above 0 and at most 1")
        if similarity_scale <= 0:
            raise ValueError(f"model.wav2vec2.similarity_scale={similarity_scale}: must be above 0")
        if len(temperature) != 3 or not (min(temperature) > 0 and temperature[2] <= 1):
            raise ValueError(
                f"model.wav2vec2.temperature={list(temperature)}: needs first, last and factor a step, e.g. "
                "[2.0,0.5,0.999995]"
            )
        self.frames, self.code_shape = frames, code_shape
        self.mask_prob, self.mask_length, self.negatives = mask_prob, mask_length, negatives
        self.scale, self.diversity, self.penalty = similarity_scale, diversity, feature_penalty
        self.schedule, self.probe = temperature, probe

    def temperature(self, step: int) -> float:
        """Of the Gumbel softmax in a step of training, counted from 0."""
        first, last, factor = self.schedule
        return max(first * factor**step, last)

    def prepare(self, inputs: tuple, labels: Tensor, place: Place):
        waves, lengths = inputs
        T, K, noises = self.frames(waves.shape[1]), self.negatives, self.code_shape[0] * self.code_shape[1]
        sizes = [1 + T, T * K, T * noises if place.trains else 0]
        drawn = place.rows(len(lengths), lambda g: torch.rand(sum(sizes), generator=g)).to(waves.device)
        starts, others, noise = drawn.split(sizes, dim=1)
        hidden = hide(starts, self.frames(lengths), self.mask_prob, self.mask_length)
        targets = hidden, distractors(others.unflatten(1, (T, K)), hidden)
        if not place.trains:
            return (waves, lengths, hidden), targets
        gumbel = -(-noise.clamp(1e-7, 1 - 1e-7).log()).log().unflatten(1, (T, *self.code_shape)).to(waves)
        return (waves, lengths, hidden, gumbel, waves.new_tensor(self.temperature(place.key[2]))), targets

    def loss(self, model: nn.Module, inputs: tuple, targets: tuple) -> Tensor:
        """Contrast, and the two other terms with their weights."""
        context, vectors, ids, shares, size = model(*inputs)
        contrast, _ = self.contrast(context, vectors, ids, *targets)
        return (
            contrast.mean()
            + self.diversity * self.unused(shares, targets[0], model.training)
            + self.penalty * wide(size).mean()
        )

    def measure(self, model: nn.Module, inputs: tuple, targets: tuple) -> Tensor:
        """Sums of each recording's contrast (nats a hidden frame) and share of sounds that are known, and the count."""
        context, vectors, ids, _, _ = model(*inputs)
        contrast, known = self.contrast(context, vectors, ids, *targets)
        return torch.stack([contrast.sum(), known.sum(), contrast.new_tensor(len(ids))])

    def contrast(self, context: Tensor, vectors: Tensor, ids: Tensor, hidden: Tensor, others: Tensor):
        """Cross-entropy and share of hits of each recording, ``(B,)`` each, means over its hidden frames.

        A distractor with the frame's own codes is no distractor and is left out, as in the official code.
        """
        with exactly(context):
            similar = F.normalize(wide(context), dim=-1) @ F.normalize(wide(vectors), dim=-1).transpose(1, 2)
        similar = similar / self.scale  # (B, T, T)
        own = similar.diagonal(dim1=1, dim2=2)[..., None]  # (B, T, 1)
        same = ids[:, None].expand(-1, ids.shape[1], -1).gather(2, others) == ids[..., None]
        wrong = similar.gather(2, others).masked_fill(same, -torch.inf)
        error = torch.cat((own, wrong), dim=2).logsumexp(dim=2) - own[..., 0]
        known = own[..., 0] > wrong.amax(dim=2)
        weight = hidden / hidden.sum(dim=1, keepdim=True)
        return (error * weight).sum(dim=1), (known * weight).sum(dim=1)

    def unused(self, shares: Tensor, hidden: Tensor, together: bool) -> Tensor:
        """1 minus the perplexity of the softmax over codes, in shares of all codes.

        Args:
            shares: of the model, ``(B, T, G, V)``.
            hidden: frames, ``(B, T)``; of these alone.
            together: over the recordings of all processes, which must all call it.
        """
        weight = (hidden / hidden.sum(dim=1, keepdim=True)).to(shares)
        with exactly(shares):
            mean = torch.einsum("btgv,bt->gv", shares, weight) / len(shares)
        if together and dist.is_available() and dist.is_initialized():
            mean = _AddedUp.apply(mean) / dist.get_world_size()
        perplexity = (-(mean * (mean + 1e-7).log()).sum(dim=1)).exp().sum()
        return 1 - perplexity / mean.numel()

    @torch.no_grad()
    def at_end(self, model: nn.Module, data, split: str, device: torch.device):
        """How many codes the split's sounds use, probes of what frames know, and a picture of sounds and codes."""
        used, first = [], None
        for inputs, labels in data.eval_batches(split):
            (waves, lengths), labels = tuple(t.to(device) for t in inputs), labels.to(device)
            prepared, _ = self.prepare((waves, lengths), labels, Place((split,), 0))
            ids = model(*prepared)[2]
            heard = torch.arange(ids.shape[1], device=device) < self.frames(lengths)[:, None]
            used.append(ids[heard])
            first = first or (waves, ids.masked_fill(~heard, -1))
        shares = torch.unique(torch.cat(used), return_counts=True)[1].double()
        shares = shares / shares.sum()
        found = {"codes": (-(shares * shares.log()).sum()).exp().item()}
        if self.probe:
            found |= probed(model, data, split, self.frames, self.probe, device)
        return found, picture_of(*first)


class _AddedUp(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


def build(config: dict, classes: int) -> Wav2Vec2:
    """The task of a config, its arguments in ``model.wav2vec2``.

    Raises:
        ValueError: an argument that does not exist or does not fit.
    """
    model = config["model"]
    arguments = model.get("wav2vec2") or {}
    check_arguments(Wav2Vec2, arguments, "model.wav2vec2")
    frames = partial(frames_of, kernels=model["conv_kernels"], strides=model["conv_strides"])
    return Wav2Vec2(frames, (model["code_groups"], model["codes"]), **arguments)
