"""Masked autoencoding (arXiv 2111.06377): the mean squared error of the pixels in patches that the model does not see.

Which patches are kept is a function of seed, step and the sample's place; of an evaluation, of the place alone. At the
end the encoder's features are measured as those of DINO: by weighted k-NN and linearly, beside the pixels.
"""

import torch
from torch import Tensor, nn

from dyt.config.arguments import check_arguments
from dyt.data.ahead import each
from dyt.tasks import Place, Task, wide
from dyt.tasks.pictures import grid, patchify, pixel_range, unpatchify
from dyt.tasks.probes import beside_pixels

SHOWN = 10  # images whose reconstruction is drawn


class MaskedAutoencoding(Task):
    """Batches are images (B, C, H, W) and labels, not read; prepared ones (images, kept (B, K)) and the images."""

    best = ("val/loss", min)
    names = ("loss",)
    unread = ("trainer.label_smoothing", "data.mixup", "data.cutmix")
    knows_classes = False

    def __init__(
        self, data: dict, img_size: int, patch_size: int, *, mask_ratio: float = 0.75, norm_pix_loss: bool = True
    ):
        if not 0 < mask_ratio < 1:
            raise ValueError(f"model.mae.mask_ratio={mask_ratio}: must be above 0 and below 1")
        self.patch_size, self.norm_pix_loss = patch_size, norm_pix_loss
        self.patches = (img_size // patch_size) ** 2
        if self.patches < 2:
            raise ValueError(f"data.patch_size={patch_size}: pictures of {img_size} are one patch; take smaller ones")
        if norm_pix_loss and patch_size**2 * len(data["mean"]) < 2:
            raise ValueError(
                f"data.patch_size={patch_size}: a patch of one value has no spread; give larger patches, "
                "or model.mae.norm_pix_loss=false"
            )
        self.keep = max(1, int(self.patches * (1 - mask_ratio)))
        self.to_pixels, _ = pixel_range(data)

    def prepare(self, images: Tensor, labels: Tensor, place: Place):
        order = place.rows(len(images), lambda g: torch.randperm(self.patches, generator=g))
        return (images, order[:, : self.keep].to(images.device)), images

    def loss(self, model: nn.Module, inputs: tuple, targets: Tensor) -> Tensor:
        """Mean squared error over the masked patches; with `norm_pix_loss` each true patch has mean 0, variance 1."""
        return self._errors(model, inputs, targets).mean()

    def measure(self, model: nn.Module, inputs: tuple, targets: Tensor) -> Tensor:
        """The sum of each sample's error, and the count."""
        errors = self._errors(model, inputs, targets)
        return torch.stack([errors.sum(), errors.new_tensor(len(errors))])

    def _errors(self, model: nn.Module, inputs: tuple, targets: Tensor) -> Tensor:
        """``(B,)``"""
        true = patchify(targets, self.patch_size)  # (B, N, p p C)
        if self.norm_pix_loss:
            mean, std = _spread(true)
            true = (true - mean) / std
        error = (wide(model(*inputs)) - true).square().mean(dim=-1)
        hidden = self._hidden(inputs[1]).to(error)
        return (error * hidden).sum(dim=1) / hidden.sum(dim=1)

    def _hidden(self, kept: Tensor) -> Tensor:
        """``(B, N)``: whether a patch is masked."""
        return torch.ones(len(kept), self.patches, dtype=torch.bool, device=kept.device).scatter(1, kept, False)

    def at_end(self, model: nn.Module, data, split: str, device: torch.device):
        """k-NN and a linear classifier of features and pixels, and ten images: what is seen, made of it, and true."""
        see = lambda images: model(images.to(device))  # noqa: E731
        found, _ = beside_pixels(data, split, see)
        images = each(data.some(split, SHOWN), lambda part: part.to(device))
        inputs, images = self.prepare(*images, Place((split,), 0))
        true, made = patchify(images, self.patch_size), wide(model(*inputs))
        if self.norm_pix_loss:
            mean, std = _spread(true)
            made = made * std + mean
        hidden = self._hidden(inputs[1])[..., None]
        sheets = (true.masked_fill(hidden, 0.0), torch.where(hidden, made, true), true)
        shown = torch.cat([self.to_pixels(unpatchify(sheet, self.patch_size)) for sheet in sheets])
        return found, grid(shown, columns=len(images), rows=3)


def _spread(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each patch's pixels, ``(B, N, 1)`` each."""
    return patches.mean(dim=-1, keepdim=True), (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()


def build(config: dict, classes: int) -> MaskedAutoencoding:
    """The task of a config, its arguments in ``model.mae``.

    Raises:
        ValueError: an argument that does not exist or does not fit.
    """
    model = config["model"]
    arguments = model.get("mae") or {}
    check_arguments(MaskedAutoencoding, arguments, "model.mae")
    return MaskedAutoencoding(config["data"], model["img_size"], model["patch_size"], **arguments)
