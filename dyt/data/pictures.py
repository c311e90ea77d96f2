"""Pictures of every mode as 8-bit grey or colour: scaled, laid on white and turned upright, or refused.

16 bits are scaled (65535 is white), what is transparent shows a white ground, and EXIF's orientation is applied
wherever a picture comes from.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

GROUND = (255, 255, 255, 255)
DEEP = ("I;16", "I;16B", "I;16L", "I;16N")
AS_THEY_ARE = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LA", "La", "PA", "RGBA", "RGBa", "RGBX")


def kind_of_pixels(feature) -> str | None:
    """``uint8``, ``uint16`` or ``bool`` of a column of pixels, by its type in `datasets`; None of any other.

    Its cells come as nested lists, which no longer say it.
    """
    while (inner := getattr(feature, "feature", None)) is not None:
        feature = inner
    kind = getattr(feature, "dtype", None)
    return kind if kind in ("uint8", "uint16", "bool") else None


def opened(cell, kind: str | None = None) -> Image.Image:
    """A table's cell as a picture: bytes, a path, a place in a tar, an array of pixels, or a picture already.

    Args:
        kind: of the array's pixels, where the cell does not say.

    Raises:
        ValueError: it is none of them. OSError: bytes or file that Pillow cannot read.
    """
    if isinstance(cell, Image.Image):
        return cell
    if isinstance(cell, dict) and "tar" in cell:
        with open(cell["tar"], "rb") as stream:
            stream.seek(cell["offset"])
            cell = stream.read(cell["size"])
    if isinstance(cell, dict):
        cell = cell.get("bytes") or Path(cell.get("path") or "")
    if isinstance(cell, bytes):
        return Image.open(io.BytesIO(cell))
    if isinstance(cell, Path):
        return Image.open(cell)
    if cell is None or isinstance(cell, str):
        raise ValueError("no picture in that row" if cell is None else "a text, no picture")
    return of_pixels(np.asarray(cell, dtype=kind))


def of_pixels(pixels: np.ndarray) -> Image.Image:
    """(H, W), (H, W, C) or (C, H, W) whole numbers, 8 bits or 16.

    Raises:
        ValueError: another shape, fractions, numbers beyond 16 bits, or beyond 8 of a kind that does not say 16: how
            bright they are is a matter of the whole set, and cannot be told from one picture.
    """
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype.kind not in "iu":
        raise ValueError(f"pixels of kind {pixels.dtype}: how much is white is not known; store them as uint8")
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)) or pixels.size == 0:
        raise ValueError(f"pixels of shape {pixels.shape}: (height, width), with 1, 3 or 4 channels, is needed")
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("pixels below 0 or above 65535")
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        pixels = _scaled(pixels)
    elif pixels.max() > 255:
        raise ValueError(f"pixels of kind {pixels.dtype} above 255: how much is white is not known; store them as "
                         "uint16, of which 65535 is white, or as uint8")  # fmt: skip
    return Image.fromarray(np.ascontiguousarray(pixels.astype(np.uint8)))


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """`image` upright as ``L`` or ``RGB``.

    Raises:
        ValueError: a mode whose white is not known (float, 32 bits), or that Pillow does not convert.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in DEEP or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray(_scaled(np.asarray(image)))
    if image.mode not in AS_THEY_ARE:
        raise ValueError(f"mode {image.mode}: how much is white is not known; save it with 8 or 16 bits a channel")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, GROUND), image)
    return image.convert(mode)


def _scaled(pixels: np.ndarray) -> np.ndarray:
    """16 bits to 8, rounded."""
    return ((pixels.astype(np.uint32) + 128) // 257).clip(0, 255).astype(np.uint8)
