"""``trainer.dry_run=true``: what a run needs and costs, then two steps of it with a small model. Writes nothing."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dyt.data import Spec, open_data
from dyt.data.order import Order, derive, pieces_of
from dyt.data.sources import locate
from dyt.forecast.estimate import OF_A_MACHINE, Memory, chosen, memory
from dyt.forecast.hardware import GIB, Device, device_of
from dyt.forecast.trace import Traced, batch_like, trace, window_of
from dyt.rundir.processes import place
from dyt.tasks import build_task
from dyt.training.schedule import Schedule
from models import build_model

# What sets hold that are seldom at hand: classes and training pictures, or training tokens (GPT-2's).
KNOWN = {"librispeech": (0, 281_241)}  # recordings
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
        self.unit = {"image": "images", "audio": "recordings"}.get(spec.task, "tokens")
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
    else:
        spec = Spec(data["task"], "", {}, vocab_size=VOCABULARY.get(data["tokenizer"], 0))
        known, size = spec.vocab_size, size and size // config["model"]["context"]
    if not known or (size is None and config["trainer"]["max_steps"] is None):
        raise ValueError(f"trainer.dry_run: what data={data['name']} holds is not known before it is here; type "
                         "data.path=<file or folder>")  # fmt: skip
    return StandIn(config, spec, size or 1 << 30), True


def sample_bytes(config: dict, data) -> tuple[float, str]:
    """About how many bytes of storage a training sample takes, and of what."""
    if data.unit == "tokens":
        return data.unit_per_sample * (1 if data.spec.vocab_size <= 256 else 2), "token ids"
    if data.unit == "recordings":
        return 2 * window_of(config["data"]), "16-bit samples"
    if config["data"]["path"]:
        source = locate(config["data"])
        files = [Path(f) for f in source.files.get("train", [])]
        return sum(f.stat().st_size for f in files) / max(1, data.samples), "pictures as stored"
    side = config["data"]["img_size"]
    return (PICTURE, "pictures as in ImageNet") if side >= 160 else (side**2 * data.spec.channels, "pixels")


def shrunk(config: dict) -> dict:
    """The same recipe with a model of little width and depth, and a small batch."""
    small = copy.deepcopy(config)
    model, trainer = small["model"], small["trainer"]
    kv = bool(model.get("kv_heads"))
    for key, value in {"dim": 64, "depth": 2, "heads": 4, "context": 64, "kv_heads": 2 if kv else None}.items():
        if key in model and not (key == "context" and small["data"]["task"] == "sequence"):  # which are as long as it
            model[key] = min(value, model["context"]) if key == "context" else value
    if model.get("mlp_dim"):
        model["mlp_dim"] = 128
    if "timm_name" in model and not str(model["timm_name"]).startswith("vit"):
        model["timm_name"] = "test_convnext" if model["family"] == "vit" else "test_resnet"
        model |= {key: None for key in ("dim", "depth", "heads") if key in model}
    small["data"] |= {"batch_size": 4 * trainer["accumulate"], "workers": 0}
    trainer |= {"micro_batch": None, "strategy": "single", "tp": 1, "max_steps": 2, "device": "cpu"}
    return small


def two_steps(config: dict, data, stand_in: bool) -> str:
    """Trains the shrunk recipe for two steps; says what came of it.

    Raises:
        ValueError: a loss that is not finite, or a recipe that does not run.
    """
    from dyt.training.distributed import World
    from dyt.training.loop import Diverged, Trainer
    from dyt.training.schedule import Stop

    small = shrunk(config)
    data = StandIn(small, data.spec, 1 << 20) if stand_in else open_data(small["data"], small["model"].get("context"))
    torch.manual_seed(derive(config["seed"], "init"))
    model, _ = build_model(small["model"], small["norm"], data.spec)
    order = Order(data.samples, small["data"]["batch_size"], small["seed"], small["trainer"]["accumulate"])
    task = build_task(small, data.spec.classes)
    loop = Trainer(small, model, task, data, order, Schedule(2, 1, 2, 2), World(torch.device("cpu")))
    batches, losses = iter(data.train_batches(order, 0, 2)), []
    try:
        with Stop() as stop:
            for step in range(2):
                losses.append(loop.train_step(batches, loop.learning_rate(step), stop)[0])
                loop.step += 1
    except Diverged as error:
        raise ValueError(f"trainer.dry_run: the small model diverged ({error}); the recipe is at fault") from error
    size = sum(p.numel() for p in model.parameters())
    what = "noise of its data's shapes" if stand_in else "its own data"
    return f"two steps of {size:,} parameters on {what}: loss {losses[0]:.3f}, then {losses[1]:.3f}"


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
    devices = asked["devices"] or place().size
    data, stand_in = data_of(config)
    with torch.device("meta"):
        model, norms = build_model(config["model"], config["norm"], data.spec)
    task = build_task(config, data.spec.classes)
    batch, copies = config["data"]["batch_size"], max(1, devices // trainer["tp"])
    pieces = pieces_of(batch, copies, trainer["micro_batch"]) or trainer["accumulate"]
    order = Order(data.samples, batch, config["seed"], pieces, 0, copies)
    strategy, checkpointing = chosen(trainer, devices), trainer["checkpointing"]
    traced = {
        way: trace(model, task, config, data.spec, order.share, pieces=pieces, checkpointing=way)
        for way in dict.fromkeys(("none", "block", checkpointing))
    }
    ways = ["single"] if devices == 1 else ["ddp", "fsdp", *(["hsdp"] if devices > OF_A_MACHINE else [])]
    table = {
        (s, c): memory(of, model, config, s, devices, c)
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


def dry_run(config: dict) -> str:
    """The whole report.

    Raises:
        ValueError, OSError: the recipe cannot be built or run; one line with the key to set.
    """
    from dyt import kernels

    kernels.force(config["trainer"]["kernel"])
    r = reckon(config)
    batch, data, trainer = r.order.batch, r.data, config["trainer"]
    unit = f"{batch:,} x {data.unit_per_sample:,} tokens" if data.unit == "tokens" else f"{batch:,} {data.unit}"
    each, device = f"{r.order.share:,} at once on a device", r.device
    mine = r.traced[trainer["checkpointing"]]
    lines = [
        "dry run: nothing is written",
        f"model    {config['model']['name']}, {mine.count:,} parameters; norms: {r.norms.describe()}",
        f"data     {config['data']['name']}" + (" (not here: its published size)" if r.stand_in else ""),
        f"devices  {r.devices:,} x {device.name}, {device.memory / GIB:.0f} GiB, {r.peak:.3g} FLOP/s in "
        f"{trainer['precision']}",
        f"batch    {unit}; {each}" + (f", {r.order.pieces} pieces a step" if r.order.pieces > 1 else ""),
        f"step     {r.flops:.3g} FLOPs, {seconds(r.seconds)} at {config['hardware']['utilisation']:.0%} of the peak",
        f"run      {r.schedule.total:,} steps: {hours(r.hours)}, {short(r.hours * r.devices)} device hours, "
        f"{r.hours * r.devices * r.price:,.2f} dollars at {r.price:g} an hour",
        f"reads    {batch * data.unit_per_sample / r.seconds:,.0f} {data.unit} a second, "
        f"{short(r.stored * batch / r.seconds / 1e6)} MB a second of {r.kind}",
        "",
        *_memory_table(r),
        *(["With trainer.tp it is less: each process has a part of every matrix."] if trainer["tp"] > 1 else []),
        "",
        _by_layer(mine),
        _share_of_norms(config, r, mine),
        "",
        two_steps(config, data, r.stand_in),
    ]
    return "\n".join(lines)


def _memory_table(r: Reckoned) -> list[str]:
    rows = [("memory of one device, GiB", "parameters", "gradients", "optimizer", "activations", "at most", "")]
    for key, m in r.table.items():
        mark, fits = "* " if key == r.mine else "  ", "" if m.total <= r.device.memory else "  too much"
        rows.append((mark + m.name, *(f"{v / GIB:,.2f}" for v in _columns(m)), fits))
    width = max(len(row[0]) for row in rows)
    lines = [f"{row[0]:<{width}}" + "".join(f"{c:>13}" for c in row[1:6]) + row[6] for row in rows]
    own, room = r.memory, r.device.memory
    lines.append(f"* this run. An evaluation adds {r.evaluation / GIB:,.2f} GiB to parameters and optimizer.")
    if own.total > room:
        fitting = [m.name for m in r.table.values() if m.total <= room]
        said = f"{fitting[0]} does" if fitting else "nothing here does: more devices, or more trainer.accumulate"
        lines.append(f"It does not fit into {room / GIB:.0f} GiB; {said}.")
    elif own.parameters + own.optimizer + r.evaluation > room:
        said = "set a smaller data.eval_batch_size, which changes no number"
        lines.append(f"An evaluation does not fit into {room / GIB:.0f} GiB; {said}.")
    return lines


def _columns(m: Memory) -> tuple[int, ...]:
    return m.parameters, m.gradients, m.optimizer, m.activations, m.total


def _by_layer(traced: Traced) -> str:
    """Activations that backward waits for, equal neighbours together."""
    groups: list[list] = []  # [first, last, bytes]
    for name, size in ((name, size) for name, size in traced.kept.items() if size):
        if groups and groups[-1][2] == size and "." in name:
            groups[-1][1] = name
        else:
            groups.append([name, name, size])
    shown = sorted(groups, key=lambda g: -g[2])[:8]
    said = [
        (a or "loss") + (f" to {b}" if a != b else "") + f" {size / 2**20:,.1f}"
        for a, b, size in groups
        if [a, b, size] in shown
    ]
    return f"activations kept by layer, MiB: {', '.join(said)}" + (", others less" if len(groups) > 8 else "")


def _share_of_norms(config: dict, r: Reckoned, mine: Traced) -> str:
    """What a model without norms would keep less."""
    if config["norm"]["kind"] == "none":
        return "of these the norms': none"
    with torch.device("meta"):
        without, _ = build_model(config["model"], {"name": "none", "kind": "none", "sites": {}}, r.data.spec)
    way = {"pieces": r.order.pieces, "checkpointing": config["trainer"]["checkpointing"]}
    plain = trace(without, r.task, config, r.data.spec, r.order.share, **way)
    kept = sum(mine.kept.values())
    less = kept - sum(plain.kept.values())
    return f"of these {less / GIB:,.2f} GiB, {less / kept:.1%}, would not be kept without norms"


def seconds(value: float) -> str:
    """As a person says it."""
    return f"{short(value * 1000)} ms" if value < 1 else f"{short(value)} s"


def hours(value: float) -> str:
    """As a person says it."""
    if value < 2:
        return f"{short(value * 60)} minutes"
    return f"{short(value)} hours" if value < 72 else f"{short(value / 24)} days"


def short(value: float) -> str:
    """Three digits, or all of a number of four and more: 0.0728, 11.3, 8,401."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
