"""The figures of a run, found on the meta device: memory of a device, FLOPs, hours, and what is read a second."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dyt.data import Spec, open_data
from dyt.data.bases import SIZE as BASES
from dyt.data.order import Order, derive, pieces_of
from dyt.data.sources import locate
from dyt.forecast.estimate import OF_A_MACHINE, Memory, chosen, memory
from dyt.forecast.hardware import Device, device_of
from dyt.forecast.trace import Traced, batch_like, trace, window_of
from dyt.rundir.meaning import unit_of
from dyt.rundir.processes import place
from dyt.tasks import build_task, refuse_unread
from dyt.training.schedule import Schedule
from models import build_model

# What sets hold that are seldom at hand: classes and training pictures, or training tokens (GPT-2's).
KNOWN = {"librispeech": (0, 281_241), "human_nontata_promoters": (2, 27_097)}  # recordings; sequences
KNOWN |= {"imagenet1k": (1000, 1_281_167), "cifar10": (10, 45_000), "openwebtext": (0, 9_035_582_198)}
EPISODES = {"hopper": (11, 3, 1000, 999_906)}  # numbers of a state and an action, longest episode, steps: D4RL's medium
VOCABULARY = {"byte": 256, "gpt2": 50257}
PICTURE = 115_000  # bytes of a picture of ImageNet, the mean


class StandIn:
    """Data of the right shapes and no meaning, where the set itself is not here.

    Args:
        config: the run's.
        spec: what the model must know.
        samples: of an epoch.
    """

    def __init__(self, config: dict, spec: Spec, samples: int):
        self.config, self.spec, self.samples = config, spec, samples
        self.unit = unit_of(spec.task)
        self.unit_per_sample = config["model"].get("context", 1) if self.unit == "tokens" else 1
        self.unit_per_sample *= 3 if spec.task == "episode" else 1

    def train_batches(self, order: Order, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Noise, a function of seed and step."""
        for step in range(start, stop):
            for piece in order.of_step(step):
                generator = torch.Generator().manual_seed(derive(order.seed, step))
                yield batch_like(self.config, self.spec, len(piece), generator)


def data_of(config: dict):
    """The run's data set, or a stand-in where it would have to be fetched; and whether it is one.

    Raises:
        ValueError, OSError: what it holds is not known without it; the line says what to type.
    """
    data = config["data"]
    if data["path"] or data["source"] != "files":
        return open_data(data, config["model"].get("context")), False
    classes, size = KNOWN.get(data["name"], (0, None))
    if data["task"] == "image":
        spec = Spec("image", "", {}, classes=classes, channels=len(data["mean"]))
        known = classes
    elif data["task"] == "episode":
        known, actions, steps, size = EPISODES.get(data["name"], (0, 0, 0, None))
        spec = Spec("episode", "", {}, states=known, actions=actions, steps=steps)
    elif data["task"] == "audio":
        spec, known = Spec("audio", "", {}, rate=data["sample_rate"]), size
    elif data["task"] in ("sequence", "genome"):
        spec = Spec(data["task"], "", {}, classes=classes, vocab_size=BASES)
        known = BASES if data["task"] == "genome" else classes
    else:
        spec = Spec(data["task"], "", {}, vocab_size=VOCABULARY.get(data["tokenizer"], 0))
        known, size = spec.vocab_size, size and size // config["model"]["context"]
    if not known or (size is None and config["trainer"]["max_steps"] is None):
        raise ValueError(f"trainer.dry_run: what data={data['name']} holds is not known before it is here; type "
                         "data.path=<file or folder>")  # fmt: skip
    return StandIn(config, spec, size or 1 << 30), True


def sample_bytes(config: dict, data) -> tuple[float, str]:
    """About how many bytes of storage a training sample takes, and of what."""
    if data.spec.task == "episode":
        return data.unit_per_sample / 3 * 4 * (data.spec.states + data.spec.actions + 1), "32-bit numbers"
    if data.unit == "tokens":
        stored = data.tokens["train"][:1] if hasattr(data, "tokens") else np.min_scalar_type(data.spec.vocab_size - 1)
        return data.unit_per_sample * stored.itemsize, "token ids"
    if data.unit == "recordings":
        return 2 * window_of(config["data"]), "16-bit samples"
    if config["data"]["path"]:
        source = locate(config["data"])
        files = [Path(f) for f in source.files.get("train", [])]
        return sum(f.stat().st_size for f in files) / max(1, data.samples), "pictures as stored"
    side = config["data"]["img_size"]
    return (PICTURE, "pictures as in ImageNet") if side >= 160 else (side**2 * data.spec.channels, "pixels")


@dataclass(frozen=True)
class Reckoned:
    """What a run takes; memory in bytes."""

    device: Device
    devices: int
    stand_in: bool  # whether the data is not here
    data: Any
    model: Any  # on the meta device
    norms: Any
    task: Any
    order: Order
    schedule: Schedule
    traced: dict[str, Traced]  # by checkpointing
    table: dict[tuple[str, str], Memory]  # by strategy and checkpointing
    mine: tuple[str, str]  # this run's
    evaluation: int  # what one adds to parameters and optimizer
    peak: float  # FLOPs a second of a device
    flops: float  # of a step
    seconds: float  # of a step
    price: float  # of a device hour
    stored: float  # bytes of storage of a sample
    kind: str  # of what these are

    @property
    def hours(self) -> float:
        return self.seconds * self.schedule.total / 3600

    @property
    def memory(self) -> Memory:
        return self.table[self.mine]


def reckon(config: dict) -> Reckoned:
    """The figures of a run, on the meta device.

    Raises:
        ValueError, OSError: the recipe cannot be built, its batch does not divide, or its data is not known.
    """
    trainer, asked = config["trainer"], config["hardware"]
    if trainer["precision"] == "double":
        raise ValueError("trainer.precision=double: trainer.dry_run reckons with fp32 and bf16; type one of them")
    devices = asked["devices"] or place().size
    data, stand_in = data_of(config)
    with torch.device("meta"):
        model, norms = build_model(config["model"], config["norm"], data.spec)
    task = build_task(config, data.spec.classes)
    refuse_unread(task, config)
    batch, copies = config["data"]["batch_size"], max(1, devices // trainer["tp"])
    pieces = pieces_of(batch, copies, trainer["micro_batch"], paired=task.paired) or trainer["accumulate"]
    order = Order(data.samples, batch, config["seed"], pieces, 0, copies, paired=task.paired)
    strategy, checkpointing = chosen(trainer, devices), trainer["checkpointing"]
    traced = {
        way: trace(model, task, config, data.spec, order.share, pieces=pieces, checkpointing=way)
        for way in dict.fromkeys(("none", "block", checkpointing))
    }
    ways = ["single"] if devices == 1 else ["ddp", "fsdp", *(["hsdp"] if devices > OF_A_MACHINE else [])]
    table = {
        (s, c): memory(of, model, config, s, devices, c, pieces)
        for s in dict.fromkeys((*ways, strategy))
        for c, of in traced.items()
    }
    device = device_of(asked["kind"])
    peak = device.bf16 if trainer["precision"] == "bf16" else device.fp32
    flops = traced[checkpointing].flops * batch / order.share
    stored, kind = sample_bytes(config, data)
    measured = trace(model, task, config, data.spec, config["data"]["eval_batch_size"], train=False)
    return Reckoned(
        device=device,
        devices=devices,
        stand_in=stand_in,
        data=data,
        model=model,
        norms=norms,
        task=task,
        order=order,
        schedule=Schedule.of(trainer, order.steps_per_epoch),
        traced=traced,
        table=table,
        mine=(strategy, checkpointing),
        evaluation=measured.lean if strategy in ("fsdp", "hsdp") else measured.peak,  # which copies no whole weights
        peak=peak,
        flops=flops,
        seconds=flops / (peak * asked["utilisation"] * devices),
        price=device.price if asked["price"] is None else asked["price"],
        stored=stored,
        kind=kind,
    )
