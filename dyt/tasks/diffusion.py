"""Diffusion (DDPM, arXiv 2006.11239): the mean squared error of the predicted noise; DDIM samples with guidance.

Pixels go from -1 (black) to 1 (white). Noise, time and the labels left out are a function of seed, step and the
sample's place; of an evaluation, of the sample's place alone, so that losses compare.
"""

import logging
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.config.arguments import check_arguments
from dyt.tasks import Place, Task, wide
from dyt.tasks.features import NEIGHBOURS, Features, frechet, precision_recall
from dyt.tasks.pictures import grid, pixel_range

log = logging.getLogger(__name__)
AT_ONCE = 250  # images sampled together


def remaining(timesteps: int, schedule: str) -> Tensor:
    """``(timesteps,)`` of the signal's share of the variance at each time (alpha bar), float64.

    linear: DDPM's betas, 1e-4 to 0.02 for 1,000 steps. cosine: arXiv 2102.09672, equation 17.
    """
    if schedule == "linear":
        betas = torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64) * 1000 / timesteps
    else:
        angle = (torch.arange(timesteps + 1, dtype=torch.float64) / timesteps + 0.008) / 1.008 * math.pi / 2
        bar = angle.cos() ** 2
        betas = 1 - bar[1:] / bar[:-1]
    return (1 - betas.clamp(max=0.999)).cumprod(dim=0)


def ddim(noise_in: Callable[[Tensor, int], Tensor], x: Tensor, bar: Tensor, steps: int, clip: bool = True) -> Tensor:
    """Deterministic DDIM sampling (arXiv 2010.02502, equation 12, sigma 0).

    Args:
        noise_in: the noise in ``(B, ...)`` at a time.
        x: pure noise ``(B, ...)``.
        bar: of `remaining`.
        steps: of the times, evenly chosen from the last to the first.
        clip: keeps the image that is foreseen within -1 and 1.
    """
    times = torch.linspace(len(bar) - 1, 0, steps, dtype=torch.float64).round().long().tolist()
    for t, after in zip(times, [*times[1:], None], strict=True):
        now, then = bar[t].item(), 1.0 if after is None else bar[after].item()
        noise = noise_in(x, t)
        image = (x - math.sqrt(1 - now) * noise) / math.sqrt(now)
        if clip:
            image = image.clamp(-1, 1)
            noise = (x - math.sqrt(now) * image) / math.sqrt(1 - now)
        x = math.sqrt(then) * image + math.sqrt(1 - then) * noise
    return x


class Diffusion(Task):
    """Batches are images (B, C, H, W) and labels (B,); prepared ones (noisy, times, labels) and the noise."""

    best = ("val/loss", min)
    names = ("loss",)
    unread = ("trainer.label_smoothing",)

    def __init__(
        self,
        data: dict,
        classes: int,
        *,
        timesteps: int = 1000,
        schedule: Literal["linear", "cosine"] = "linear",
        class_dropout: float = 0.1,
        sample_steps: int = 50,
        guidance: float = 1.0,
        samples: int = 500,
    ):
        for name, value, low in (
            ("timesteps", timesteps, 2),
            ("sample_steps", sample_steps, 1),
            ("samples", samples, 4),
        ):
            if value < low:
                raise ValueError(f"model.diffusion.{name}={value}: must be at least {low}")
        if sample_steps > timesteps:
            raise ValueError(
                f"model.diffusion.sample_steps={sample_steps}: must be at most model.diffusion.timesteps={timesteps}"
            )
        if not 0 <= class_dropout < 1:
            raise ValueError(f"model.diffusion.class_dropout={class_dropout}: must be at least 0 and below 1")
        if guidance < 0 or (guidance != 1 and class_dropout == 0):
            raise ValueError(
                f"model.diffusion.guidance={guidance}: must be at least 0, and 1 with model.diffusion.class_dropout=0"
            )
        if data["mixup"] or data["cutmix"]:
            raise ValueError(
                "data.mixup and data.cutmix mix labels, which diffusion is told as they are; set both to 0"
            )
        self.data, self.classes, self.timesteps = data, classes, timesteps
        self.class_dropout, self.sample_steps = class_dropout, sample_steps
        self.guidance, self.samples = guidance, samples
        self.bar = remaining(timesteps, schedule)
        self.to_pixels, _ = pixel_range(data)

    def prepare(self, images: Tensor, labels: Tensor, place: Place):
        size = images[0].numel()
        drawn = place.rows(
            len(labels), lambda g: torch.cat((torch.randn(size, generator=g), torch.rand(2, generator=g)))
        ).to(images)
        noise, chance = drawn[:, :size].view_as(images), drawn[:, size:]
        t = (chance[:, 0] * self.timesteps).long()
        bar = self.bar.to(images.device)[t].to(images)[:, None, None, None]
        noisy = bar.sqrt() * self.to_pixels(images) + (1 - bar).sqrt() * noise
        if place.trains:
            labels = torch.where(chance[:, 1] < self.class_dropout, self.classes, labels)
        return (noisy, t, labels), noise

    def loss(self, model: nn.Module, inputs: tuple, targets: Tensor) -> Tensor:
        """Mean squared error of the noise, over pixels and samples."""
        return F.mse_loss(wide(model(*inputs)), targets)

    def measure(self, model: nn.Module, inputs: tuple, targets: Tensor) -> Tensor:
        """The sum of each sample's mean squared error, and the count."""
        loss = (wide(model(*inputs)) - targets).square().flatten(1).mean(dim=1).sum()
        return torch.stack([loss, loss.new_tensor(len(targets))])

    @torch.no_grad()
    def sample(self, model: nn.Module, labels: Tensor) -> Tensor:
        """Images (B, C, H, W) of `labels` from -1 to 1; image i is a function of the model and i."""
        made = []
        shape = (len(self.data["mean"]), *[self.data["img_size"]] * 2)
        for first in range(0, len(labels), AT_ONCE):
            y = labels[first : first + AT_ONCE]
            x = Place(("sample",), first).rows(len(y), lambda g: torch.randn(shape, generator=g)).to(y.device)
            made.append(ddim(self._guided(model, y), x, self.bar, self.sample_steps).clamp(-1, 1))
        return torch.cat(made)

    def _guided(self, model: nn.Module, y: Tensor) -> Callable[[Tensor, int], Tensor]:
        """Classifier-free guidance (arXiv 2207.12598) as DiT has it: none + guidance (labelled - none)."""

        def noise_in(x: Tensor, t: int) -> Tensor:
            times = torch.full_like(y, t)
            if self.guidance == 1:
                return wide(model(x, times, y))
            both = torch.cat((y, torch.full_like(y, self.classes)))
            labelled, none = wide(model(x.repeat(2, 1, 1, 1), times.repeat(2), both)).chunk(2)
            return none + self.guidance * (labelled - none)

        return noise_in

    def at_end(self, model: nn.Module, data, split: str, device: torch.device):
        """Frechet distance, precision and recall against the split, on features of a classifier trained here.

        Against a split of less than four images they say nothing, and are left out.
        """
        labels = torch.arange(self.samples, device=device) % self.classes  # each class equally often
        made = self.sample(model, labels)
        shown = grid(made, columns=min(10, self.classes), rows=10)
        if data.spec.sizes[split] <= NEIGHBOURS:
            log.warning("%s has too few pictures (%d) to hold samples against", split, data.spec.sizes[split])
            return {}, shown
        features = Features.of(data, device)
        true, ours = features(features.images(data, split)), features(made)
        precision, recall = precision_recall(true, ours)
        found = {"frechet": frechet(true, ours), "precision": precision, "recall": recall}
        return found, shown


def build(config: dict, classes: int) -> Diffusion:
    """The task of a config, its arguments in ``model.diffusion``.

    Raises:
        ValueError: an argument that does not exist or does not fit.
    """
    arguments = config["model"].get("diffusion") or {}
    check_arguments(Diffusion, arguments, "model.diffusion")
    return Diffusion(config["data"], classes, **arguments)
