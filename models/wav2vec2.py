"""wav2vec 2.0 (arXiv 2006.11477): convolutions listen, a Transformer with hidden parts foresees quantized sounds.

waves (B, L) -> convolutions, features (B, T, C) -> norm(stem) -> projection (B, T, D), masked frames a learned vector
-> + a convolution over 128 frames, for position -> Transformer -> projection (B, T, P), the context
and the features, not masked, after norm(stem) -> quantizer: one of V codes in each of G groups (B, T, P)

The GroupNorm after the first convolution stays whatever the norm: it brings recordings of any loudness to one, and the
paper keeps it. `norm_first` false is wav2vec 2.0 Base, x = norm(x + f(x)); true is Large, x = x + f(norm(x)).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from dyt.data.spec import Spec, frames_of
from dyt.norms import NormFactory

LEAST = 3  # frames: two hidden ones, so that one distracts from the other, and one to hear


def samples_for(frames: int, kernels: list[int], strides: list[int]) -> int:
    """The fewest samples that make so many frames."""
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        frames = (frames - 1) * stride + kernel
    return frames


class Extractor(nn.Module):
    """Waves ``(B, L)`` -> features ``(B, T, C)``."""

    def __init__(self, dim: int, kernels: list[int], strides: list[int]):
        super().__init__()
        inside = [1, *[dim] * (len(kernels) - 1)]
        self.convs = nn.ModuleList(
            nn.Conv1d(i, dim, k, stride=s, bias=False) for i, k, s in zip(inside, kernels, strides, strict=True)
        )
        self.group_norm = nn.GroupNorm(dim, dim)  # each channel of each recording over its time

    def forward(self, waves: Tensor) -> Tensor:
        x = waves[:, None]  # (B, 1, L)
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = F.gelu(self.group_norm(x) if i == 0 else x)
        return x.transpose(1, 2)


class Positions(nn.Module):
    """What a grouped convolution over neighbouring frames says of a frame's place: ``(B, T, D)`` -> same."""

    def __init__(self, dim: int, kernel: int, groups: int):
        super().__init__()
        conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, std=math.sqrt(4 / (kernel * dim)))
        nn.init.zeros_(conv.bias)
        self.conv = weight_norm(conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.conv(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)


class Block(nn.Module):
    """``(B, T, D)`` -> same; frames that are not `heard` ``(B, 1, 1, T)`` are attended by none."""

    def __init__(self, norm, dim: int, heads: int, mlp_dim: int, dropout: float, norm_first: bool):
        super().__init__()
        self.heads, self.dropout, self.norm_first = heads, dropout, norm_first
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.attn_norm = norm(dim, "attn")
        self.up, self.down = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)
        self.mlp_norm = norm(dim, "mlp")

    def attend(self, x: Tensor, heard: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
        drop = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=heard, dropout_p=drop)
        return self._dropped(self.out(x.transpose(1, 2).flatten(2)))

    def mlp(self, x: Tensor) -> Tensor:
        return self._dropped(self.down(F.gelu(self.up(x))))

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        if self.norm_first:
            x = x + self.attend(self.attn_norm(x), heard)
            return x + self.mlp(self.mlp_norm(x))
        x = self.attn_norm(x + self.attend(x, heard))
        return self.mlp_norm(x + self.mlp(x))

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Quantizer(nn.Module):
    """Features ``(B, T, C)`` -> one code in each group: their vectors ``(B, T, P)``, ids and shares of the codes."""

    def __init__(self, inside: int, outside: int, groups: int, codes: int):
        super().__init__()
        self.groups, self.codes = groups, codes
        self.scores = nn.Linear(inside, groups * codes)
        self.vectors = nn.Parameter(torch.rand(groups, codes, outside // groups))
        nn.init.normal_(self.scores.weight)
        nn.init.zeros_(self.scores.bias)

    def forward(self, features: Tensor, noise: Tensor | None, temperature: Tensor | None):
        """Gumbel softmax, straight through, with `noise` ``(B, T, G, V)``; without noise the highest score.

        Returns:
            Vectors ``(B, T, P)``, ids ``(B, T)`` and the softmax of the scores ``(B, T, G, V)``.
        """
        scores = self.scores(features).unflatten(2, (self.groups, self.codes))  # (B, T, G, V)
        scores = scores if scores.dtype == torch.float64 else scores.float()
        drawn = scores if noise is None else scores + noise
        best = drawn.argmax(dim=-1)  # (B, T, G)
        chosen = F.one_hot(best, self.codes).to(scores)
        if noise is not None:
            soft = (drawn / temperature).softmax(dim=-1)
            chosen = chosen - soft.detach() + soft
        vectors = torch.einsum("btgv,gvd->btgd", chosen, self.vectors.to(chosen)).flatten(2)
        places = self.codes ** torch.arange(self.groups, device=best.device)
        return vectors, (best * places).sum(dim=-1), scores.softmax(dim=-1)


class Wav2Vec2(nn.Module):
    """See `build`."""

    def __init__(
        self, norm, conv: tuple, dim: int, depth: int, heads: int, mlp_dim: int, positions: tuple, codes: tuple,
        vector_dim: int, output_dim: int, dropout: float, norm_first: bool, gradient_scale: float, project_std: float,
    ):  # fmt: skip
        super().__init__()
        conv_dim, *self.conv = conv
        self.gradient_scale, self.dropout, self.norm_first = gradient_scale, dropout, norm_first
        self.extractor = Extractor(conv_dim, *self.conv)
        self.stem_norm = norm(conv_dim, "stem")
        self.project = nn.Linear(conv_dim, dim)
        self.mask = nn.Parameter(torch.rand(dim))
        self.positions = Positions(dim, *positions)
        if not norm_first:
            self.embed_norm = norm(dim, "embed")
        self.blocks = nn.ModuleList(Block(norm, dim, heads, mlp_dim, dropout, norm_first) for _ in range(depth))
        if norm_first:
            self.norm = norm(dim, "final")
        self.quantizer = Quantizer(conv_dim, vector_dim, *codes)
        self.from_context, self.from_codes = nn.Linear(dim, output_dim), nn.Linear(vector_dim, output_dim)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and name != "quantizer.scores":
                nn.init.normal_(module.weight, std=project_std if name == "project" else 0.02)
                nn.init.zeros_(module.bias)
        for convolution in self.extractor.convs:
            nn.init.kaiming_normal_(convolution.weight)

    def layers(self, x: Tensor, heard: Tensor) -> list[Tensor]:
        """Frames ``(B, T, D)`` before the blocks and after each; the last is the whole Transformer's."""
        x = x.masked_fill(~heard[..., None], 0.0)  # so that no frame hears silence through the position convolution
        x = x + self.positions(x)
        x = F.dropout(x if self.norm_first else self.embed_norm(x), self.dropout, self.training)
        found = [x]
        for block in self.blocks:
            found.append(block(found[-1], heard[:, None, None]))
        if self.norm_first:
            found[-1] = self.norm(found[-1])
        return found

    def forward(self, waves: Tensor, lengths: Tensor, hidden: Tensor | None = None, noise=None, temperature=None):
        """What the loss needs where frames are `hidden` ``(B, T)``; else all layers, for a probe.

        Args:
            waves: ``(B, L)``, zero beyond their length.
            lengths: ``(B,)`` samples of each.
            hidden: the frames that the Transformer does not hear.
            noise: Gumbel noise ``(B, T, G, V)``; None: the best code.
            temperature: of the Gumbel softmax, a scalar.

        Returns:
            Context ``(B, T, P)``, code vectors ``(B, T, P)``, ids ``(B, T)``, softmax of the scores ``(B, T, G, V)``
            and each recording's mean squared feature ``(B,)``. Or a list: features (B, T, C), and of `layers`.
        """
        features = self.extractor(waves)
        count = frames_of(lengths, *self.conv)
        heard = torch.arange(features.shape[1], device=waves.device) < count[:, None]  # (B, T)
        if self.gradient_scale != 1 and self.training:
            features = features * self.gradient_scale + features.detach() * (1 - self.gradient_scale)
        size = (features.square().mean(dim=-1) * heard).sum(dim=1) / count
        features = self.stem_norm(features)
        x = F.dropout(self.project(features), self.dropout, self.training)
        if hidden is None:
            return [features, *self.layers(x, heard)]
        x = torch.where(hidden[..., None], self.mask.to(x), x)
        context = self.from_context(self.layers(x, heard)[-1])
        vectors, ids, scores = self.quantizer(F.dropout(features, self.dropout, self.training), noise, temperature)
        return context, self.from_codes(vectors), ids, scores, size


def build(
    norm: NormFactory,
    spec: Spec,
    *,
    dim: int,
    depth: int,
    heads: int,
    mlp_dim: int | None = None,
    conv_dim: int = 512,
    conv_kernels: list[int] = (10, 3, 3, 3, 3, 2, 2),
    conv_strides: list[int] = (5, 2, 2, 2, 2, 2, 2),
    position_kernel: int = 128,
    position_groups: int = 16,
    code_groups: int = 2,
    codes: int = 320,
    vector_dim: int = 256,
    output_dim: int = 256,
    dropout: float = 0.0,
    norm_first: bool = False,
    gradient_scale: float = 0.1,
    project_std: float = 0.02,
) -> Wav2Vec2:
    """A wav2vec 2.0 for recordings of `spec`; ``configs/model/base/wav2vec2.yaml`` says what the rest means.

    Raises:
        ValueError: sizes that do not divide, or recordings too short for its convolutions.
    """
    for name, value, by, parts in (
        ("dim", dim, "heads", heads),
        ("dim", dim, "position_groups", position_groups),
        ("vector_dim", vector_dim, "code_groups", code_groups),
    ):
        if parts < 1 or value % parts:
            raise ValueError(f"model.{name}={value} is not a multiple of model.{by}={parts}")
    sound = all(isinstance(n, int) and n > 0 for n in [*conv_kernels, *conv_strides])
    if not sound or not conv_kernels or len(conv_kernels) != len(conv_strides):
        raise ValueError("model.conv_kernels and model.conv_strides: need equally many whole numbers above 0")
    if not 0 <= dropout < 1:
        raise ValueError(f"model.dropout={dropout}: must be at least 0 and below 1")
    kernels, strides = list(conv_kernels), list(conv_strides)
    if spec.shortest and spec.shortest < (need := samples_for(LEAST, kernels, strides)):
        raise ValueError(
            f"the shortest recording has {spec.shortest} samples, and this model's {LEAST} frames take {need}; type "
            f"data.min_seconds={math.ceil(1000 * need / spec.rate) / 1000:g}, with data.on_error=skip to leave out "
            "shorter ones"
        )
    return Wav2Vec2(
        norm, (conv_dim, kernels, strides), dim, depth, heads, mlp_dim or 4 * dim, (position_kernel, position_groups),
        (code_groups, codes), vector_dim, output_dim, dropout, norm_first, gradient_scale, project_std,
    )  # fmt: skip
