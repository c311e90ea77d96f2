"""Diffusion Transformer (arXiv 2212.09748), class-conditional, with adaLN-Zero.

noisy image (B, C, H, W), time (B,), label (B,) -> tokens (B, T, D) -> depth x Block -> FinalLayer -> noise (B, C, H, W)
c = embedding of time + embedding of label (B, D)
Block:  x + gate1 Attention(norm(attn)(x) (1 + scale1) + shift1);  x + gate2 MLP(norm(mlp)(x) (1 + scale2) + shift2)

Scales, shifts and gates are linear in silu(c). The norm itself has none of its own, so with DyT the normalise step
alone becomes tanh(alpha x), as in arXiv 2503.10622. The official model also predicts a variance; here it is fixed.
"""

import math

import torch
from timm.layers import Mlp, PatchEmbed, build_sincos2d_pos_embed
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.data.spec import Spec
from dyt.norms import NormFactory

FREQUENCIES = 256  # of the time embedding


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``(B, T, D)`` tokens scaled and shifted by ``(B, D)``."""
    return x * (1 + scale[:, None]) + shift[:, None]


def waves(t: Tensor) -> Tensor:
    """``(B,)`` times as ``(B, 256)`` cosines and sines of wavelengths from 2 pi to 20,000 pi."""
    half = FREQUENCIES // 2
    rate = torch.exp(-math.log(10000) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angle = t.float()[:, None] * rate  # (B, 128)
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


class Block(nn.Module):
    def __init__(self, norm, *, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.attn_norm = norm(dim, "attn")
        self.attn = Attention(dim, num_heads=heads, qkv_bias=True)
        self.mlp_norm = norm(dim, "mlp")
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=lambda: nn.GELU(approximate="tanh"))
        self.modulation = nn.Linear(dim, 6 * dim)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(c)).chunk(6, dim=-1)  # (B, D) each
        x = x + gate1[:, None] * self.attn(modulate(self.attn_norm(x), shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulate(self.mlp_norm(x), shift2, scale2))


class DiT(nn.Module):
    """See `build` for the arguments. Label `classes` stands for none: it is what guidance steers away from."""

    def __init__(
        self, norm, *, channels, classes, img_size, patch_size, dim, depth, heads, mlp_ratio, zero_init, norm_affine
    ):
        super().__init__()

        def plain(width: int, site: str) -> nn.Module:
            return norm(width, site, eps=1e-6, affine=norm_affine)

        self.channels, self.patch_size, self.side = channels, patch_size, img_size // patch_size
        self.patches = PatchEmbed(img_size, patch_size, channels, dim)
        self.register_buffer("positions", build_sincos2d_pos_embed([self.side] * 2, dim), persistent=False)  # (T, D)
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.label = nn.Embedding(classes + 1, dim)
        self.blocks = nn.ModuleList(Block(plain, dim=dim, heads=heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.final_norm = plain(dim, "final")
        self.final_modulation = nn.Linear(dim, 2 * dim)
        self.head = nn.Linear(dim, patch_size**2 * channels)
        self._initialise(zero_init)

    def _initialise(self, zero_init: bool) -> None:
        """The official code's; without `zero_init` modulation and head start as every other linear layer does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patches.proj.weight.flatten(1))  # a view: as a linear layer
        nn.init.zeros_(self.patches.proj.bias)
        for weight in (self.label.weight, self.time[0].weight, self.time[2].weight):
            nn.init.normal_(weight, std=0.02)
        if zero_init:
            for layer in (*(block.modulation for block in self.blocks), self.final_modulation, self.head):
                nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The noise in ``(B, C, H, W)`` images `x` at times `t` (B,), of labels `y` (B,)."""
        c = self.time(waves(t).to(self.head.weight.dtype)) + self.label(y)  # (B, D)
        x = self.patches(x) + self.positions  # (B, T, D)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.final_modulation(F.silu(c)).chunk(2, dim=-1)
        x = self.head(modulate(self.final_norm(x), shift, scale))  # (B, T, p p C)
        x = x.unflatten(1, (self.side, self.side)).unflatten(-1, (self.patch_size, self.patch_size, self.channels))
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)  # (B, h, w, p, q, C) -> (B, C, h p, w q)


def build(
    norm: NormFactory,
    spec: Spec,
    *,
    img_size: int,
    patch_size: int,
    dim: int,
    depth: int,
    heads: int,
    mlp_ratio: float = 4.0,
    zero_init: bool = True,
    norm_affine: bool = False,
) -> DiT:
    """A DiT for data of `spec`; ``configs/model/base/dit.yaml`` says what each argument means.

    Raises:
        ValueError: sizes that do not divide, or no classes.
    """
    if img_size % patch_size:
        raise ValueError(f"model.img_size={img_size} is not a multiple of model.patch_size={patch_size}")
    if dim % heads or dim % 4:
        raise ValueError(f"model.dim={dim} must be a multiple of model.heads={heads}, and of 4")
    if mlp_ratio <= 0:
        raise ValueError(f"model.mlp_ratio={mlp_ratio}: must be above 0")
    return DiT(
        norm,
        channels=spec.channels,
        classes=spec.classes,
        img_size=img_size,
        patch_size=patch_size,
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        zero_init=zero_init,
        norm_affine=norm_affine,
    )
