"""Vision Transformers and ConvNeXts: timm's classes, with every norm from the norm config.

timm passes no site to its ``norm_layer``, and in ConvNeXt that argument changes the MLPs too; so the model is built by
timm's name and its LayerNorms are then replaced by module name: 25 in ViT-B, 41 in ConvNeXt-B.
"""

import re
from typing import Literal

import timm
from torch import Tensor, nn

from dyt.conversion.replace import replace_norms
from dyt.data.spec import Spec
from dyt.norms import NormFactory
from models.methods import apply_method

SITES = (  # module name in timm -> site
    (r"blocks\.\d+\.norm1", "attn"),
    (r"blocks\.\d+\.norm2", "mlp"),
    (r"blocks\.\d+\.attn\.[qk]_norm", "qk"),
    (r"norm_pre", "embed"),
    (r"norm|fc_norm|head\.norm", "final"),
    (r"stem\.1", "stem"),
    (r"stages\.\d+\.blocks\.\d+\.norm", "mlp"),
    (r"stages\.\d+\.downsample\.0", "down"),
)


def site_of(name: str) -> str:
    """The site of timm's module `name`.

    Raises:
        ValueError: a norm that this table does not know.
    """
    for pattern, site in SITES:
        if re.fullmatch(pattern, name):
            return site
    raise ValueError(f"no site is known for the norm {name!r}; add it to models/vit.py")


class _Frozen:
    """In front of timm's class where the head alone is learned: the rest is in training, too, as it is used later."""

    def train(self, mode: bool = True):
        """Statistics and power iterations stand still, no path is dropped; `dropout` before the head is the head's."""
        super().train(mode)
        for name, part in self.named_children():
            if name not in ("head_drop", "head"):
                part.eval()
        return self


def build(
    norm: NormFactory,
    spec: Spec,
    *,
    timm_name: str,
    img_size: int | None = None,
    patch_size: int | None = None,
    dim: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    drop_path: float = 0.0,
    dropout: float = 0.0,
    qk_norm: bool = False,
    method: Literal["fixup", "skipinit", "sigma_reparam"] | None = None,
    frozen: bool = False,
) -> nn.Module:
    """timm's `timm_name` for ``(B, channels, img_size, img_size)`` images, with global average pooling as in the paper.

    Null arguments are as the name says. `frozen` leaves the head alone to be learned, a linear probe, with a BatchNorm
    without scale and shift before it, as MAE's; all before it is in evaluation mode. Returns logits ``(B, classes)``.

    Raises:
        ValueError: not a ViT or ConvNeXt of timm, or sizes that do not divide.
    """
    if not timm.is_model(timm_name):
        raise ValueError(f"model.timm_name={timm_name}: timm has no such model; see timm.list_models('vit*')")
    if not timm.models.is_model_in_modules(timm_name, ("vision_transformer", "convnext")):
        raise ValueError(f"model.timm_name={timm_name}: not a ViT or ConvNeXt; see timm.list_models('vit*')")
    convnext = timm.models.is_model_in_modules(timm_name, ("convnext",))
    if convnext and img_size:
        if img_size < 32:  # four stages halve it five times
            raise ValueError(f"data.img_size={img_size}: {timm_name} needs at least 32; type data.img_size=32")
        img_size = None  # a ConvNeXt takes any size
    changed = {"img_size": img_size, "patch_size": patch_size, "embed_dim": dim, "depth": depth, "num_heads": heads}
    changed = {k: v for k, v in changed.items() if v is not None}
    if qk_norm:
        changed["qk_norm"] = True
    if convnext and changed:
        ours = {"embed_dim": "dim", "num_heads": "heads"}
        raise ValueError(
            f"model.{ours.get(k := next(iter(changed)), k)}: {timm_name} has no such argument; leave it null"
        )
    for name, value in (("dim", dim), ("depth", depth), ("heads", heads), ("patch_size", patch_size)):
        if value is not None and value < 1:
            raise ValueError(f"model.{name}={value}: must be at least 1")
    for name, value in (("dropout", dropout), ("drop_path", drop_path)):
        if not 0 <= value < 1:
            raise ValueError(f"model.{name}={value}: must be at least 0 and below 1")
    if img_size and patch_size and img_size % patch_size:
        raise ValueError(f"model.img_size={img_size} is not a multiple of model.patch_size={patch_size}")
    if dim and heads and dim % heads:
        raise ValueError(f"model.dim={dim} is not a multiple of model.heads={heads}")
    model = timm.create_model(
        timm_name,
        pretrained=False,
        num_classes=spec.classes,
        in_chans=spec.channels,
        global_pool="avg",
        drop_path_rate=drop_path,
        drop_rate=dropout,
        **changed,
    )
    replace_norms(model, norm, site_of)
    if convnext and (method or frozen):
        key = f"method={method}" if method else "frozen=true"
        raise ValueError(f"model.{key}: {timm_name} is no ViT; leave it {'null' if method else 'false'}")
    apply_method(model, method, norm)
    if frozen:
        head = model.get_classifier()
        model.requires_grad_(False)
        model.head = nn.Sequential(nn.BatchNorm1d(head.in_features, affine=False, eps=1e-6), head.requires_grad_(True))
        model.__class__ = type(type(model).__name__, (_Frozen, type(model)), {})
        model.train()
    return model


def build_encoder(norm: NormFactory, spec: Spec, *, timm_name: str, **arguments) -> nn.Module:
    """A ViT without its head, for families that call its parts one by one; arguments as for `build`.

    Raises:
        ValueError: as `build`, or not a ViT whose tokens are one for the class and one a patch, each with its position.
    """
    model = build(norm, spec, timm_name=timm_name, **arguments)
    if not hasattr(model, "patch_embed"):
        raise ValueError(f"model.timm_name={timm_name}: is no ViT; see timm.list_models('vit*')")
    wrong = None
    if model.cls_token is None:
        wrong = "no class token"
    elif model.reg_token is not None:
        wrong = f"{model.reg_token.shape[1]} register tokens beside its class token"
    elif model.no_embed_class or model.pos_embed is None:
        wrong = "no position for its class token"
    if wrong:
        raise ValueError(
            f"model.timm_name={timm_name}: has {wrong}; choose one with a class token alone, e.g. vit_tiny_patch16_224"
        )
    model.reset_classifier(0)  # no head: its parameters would get no gradient
    return model


def through_blocks(encoder: nn.Module, x: Tensor) -> Tensor:
    """The encoder's tokens ``(B, N, D)`` of those that its blocks are to see; timm's ``forward_features`` from there.

    The norm before the blocks is CLIP's, and the identity elsewhere. Of the last two one is the identity.
    """
    return encoder.norm(encoder.blocks(encoder.norm_pre(x)))
