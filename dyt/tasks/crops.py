"""Random views of pictures: crops of any size, flipped, with other colours, for a whole batch at once.

What torchvision's RandomResizedCrop, ColorJitter, RandomGrayscale, GaussianBlur and RandomSolarize do to one picture in
half a millisecond. Brightness, contrast, saturation and hue come in that order; hue turns about the grey axis.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

DRAWS = 14  # random numbers of a view
GREY = (0.2989, 0.587, 0.114)  # a picture's grey, as torchvision has it


class View(NamedTuple):
    """How one view is made. Shares are of pictures, or for `scale` of a picture's area."""

    size: int  # pixels a side
    scale: tuple[float, float]
    flip: float = 0.0
    jitter: float = 0.0
    strength: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)  # brightness, contrast, saturation, hue
    grey: float = 0.0
    blur: float = 0.0
    sigma: float = 2.0  # pixels at most; 0: never blurred
    solarize: float = 0.0


def view(images: Tensor, how: View, u: Tensor) -> Tensor:
    """A view ``(B, C, size, size)`` of each of the `images` (B, C, H, W), which are from 0 to 1.

    Args:
        u: (B, 14) of uniform numbers from 0 to 1, which decide everything.
    """
    a = u.to(images).unbind(dim=1)
    x = cropped(images, how, a[0], a[1], a[2], a[3])
    x = torch.where(_of(a[4] < how.flip), x.flip(-1), x)
    x = torch.where(_of(a[5] < how.jitter), jittered(x, how.strength, *a[6:10]), x)
    if x.shape[1] == 3 and how.grey:
        x = torch.where(_of(a[10] < how.grey), grey(x).expand_as(x), x)
    if how.blur and how.sigma:
        x = torch.where(_of(a[11] < how.blur), blurred(x, 0.1 + (how.sigma - 0.1) * a[12], how.sigma), x)
    if how.solarize:
        x = torch.where(_of(a[13] < how.solarize) & (x >= 0.5), 1 - x, x)
    return x


def _of(each: Tensor) -> Tensor:
    """A value of each picture, (B,), to stand beside its pixels."""
    return each[:, None, None, None]


def cropped(images: Tensor, how: View, area: Tensor, shape: Tensor, left: Tensor, top: Tensor) -> Tensor:
    """A box of `how.scale` of the area, its sides as 3 to 4 up to 4 to 3, resized; all of it in the picture."""
    from torchvision.ops import roi_align

    B, _, H, W = images.shape
    low, high = how.scale
    area = low + (high - low) * area
    ratio = torch.exp((2 * shape - 1) * math.log(4 / 3))
    w, h = (area * ratio).sqrt().clamp(max=1) * W, (area / ratio).sqrt().clamp(max=1) * H
    x, y = left * (W - w), top * (H - h)
    boxes = torch.stack((torch.arange(B).to(w), x, y, x + w, y + h), dim=1)
    return roi_align(images, boxes, how.size, sampling_ratio=2, aligned=True).clamp(0, 1)


def grey(x: Tensor) -> Tensor:
    """``(B, 1, H, W)``"""
    return (x * x.new_tensor(GREY)[:, None, None]).sum(dim=1, keepdim=True) if x.shape[1] == 3 else x


def jittered(x: Tensor, strength: tuple, *u: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue changed by up to `strength`; a grey picture has the first two only."""
    factors = [_of(1 + s * (2 * part - 1)) for s, part in zip(strength, u, strict=True)]
    x = (x * factors[0]).clamp(0, 1)
    mean = grey(x).mean(dim=(1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * factors[1]).clamp(0, 1)
    if x.shape[1] != 3:
        return x
    x = (grey(x) + (x - grey(x)) * factors[2]).clamp(0, 1)
    angle = 2 * math.pi * strength[3] * (2 * u[3] - 1)
    return torch.einsum("bij,bjhw->bihw", turned(angle), x).clamp(0, 1)


def turned(angle: Tensor) -> Tensor:
    """``(B, 3, 3)``: colours turned about the grey axis by `angle` (B,), Rodrigues' formula."""
    axis = angle.new_full((3,), 3**-0.5)
    cross = axis[0] * angle.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cos * torch.eye(3).to(angle) + sin * cross + (1 - cos) * torch.outer(axis, axis)


def blurred(x: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Each picture with a Gaussian of its own `sigma` (B,), in pixels, up to `largest`; edges are mirrored.

    A Gaussian ends at three times the largest sigma that there can be, not at that of the batch it happens to be in.
    """
    B, C, H, W = x.shape
    reach = min(math.ceil(3 * largest), H - 1, W - 1)
    at = torch.arange(-reach, reach + 1).to(x)
    kernel = torch.exp(-(at**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(C, dim=0)[:, None, None]  # (B C, 1, 1, n)
    y = F.pad(x.reshape(1, B * C, H, W), [reach] * 4, mode="reflect")
    y = F.conv2d(F.conv2d(y, kernel, groups=B * C), kernel.transpose(2, 3), groups=B * C)
    return y.view(B, C, H, W)
