"""Pictures of tasks that make some: pixels from -1 (black) to 1 (white), and a grid of them to look at."""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor


def pixel_range(data: dict) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """From a data set's normalised pixels (..., C, H, W) to -1 to 1, and back."""
    mean, std = (torch.as_tensor(data[key], dtype=torch.float32)[:, None, None] for key in ("mean", "std"))  # (C, 1, 1)
    return (
        lambda x: 2 * (x * std.to(x) + mean.to(x)) - 1,
        lambda x: ((x + 1) / 2 - mean.to(x)) / std.to(x),
    )


def seen_as(data) -> tuple:
    """All that decides which pixels and labels an evaluation sees of an image set; what is kept of it goes by this."""
    keys = ("img_size", "interpolation", "crop_pct", "mean", "std", "val_fraction", "on_error")
    about = (data.spec.sha256, data.stamp, data.spec.names, data.image_key, data.label_key)
    return (*about, *(data.data[key] for key in keys))


def patchify(images: Tensor, size: int) -> Tensor:
    """``(B, C, H, W)`` as ``(B, N, size size C)``: row by row, and within a patch too, channels last."""
    x = images.unfold(2, size, size).unfold(3, size, size)  # (B, C, h, w, p, q)
    return x.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, size: int) -> Tensor:
    """The images ``(B, C, H, W)``, square, of `patchify`."""
    side = round(patches.shape[1] ** 0.5)
    x = patches.unflatten(2, (size, size, -1)).unflatten(1, (side, side))  # (B, h, w, p, q, C)
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def grid(images: Tensor, columns: int, rows: int, width: int = 512) -> Image.Image:
    """The first ``columns x rows`` of ``(B, C, H, W)`` images from -1 to 1, row by row, a grey line between them.

    Pixels are drawn larger as a whole number of times as `width`, in pixels, has room for.
    """
    images = images[: columns * rows].float().cpu().clamp(-1, 1)
    B, C, H, W = images.shape
    sheet = torch.zeros(C, (B + columns - 1) // columns * (H + 1) - 1, columns * (W + 1) - 1)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet[:, row * (H + 1) : row * (H + 1) + H, column * (W + 1) : column * (W + 1) + W] = image
    pixels = ((sheet + 1) * 127.5).round().byte()
    picture = Image.fromarray((pixels[0] if C == 1 else pixels.permute(1, 2, 0)).numpy())
    zoom = max(1, width // picture.width)
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)
