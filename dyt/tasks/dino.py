"""DINO (arXiv 2104.14294): cross-entropy between what the teacher says of one view and the student of another.

    teacher, of two large views:  q = softmax((t - centre) / teacher_temp), less sharp at the start
    student, of all views:        p = softmax(s / student_temp);  loss = mean of -q log p over pairs of unequal views
    after each step:              teacher and centre follow, the teacher ever more slowly

Views are a function of seed, step and the sample's place; of an evaluation, of the place alone. Evaluated are the
teacher's features: weighted k-NN and a linear classifier, beside those of the pixels.
"""

import math

import torch
from torch import Tensor, nn

from dyt.config.arguments import check_arguments
from dyt.tasks import Place, Task, exactly, wide
from dyt.tasks.crops import DRAWS, View, view
from dyt.tasks.pictures import grid, pixel_range
from dyt.tasks.probes import beside_pixels, chosen, nearest, pictures

SHOWN, NEIGHBOURS = 10, 9  # pictures, and how many of the nearest to each are drawn


class Distillation(Task):
    """Batches are images and labels, not read; prepared ones (large views (B, 2, C, H, W), small ones,
    whether the last layer learns (B,)) and the temperature (B,)."""

    best = ("val/top1_knn", max)  # measured at the end: the loss does not tell better features from worse
    names = ("loss", "entropy")
    unread = ("trainer.label_smoothing", "data.mixup", "data.cutmix")
    knows_classes = False

    def __init__(
        self,
        data: dict,
        img_size: int,
        patch_size: int,
        *,
        local_crops_number: int = 8,
        local_crops_size: int = 96,
        global_crops_scale: list = [0.4, 1.0],  # noqa: B006
        local_crops_scale: list = [0.05, 0.4],  # noqa: B006
        hflip: float = 0.5,
        color_jitter: float = 0.8,
        blur_sigma: float = 2.0,
        solarize: float = 0.2,
        student_temp: float = 0.1,
        teacher_temp: float = 0.04,
        warmup_teacher_temp: float = 0.04,
        warmup_teacher_temp_steps: int = 0,
        momentum_teacher: float = 0.996,
        center_momentum: float = 0.9,
        freeze_last_layer_steps: int = 0,
    ):
        positive = {"student_temp": student_temp, "teacher_temp": teacher_temp}
        for name, value in (positive | {"warmup_teacher_temp": warmup_teacher_temp}).items():
            if not value > 0:
                raise ValueError(f"model.dino.{name}={value}: must be above 0")
        shares = {"momentum_teacher": momentum_teacher, "center_momentum": center_momentum}
        for name, value in shares.items():
            if not 0 <= value < 1:
                raise ValueError(f"model.dino.{name}={value}: must be at least 0 and below 1")
        for name, scale in (("global_crops_scale", global_crops_scale), ("local_crops_scale", local_crops_scale)):
            if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
                raise ValueError(f"model.dino.{name}={scale}: two shares of the area, the smaller first")
        if local_crops_number < 0:
            raise ValueError(f"model.dino.local_crops_number={local_crops_number}: must be at least 0")
        if local_crops_size < patch_size or local_crops_size % patch_size:
            raise ValueError(
                f"model.dino.local_crops_size={local_crops_size} is not a multiple of model.patch_size={patch_size}"
            )
        to_pixels, self.from_pixels = pixel_range(data)
        self.to_pixels = lambda x: (to_pixels(x) + 1) / 2  # from 0 to 1
        alike = {"flip": hflip, "jitter": color_jitter, "grey": 0.2 if color_jitter else 0.0, "sigma": blur_sigma}
        large = {"size": img_size, "scale": tuple(global_crops_scale), **alike}
        small = View(local_crops_size, tuple(local_crops_scale), blur=0.5, **alike)
        self.large = View(blur=1.0, **large), View(blur=0.1, solarize=solarize, **large)
        self.small = [small] * local_crops_number
        self.student_temp, self.momentum, self.center_momentum = student_temp, momentum_teacher, center_momentum
        self.temps, self.warmup = (warmup_teacher_temp, teacher_temp), warmup_teacher_temp_steps
        self.frozen = freeze_last_layer_steps
        self.step: tuple = ()  # key of the step that `seen` is of
        self.seen: Tensor | None = None  # (K + 1,): sum of the teacher's outputs in this step, and their count

    # -- a batch ---------------------------------------------------------------------------------------------------

    def prepare(self, images: Tensor, labels: Tensor, place: Place):
        if place.trains and place.key != self.step:
            self.step, self.seen = place.key, None
        hows = [*self.large, *self.small]
        draws = place.rows(len(images), lambda g: torch.rand(len(hows), DRAWS, generator=g))
        pixels = self.to_pixels(images)
        views = [self.from_pixels(2 * view(pixels, how, draws[:, i]) - 1) for i, how in enumerate(hows)]
        large = torch.stack(views[:2], dim=1)
        small = torch.stack(views[2:], dim=1) if self.small else large[:, :0]
        step = place.key[2] if place.trains else math.inf
        learns = images.new_full((len(images),), float(step >= self.frozen))
        return (large, small, learns), images.new_full((len(images),), self.temperature(step))

    def temperature(self, step: float) -> float:
        """The teacher's in step `step`: linear over the warm-up."""
        low, high = self.temps
        return high if step >= self.warmup else low + (high - low) * step / self.warmup

    def loss(self, model: nn.Module, inputs: tuple, temperature: Tensor) -> Tensor:
        """Mean over samples and pairs of views. Notes what the teacher said, for `after_step`."""
        student, teacher = model(*inputs)
        said = teacher.detach().double().flatten(0, 1)
        said = torch.cat((said.sum(dim=0), said.new_tensor([len(said)])))
        self.seen = said if self.seen is None else self.seen + said
        return self._losses(student, teacher, temperature)[0].mean()

    def measure(self, model: nn.Module, inputs: tuple, temperature: Tensor) -> Tensor:
        """Sums of each sample's loss and of the teacher's entropy in nats (collapsed: 0 or log K), and the count."""
        losses, entropy = self._losses(*model(*inputs), temperature)
        return torch.stack([losses.sum(), entropy.sum(), losses.new_tensor(len(losses))])

    def _losses(self, student: Tensor, teacher: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        """``(B,)`` each: the loss and the teacher's entropy."""
        log_q = (wide(teacher) / temperature[:, None, None]).log_softmax(dim=-1)  # (B, G, K)
        log_p = (wide(student) / self.student_temp).log_softmax(dim=-1)  # (B, V, K)
        q = log_q.exp()
        with exactly(q):
            pairs = -q @ log_p.transpose(1, 2)  # (B, G, V)
        unequal = 1 - torch.eye(*pairs.shape[1:]).to(pairs)
        return (pairs * unequal).sum(dim=(1, 2)) / unequal.sum(), -(q * log_q).sum(dim=-1).mean(dim=1)

    def after_step(self, model: nn.Module, step: int, total: int, world) -> None:
        momentum = 1 - (1 - self.momentum) * (1 + math.cos(math.pi * step / total)) / 2
        said = world.add(self.seen)
        model.follow(momentum, (1 - self.center_momentum) * said[:-1] / said[-1])

    # -- what was learned ------------------------------------------------------------------------------------------

    def at_end(self, model: nn.Module, data, split: str, device: torch.device):
        """k-NN and a linear classifier on features and on pixels, and a picture: ten images, their nearest beside."""
        see = lambda images: model(images.to(device))  # noqa: E731
        found, known = beside_pixels(data, split, see)
        few = chosen(data, split, SHOWN)
        places = nearest(known, see(_read(data, split, few)).float(), NEIGHBOURS)[1].flatten().tolist()
        train = chosen(data, "train")
        beside = _read(data, "train", [train[i] for i in places]).unflatten(0, (len(few), -1))
        shown = torch.cat((_read(data, split, few)[:, None], beside), dim=1).flatten(0, 1)
        return found, grid(2 * self.to_pixels(shown) - 1, columns=1 + beside.shape[1], rows=SHOWN)


def _read(data, split: str, rows: list[int]) -> Tensor:
    return torch.cat([images for images, _ in pictures(data, split, rows)])


def build(config: dict, classes: int) -> Distillation:
    """The task of a config, its arguments in ``model.dino``.

    Raises:
        ValueError: an argument that does not exist or does not fit.
    """
    model = config["model"]
    arguments = model.get("dino") or {}
    check_arguments(Distillation, arguments, "model.dino")
    return Distillation(config["data"], model["img_size"], model["patch_size"], **arguments)
