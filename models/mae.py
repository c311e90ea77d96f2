"""Masked autoencoder (arXiv 2111.06377): a ViT sees a quarter of the patches, and a light decoder draws the rest.

image (B, C, H, W) -> patches (B, N, D), the kept ones (B, K, D) -> encoder, models/vit.py's -> norm(final)
-> decoder: kept ones (B, K, d) at their places, a mask token at all others (B, N, d) -> blocks -> pixels (B, N, p p C)

The encoder's weights are those of a ViT: ``model=vit_nano init_from=<run>`` takes them, and starts with its own head.
The final norm stands before the decoder here, and after pooling there. Positions start as sines and cosines and are
learned; the official encoder's stay.
"""

from functools import partial
from typing import Literal

import torch
from timm.layers import Mlp, build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from dyt.conversion.replace import replace_norms
from dyt.data.spec import Spec
from dyt.norms import NormFactory
from models import vit


class Decoder(nn.Module):
    """Kept tokens ``(B, 1 + K, D)``, the class token first, and their places ``(B, K)`` -> ``(B, N, outputs)``."""

    def __init__(self, norm, *, inside: int, outputs: int, side: int, dim: int, depth: int, heads: int):
        super().__init__()
        self.embed = nn.Linear(inside, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", build_sincos2d_pos_embed([side] * 2, dim), persistent=False)  # (N, d)
        layer_norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(dim, heads, qkv_bias=True, norm_layer=layer_norm, mlp_layer=Mlp) for _ in range(depth)
        )
        self.norm = layer_norm(dim)
        self.pred = nn.Linear(dim, outputs)
        self.apply(_initialise)
        nn.init.normal_(self.mask_token, std=0.02)
        replace_norms(self, norm, vit.site_of)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        x = self.embed(x)  # (B, 1 + K, d)
        places = kept[:, :, None].expand(-1, -1, x.shape[-1])
        whole = self.mask_token.expand(len(x), len(self.positions), -1).to(x.dtype).scatter(1, places, x[:, 1:])
        x = torch.cat((x[:, :1], whole + self.positions), dim=1)
        for block in self.blocks:
            x = block(x)
        return self.pred(self.norm(x))[:, 1:]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


class MAE(nn.Module):
    """See `build`."""

    def __init__(
        self,
        encoder: nn.Module,
        norm,
        *,
        channels: int,
        patch_size: int,
        dim: int,
        depth: int,
        heads: int,
        encoder_init: str,
    ):
        super().__init__()
        if encoder_init == "mae":
            encoder.apply(_initialise)
            nn.init.xavier_uniform_(encoder.patch_embed.proj.weight.view(encoder.embed_dim, -1))
            nn.init.normal_(encoder.cls_token, std=0.02)
        side = encoder.patch_embed.grid_size[0]
        with torch.no_grad():
            encoder.pos_embed[0, 1:] = build_sincos2d_pos_embed([side] * 2, encoder.embed_dim)
        self.encoder, self.patch_size = encoder, patch_size
        outputs = patch_size**2 * channels
        sizes = {"dim": dim, "depth": depth, "heads": heads}
        self.decoder = Decoder(norm, inside=encoder.embed_dim, outputs=outputs, side=side, **sizes)

    def encode(self, images: Tensor, kept: Tensor) -> Tensor:
        """``(B, 1 + K, D)``: the class token, and the patches that stand at `kept` (B, K)."""
        encoder = self.encoder
        x = encoder.patch_embed(images).flatten(1, -2)  # (B, N, D), also where timm gives a grid (B, H, W, D)
        x = x + encoder.pos_embed[:, 1:]
        x = x.gather(1, kept[:, :, None].expand(-1, -1, x.shape[-1]))  # (B, K, D)
        first = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(x), -1, -1)
        return encoder.fc_norm(vit.through_blocks(encoder, torch.cat((first.to(x.dtype), x), dim=1)))

    def forward(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """``(B, N, p p C)``: every patch's pixels, foreseen from the `kept` ones.

        Of images alone it is the features ``(B, D)`` that ``model=vit_nano init_from=<run>`` starts with.
        """
        return self.encoder(images) if kept is None else self.decoder(self.encode(images, kept), kept)


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
    decoder_dim: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    encoder_init: Literal["timm", "mae"] = "mae",
) -> MAE:
    """A masked autoencoder for data of `spec`, its encoder a ViT; ``configs/model/base/mae.yaml`` says the rest.

    Raises:
        ValueError: as `vit.build_encoder`, or a decoder whose sizes do not divide.
    """
    if decoder_dim % decoder_heads or decoder_dim % 4:
        raise ValueError(
            f"model.decoder_dim={decoder_dim} must be a multiple of model.decoder_heads={decoder_heads}, and of 4"
        )
    sizes = {"img_size": img_size, "patch_size": patch_size, "dim": dim, "depth": depth, "heads": heads}
    encoder = vit.build_encoder(norm, spec, timm_name=timm_name, **sizes)
    decoder = {"dim": decoder_dim, "depth": decoder_depth, "heads": decoder_heads}
    return MAE(encoder, norm, channels=spec.channels, patch_size=patch_size, encoder_init=encoder_init, **decoder)
