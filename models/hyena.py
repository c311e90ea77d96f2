"""HyenaDNA (arXiv 2306.15794): where attention stood, a convolution as long as the sequence between two gates.

bases (B, T) -> embedding (B, T, C) -> depth x Block -> norm(final) -> logits of each next base (B, T, 4), or, for
labelled sequences, mean over known bases -> logits (B, classes)
Block:  x + Mixer(norm(attn)(x));  x + MLP(norm(mlp)(x))

The filters are implicit: a small net with sines makes them of their places, times a window that decays. The pretrained
net is ``encoder`` and a head; a classifier takes its weights by ``init_from`` and starts with its own head.
models/dnabert.py puts attention in the mixer's place.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.data.spec import Spec
from dyt.norms import NormFactory
from models.gpt import MLP

BASES = 4  # A, C, G, T: what is predicted; ids above are letters that stand for several, and the mask
SLOW, FAST, FLOOR, SHIFT = 1.5, 0.3, 1e-2, 0.05  # of the window: its slowest channel falls to FLOOR at 1.5 contexts


def long_convolution(x: Tensor, filters: Tensor) -> Tensor:
    """Causal convolution of ``(B, C, T)`` with a filter as long for each channel, ``(C, T)``, by FFT: O(T log T).

    ``y[t] = sum over s <= t of filters[s] x[t - s]``. Padded to twice the length, so that nothing comes round.
    """
    size = 2 * x.shape[-1]
    product = torch.fft.rfft(x, n=size) * torch.fft.rfft(filters, n=size)
    return torch.fft.irfft(product, n=size)[..., : x.shape[-1]]


class Filters(nn.Module):
    """``(dim, T)`` filter values at the first T of `context` places."""

    keeps_precision = True  # where other sharded weights are computed with in bfloat16

    def __init__(self, dim: int, context: int, *, width: int, bands: int, frequency: float):
        super().__init__()
        self.context, self.bands = context, bands
        self.inner = nn.ModuleList(nn.Linear(1 + 2 * bands if i == 0 else width, width) for i in range(3))
        self.frequency = nn.Parameter(torch.full((width,), frequency))  # of the sines, one set for all three layers
        self.last = nn.Linear(width, dim, bias=False)

    def forward(self, length: int) -> Tensor:
        weight = self.last.weight
        # Never bfloat16, neither autocast's nor that of weights: it has no room for places above 256.
        exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
        kind = weight.device.type
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
            return self._values(torch.arange(length, device=weight.device, dtype=exact)).T

    def _values(self, place: Tensor) -> Tensor:
        """``(T, dim)`` at places (T,)."""
        alike = {"device": place.device, "dtype": place.dtype}
        time = place / max(1, self.context - 1)  # 0 to 1 over the context
        angle = 2 * math.pi / self.context * place[:, None] * torch.linspace(1e-4, self.bands - 1, self.bands, **alike)
        x = torch.cat((time[:, None], angle.cos(), -angle.sin()), dim=-1)  # (T, 1 + 2 bands)
        for layer in self.inner:
            x = torch.sin(self.frequency.to(x) * F.linear(x, layer.weight.to(x), layer.bias.to(x)))
        decay = torch.linspace(math.log(FLOOR) / SLOW, math.log(FLOOR) / FAST, len(self.last.weight), **alike)
        return F.linear(x, self.last.weight.to(x)) * (torch.exp(decay * time[:, None]) + SHIFT)


class Hyena(nn.Module):
    """Hyena operator of order 2 (arXiv 2302.10866): ``(B, T, C)`` -> ``(B, T, C)``; a place sees those before it."""

    def __init__(self, dim: int, context: int, **filters):
        super().__init__()
        self.inputs = nn.Linear(dim, 3 * dim)
        self.short = nn.Conv1d(3 * dim, 3 * dim, 3, padding=2, groups=3 * dim)
        self.filters = Filters(dim, context, **filters)
        self.skip = nn.Parameter(torch.randn(dim))
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        u = self.short(self.inputs(x).transpose(1, 2))[..., : x.shape[1]]  # (B, 3 C, T)
        after, before, v = u.chunk(3, dim=1)
        v = v * before
        exact = v.dtype if v.dtype == torch.float64 else torch.float32  # an FFT knows no bfloat16
        v = v.to(exact)
        v = long_convolution(v, self.filters(x.shape[1]).to(exact)) + v * self.skip[:, None]
        return self.out((v.to(after) * after).transpose(1, 2))


class Block(nn.Module):
    def __init__(self, norm, mixer: Callable[[], nn.Module], dim: int):
        super().__init__()
        self.attn_norm, self.mix = norm(dim, "attn"), mixer()
        self.mlp_norm, self.mlp = norm(dim, "mlp"), MLP(dim=dim, hidden=4 * dim, kind="gelu", bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.attn_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Encoder(nn.Module):
    """Ids of bases ``(B, T)``, T up to `context` -> ``(B, T, C)``, after the final norm."""

    def __init__(self, norm, mixer, *, letters: int, dim: int, depth: int, context: int, dropout: float, std: float):
        super().__init__()
        self.context = context
        self.embed = nn.Embedding(letters, dim)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(norm, mixer, dim) for _ in range(depth))
        self.norm = norm(dim, "final")
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):  # the two projections back into the residual stream start smaller
                back = name.endswith(("mix.out", "mlp.down"))
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * depth) if back else 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.embed.weight, std=std)

    def encode(self, bases: Tensor) -> Tensor:
        if bases.shape[1] > self.context:
            raise ValueError(f"{bases.shape[1]} bases are more than model.context={self.context}")
        x = self.drop(self.embed(bases))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    forward = encode


class Predictor(nn.Module):
    """Logits of a base at each place, ``(B, T, 4)``."""

    def __init__(self, encoder: Encoder, dim: int):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(dim, BASES)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, bases: Tensor) -> Tensor:
        return self.head(self.encoder(bases))


class Classifier(Encoder):
    """Logits of a sequence's class, ``(B, classes)``: the mean over its known bases, and a linear layer."""

    def __init__(self, *parts, classes: int, dim: int, **sizes):
        super().__init__(*parts, dim=dim, **sizes)
        self.head = nn.Linear(dim, classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, bases: Tensor) -> Tensor:
        x = self.encode(bases)
        known = (bases < BASES).to(x)[..., None]  # (B, T, 1); letters that fill up a short sequence are none
        return self.head((x * known).sum(dim=1) / known.sum(dim=1).clamp_min(1))


def network(norm, spec: Spec, mixer: Callable[[], nn.Module], *, embed_std: float, dropout: float, **sizes):
    """The net that data of `spec` ask for: a classifier of labelled sequences, else one that predicts bases.

    Raises:
        ValueError: sizes that are not positive.
    """
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"model.{name}={value}: must be at least 1")
    if not 0 <= dropout < 1:
        raise ValueError(f"model.dropout={dropout}: must be at least 0 and below 1")
    if embed_std < 0:
        raise ValueError(f"model.embed_std={embed_std}: must be at least 0")
    about = {"letters": spec.vocab_size, "dropout": dropout, "std": embed_std, **sizes}
    if spec.classes:
        return Classifier(norm, mixer, classes=spec.classes, **about)
    return Predictor(Encoder(norm, mixer, **about), sizes["dim"])


def build(
    norm: NormFactory,
    spec: Spec,
    *,
    dim: int,
    depth: int,
    context: int,
    filter_dim: int = 64,
    filter_bands: int = 2,
    filter_frequency: float = 10.0,
    dropout: float = 0.0,
    embed_std: float = 0.02,
) -> nn.Module:
    """A HyenaDNA for data of `spec`; ``configs/model/base/hyena.yaml`` says what each argument means.

    Raises:
        ValueError: sizes that are not positive.
    """
    for name, value in (("filter_dim", filter_dim), ("filter_bands", filter_bands)):
        if value < 1:
            raise ValueError(f"model.{name}={value}: must be at least 1")
    filters = {"width": filter_dim, "bands": filter_bands, "frequency": filter_frequency}
    sizes = {"dim": dim, "depth": depth, "context": context}
    return network(norm, spec, lambda: Hyena(dim, context, **filters), embed_std=embed_std, dropout=dropout, **sizes)
