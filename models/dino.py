"""DINO (arXiv 2104.14294): a student ViT learns to say of part of a picture what its own average says of more of it.

views (B, C, H, W) of any size -> encoder, models/vit.py's, positions resized -> class token, norm(final) (B, D)
-> three layers with GELU (B, bottleneck), length 1 -> K directions of length 1: cosines (B, K)

The teacher has the student's shape, gets no gradient and follows it (`DINO.follow`). It is the one that is kept: called
with pictures alone the model gives the teacher's features, and ``model=vit_nano init_from=<run>`` takes its encoder.
"""

import copy
from typing import Literal

import torch
from timm.layers import resample_abs_pos_embed, trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.data.spec import Spec
from dyt.norms import NormFactory
from models import vit


class Head(nn.Module):
    """``(B, dim)`` -> cosines ``(B, outputs)`` with the last layer's rows: weight norm with its gain kept at 1."""

    def __init__(self, dim: int, *, hidden: int, bottleneck: int, outputs: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.last = nn.Linear(bottleneck, outputs, bias=False)
        self.apply(_initialise)

    def forward(self, x: Tensor, learns: Tensor) -> Tensor:
        rows = F.normalize(self.last.weight, dim=-1)
        rows = rows * learns + rows.detach() * (1 - learns)  # learns=0: the layer stays, its gradient is zero
        return F.linear(F.normalize(self.mlp(x), dim=-1), rows.to(x.dtype))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Branch(nn.Module):
    """Student or teacher: an encoder and a head."""

    def __init__(self, encoder: nn.Module, head: Head, pool: str):
        super().__init__()
        self.encoder, self.head, self.pool = encoder, head, pool

    def features(self, images: Tensor) -> Tensor:
        """``(B, D)`` of ``(B, C, H, W)`` images, whose sides are multiples of the patch's."""
        encoder = self.encoder
        x = encoder.patch_embed.proj(images)  # (B, D, h, w)
        place = resample_abs_pos_embed(encoder.pos_embed, list(x.shape[2:]), num_prefix_tokens=1)
        x = torch.cat((encoder.cls_token.expand(len(x), -1, -1).to(x.dtype), x.flatten(2).transpose(1, 2)), dim=1)
        x = vit.through_blocks(encoder, x + place)
        return encoder.fc_norm(x[:, 0] if self.pool == "token" else x[:, 1:].mean(dim=1))

    def forward(self, images: Tensor, learns: Tensor) -> Tensor:
        return self.head(self.features(images), learns)


class DINO(nn.Module):
    """See `build`."""

    def __init__(self, student: Branch):
        super().__init__()
        self.student, self.teacher = student, copy.deepcopy(student).requires_grad_(False).eval()
        self.register_buffer("centre", torch.zeros(student.head.last.out_features))

    def train(self, mode: bool = True) -> "DINO":
        """The teacher is always as it is used later: it drops no paths, and its BatchNorm does not measure batches."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, images: Tensor, small: Tensor | None = None, learns: Tensor | None = None):
        """The teacher's features ``(B, D)`` of ``(B, C, H, W)`` images, or what the loss needs of views.

        Args:
            images: of views those that the teacher sees too, ``(B, G, C, H, W)``.
            small: views that the student alone sees, ``(B, L, C, h, w)``; L may be 0.
            learns: (B,), all 1 where the last layer learns and all 0 where it does not.

        Returns:
            The student's cosines ``(B, G + L, K)`` and the teacher's less the centre ``(B, G, K)``.
        """
        if small is None:
            return self.teacher.features(images)
        learns, sizes = learns.mean(), [x for x in (images, small) if x.shape[1]]
        ours = [self.student(x.flatten(0, 1), learns).unflatten(0, x.shape[:2]) for x in sizes]
        with torch.no_grad():
            theirs = self.teacher(images.flatten(0, 1), learns).unflatten(0, images.shape[:2])
        return torch.cat(ours, dim=1), theirs - self.centre

    @torch.no_grad()
    def follow(self, momentum: float, seen: Tensor) -> None:
        """The teacher goes towards the student, its centre by `seen` (K,), the part of its new mean that is taken.

        Its norms' statistics are the student's: on the way from 0, say, they would be too small for its weights.
        """
        both = (branch.state_dict(keep_vars=True).values() for branch in (self.student, self.teacher))
        for ours, theirs in zip(*both, strict=True):
            if isinstance(theirs, nn.Parameter):
                theirs.lerp_(ours.to(theirs.dtype), 1 - momentum)
            else:
                theirs.copy_(ours)
        self.centre.add_(seen.to(self.centre))


def build(
    norm: NormFactory,
    spec: Spec,
    *,
    timm_name: str,
    img_size: int,
    patch_size: int,
    dim: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    drop_path: float = 0.0,
    pool: Literal["token", "avg"] = "token",
    head_hidden: int = 2048,
    bottleneck: int = 256,
    outputs: int = 65536,
) -> DINO:
    """A student and its teacher for data of `spec`; ``configs/model/base/dino.yaml`` says the rest.

    Raises:
        ValueError: as `vit.build_encoder`, or a size of the head below 1.
    """
    for name, value in (("head_hidden", head_hidden), ("bottleneck", bottleneck), ("outputs", outputs)):
        if value < 1:
            raise ValueError(f"model.{name}={value}: must be at least 1")
    sizes = {"img_size": img_size, "patch_size": patch_size, "dim": dim, "depth": depth, "heads": heads}
    encoder = vit.build_encoder(norm, spec, timm_name=timm_name, drop_path=drop_path, **sizes)
    head = Head(encoder.embed_dim, hidden=head_hidden, bottleneck=bottleneck, outputs=outputs)
    return DINO(Branch(encoder, head, pool))
