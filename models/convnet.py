"""Convolutional nets with BatchNorm (timm's ResNet, VGG ...), where every BatchNorm2d gives way to the config's norm.

The paper replaces BatchNorm too, and fails: ResNet-50 76.2 -> 68.9 (arXiv 2503.10622, Table 16). norm=batchnorm is the
net as it is, but for its start: timm begins with gamma 0 in the last BatchNorm of a ResNet's block, and here all begin
at 1. An activation that timm keeps inside its BatchNorm stays, behind the new norm.
"""

import re

import timm
from torch import nn

from dyt.conversion.plan import plan
from dyt.conversion.replace import replace_planned
from dyt.data.spec import Spec
from dyt.norms import NormFactory


def site_of(name: str) -> str:
    """``stem`` for the first norm of a ResNet, ``down`` on its shortcuts, ``conv`` everywhere else."""
    if re.fullmatch(r"bn1|conv1\.\d+", name):
        return "stem"
    return "down" if ".downsample." in name else "conv"


def build(norm: NormFactory, spec: Spec, *, timm_name: str, dropout: float = 0.0, stem: str = "imagenet") -> nn.Module:
    """timm's `timm_name` for ``(B, channels, H, W)`` images; returns logits ``(B, classes)``.

    `stem` ``small`` makes a ResNet's first convolution 3 x 3 without stride or pooling, as usual for small pictures.

    Raises:
        ValueError: timm does not know it, it has no BatchNorm2d, or has norms of another kind, which would stay.
    """
    if not timm.is_model(timm_name):
        raise ValueError(f"model.timm_name={timm_name}: timm has no such model; see timm.list_models('resnet*')")
    if not 0 <= dropout < 1:
        raise ValueError(f"model.dropout={dropout}: must be at least 0 and below 1")
    if stem not in ("imagenet", "small"):
        raise ValueError(f"model.stem={stem}: choose from imagenet, small")
    model = timm.create_model(
        timm_name, pretrained=False, num_classes=spec.classes, in_chans=spec.channels, drop_rate=dropout
    )
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        raise ValueError(f"model.timm_name={timm_name}: it has no BatchNorm2d to replace; for ViTs type model=vit_tiny")
    found = plan(model, batchnorm="replace", site_of=site_of)
    odd = next((e for e in found if e.fate != "replace" or not isinstance(e.module, nn.BatchNorm2d)), None)
    if odd:
        raise ValueError(
            f"model.timm_name={timm_name}: {odd.name}, a {odd.cls}, would stay as it is beside the config's norms; "
            "choose a net whose norms are all BatchNorm2d, e.g. resnet18"
        )
    replace_planned(model, norm, found)
    if stem == "small":
        first = getattr(model, "conv1", None)
        if not isinstance(first, nn.Conv2d) or not hasattr(model, "maxpool"):
            raise ValueError(f"model.stem=small: {timm_name} has no plain ResNet stem; type model.stem=imagenet")
        model.conv1 = nn.Conv2d(spec.channels, first.out_channels, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    return model
