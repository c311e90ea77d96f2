"""``trainer.dry_run=true``: what a run needs and costs, then two steps of it with a small model. Writes nothing."""

import copy

import torch

from dyt.data import open_data
from dyt.data.order import Order, derive
from dyt.forecast.estimate import Memory
from dyt.forecast.hardware import GIB
from dyt.forecast.reckon import Reckoned, StandIn, reckon
from dyt.forecast.trace import Traced, trace
from dyt.tasks import build_task
from dyt.training.schedule import Schedule
from models import build_model

SMALL = {"dim": 64, "depth": 2, "heads": 4, "context": 64, "conv_dim": 64, "head_hidden": 64, "outputs": 256}
SMALL |= {"decoder_dim": 64, "decoder_depth": 2, "decoder_heads": 4}


def shrunk(config: dict) -> dict:
    """The same recipe with a model of little width and depth, and a small batch."""
    small = copy.deepcopy(config)
    model, trainer = small["model"], small["trainer"]
    sizes = SMALL | {"kv_heads": 2 if model.get("kv_heads") else None}
    for key, value in sizes.items():
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
    task = build_task(small, data.spec.classes)
    accumulate = small["trainer"]["accumulate"]
    order = Order(data.samples, small["data"]["batch_size"], small["seed"], accumulate, paired=task.paired)
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
        said = f"{fitting[0]} does" if fitting else "nothing here does: type more devices"
        if not fitting and own.strategy in ("single", "ddp"):  # fsdp keeps whole gradients between pieces
            said += ", or more trainer.accumulate"
        lines.append(f"It does not fit into {room / GIB:.0f} GiB; {said}.")
    elif own.parameters + own.optimizer + r.evaluation > room:
        said = "set a smaller data.eval_batch_size, which changes no number (and counts as another run)"
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
    if not set(r.norms.chosen().values()) - {"none"}:
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
