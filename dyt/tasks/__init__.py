"""What is learned: the loss of a batch and the evaluation of a split. A task is one file here with ``build``."""

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dyt.config.arguments import closest
from dyt.data.order import derive

FILES = {"image": "classification", "text": "language"}  # of the tasks that are not called as their file


class Place(NamedTuple):
    """Where a batch stands: what a task's own random numbers are a function of.

    What ran before does not count, nor on how many processes.
    """

    key: tuple  # of training "train", the run's seed and the step; of an evaluation the split
    first: int  # the place of the batch's first sample in its step, or in its split

    @property
    def trains(self) -> bool:
        """Whether it is a batch of training, not of an evaluation."""
        return self.key[0] == "train"

    def rows(self, count: int, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        """``draw(generator)`` of so many samples, stacked; each sample has a generator of its own, on the CPU."""
        generator = torch.Generator()
        seeds = (derive(*self.key, self.first + i) for i in range(count))
        return torch.stack([draw(generator.manual_seed(seed)) for seed in seeds])


class Task:
    """What the loop, the probe and ``eval.py`` ask of a task: `names`, `best`, `loss` and `measure` are its own."""

    names: tuple[str, ...]  # of what `measure` sums; the first is the loss
    best: tuple[str, Callable]  # the metric that picks the best checkpoint, and min or max
    paired = False  # whether `loss` mixes each sample of a step with its mirror image there, so that pieces hold pairs
    unread: tuple[str, ...] = ()  # settings of all tasks that this one passes over: refused where they are on
    knows_classes = True  # whether trained weights stand for the data's classes; else other data may follow them

    def prepare(self, inputs, targets, place: Place):
        """What `loss` and `measure` get of a batch that the data gave: here its parts are chosen and noise is drawn."""
        return inputs, targets

    def loss(self, model: nn.Module, inputs, targets) -> Tensor:
        """Mean loss of a batch that training takes."""
        raise NotImplementedError

    def after_step(self, model: nn.Module, step: int, total: int, world) -> None:
        """What is done to the model after each optimizer step, `step` from 0 of `total`, in every process.

        A teacher follows its student here. What it keeps from step to step must be in the model's state, so that a
        checkpoint has it; `world.add` sums over processes.
        """

    def measure(self, model: nn.Module, inputs, targets) -> Tensor:
        """Sums of what `names` says over a batch's samples, and last their count."""
        raise NotImplementedError

    def at_end(self, model: nn.Module, data, split: str, device: torch.device) -> tuple[dict[str, float], object]:
        """What is measured once, of the finished model: ``{name: value}``, and a Pillow picture to look at or None."""
        return {}, None


def build_task(config: dict, classes: int):
    """The task of a config, its ``model.task``: what ``build(config, classes)`` of that file of this folder returns.

    Arguments of a task's own stand in the model's config under the task's name, as ``model.diffusion.timesteps``.

    Raises:
        ValueError: no file here is called so.
    """
    task = config["model"]["task"]
    files = [p.stem for p in Path(__file__).parent.glob("[a-z]*.py") if "\ndef build(" in p.read_text()]
    known = sorted({*FILES, *(name for name in files if name not in FILES.values())})
    if task not in known:
        raise ValueError(f"model.task={task}: {closest(task, known)}choose from {', '.join(known)}")
    return importlib.import_module(f"dyt.tasks.{FILES.get(task, task)}").build(config, classes)


def refuse_unread(task: Task, config: dict) -> None:
    """Settings that are on and that the task does not read: the same run would be trained again under another hash.

    Raises:
        ValueError: there is one.
    """
    for key in task.unread:
        group, name = key.split(".")
        if value := config[group].get(name):
            raise ValueError(f"{key}={value}: model.task={config['model']['task']} does not read it; type {key}=0")


def wide(logits: Tensor) -> Tensor:
    """Logits for a loss: float32 at least, float64 where the model is."""
    return logits if logits.dtype == torch.float64 else logits.float()


def exactly(tensor: Tensor):
    """A context for what a task computes of a model's outputs: matrix products too are in the tensors' own precision.

    With ``trainer.precision=bf16`` the loop's autocast lasts as long as the loss, and would round them.
    """
    kind = tensor.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)  # where FLOPs alone are counted


def sums_over(model: nn.Module, batches, measure) -> Tensor:
    """Adds ``measure(model, inputs, targets)``, a 1-D tensor whose last entry counts, over batches. float64."""
    total = None
    for inputs, targets in batches:
        part = measure(model, inputs, targets).double()
        total = part if total is None else total + part
    return total
