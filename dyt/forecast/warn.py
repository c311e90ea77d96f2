"""What a run is told before its first step: too little memory, blown-up pictures, starved tokens, parted batches."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dyt.forecast.estimate import chosen
from dyt.forecast.hardware import GAPS, GIB, free_memory
from dyt.norms.coupling import RunningRMSNorm

LARGE = 2.0  # times the side of a picture above which enlarging it is said


def warnings(config: dict, model: nn.Module, task, data, order, world, here: int) -> list[str]:
    """Sentences, none where all is well.

    Args:
        config: the run's.
        model: as it is on the device.
        task: what is learned.
        data: the data set.
        order: which samples are this process's, and in how many pieces.
        world: the run's processes.
        here: of them, on this machine.
    """
    said = [*_enlarged(config, data), *_starved(config), *_parted(config, model, order)]
    return said + _memory(config, model, task, data, order, world, here)


def _parted(config: dict, model: nn.Module, order) -> list[str]:
    """Norms over the batch that see a part of it, which depends on where the run is and is in no hash."""
    whole = order.batch // config["trainer"]["accumulate"]
    if order.share == whole or not any(isinstance(m, _BatchNorm | RunningRMSNorm) for m in model.modules()):
        return []
    return [
        f"norms over the batch take their statistics of {order.share} samples, in one process without "
        f"trainer.micro_batch of {whole}: that is another curve, under the same hash"
    ]


def _starved(config: dict) -> list[str]:
    """DyT from scratch on GPT-2's embeddings, from which it hardly learns: the study embed_scale."""
    model, norm = config["model"], config["norm"]
    small = model.get("embed_scale") == "none" and model.get("embed_std") == 0.02
    if not small or norm["kind"] not in ("dyt", "derf") or norm["gamma_init"] != 1.0 or config["init_from"]:
        return []
    return [
        f"norm={norm['name']} gets token embeddings of std 0.02 and no scale, as in GPT-2, and hardly learns so "
        "(docs/findings.md); model.embed_scale=learnable model.embed_std=rsqrt_dim feeds it as the paper's code does"
    ]


def _enlarged(config: dict, data) -> list[str]:
    side = data.usual_side() if hasattr(data, "usual_side") else None
    size = config["data"].get("img_size")
    if not side or not size or size <= LARGE * side:
        return []
    patch = config["model"].get("patch_size")
    fitting = f" model.patch_size={_patch(side, size // patch)}" if patch and size % patch == 0 else ""
    return [
        f"pictures of {side} pixels a side are enlarged to data.img_size={size}: {(size / side) ** 2:,.0f} times the "
        f"pixels and nothing new in them; data.img_size={side}{fitting} takes them as they are"
    ]


def _patch(side: int, places: int) -> int:
    """The largest patch that divides `side` into at least as many places as before, or a quarter of the side."""
    fitting = [p for p in range(1, side + 1) if side % p == 0 and side // p >= min(places, 4)]
    return max(fitting, default=1)


def _memory(config: dict, model: nn.Module, task, data, order, world, here: int) -> list[str]:
    from dyt.forecast.trace import rough

    free = free_memory(world.device, here if world.device.type == "cpu" else 1)
    if free is None:
        return []
    own = sum(p.numel() * p.element_size() for p in model.parameters())
    if world.sharded or config["trainer"].get("checkpointing", "none") != "none":  # its blocks are no longer plain ones
        from models import build_model

        with torch.device("meta"):
            model, _ = build_model(config["model"], config["norm"], data.spec)
    try:
        most = max(order.share, config["data"]["eval_batch_size"])
        if 5 * own + rough(model, task, config, data.spec, most) < free / 2:
            return []
        return _traced(config, model, task, data.spec, order, world, free, 0 if world.sharded else own)
    except Exception:  # a model that runs on real tensors alone raises what it likes, and no warning may end a run
        return []


def _traced(config: dict, model, task, spec, order, world, free: int, there: int) -> list[str]:
    """What does not fit into `free` bytes, where `there` of the parameters are held already."""
    from dyt.forecast.estimate import memory, moments
    from dyt.forecast.trace import trace

    checkpointing, pieces, count = config["trainer"].get("checkpointing", "none"), order.pieces, order.share

    gaps = GAPS[world.device.type]

    def need(count: int, pieces: int) -> float:
        found = trace(model, task, config, spec, count, pieces=pieces, checkpointing=checkpointing)
        strategy = chosen(config["trainer"], world.size)
        return gaps * (memory(found, model, config, strategy, world.size, checkpointing, pieces).total - there)

    if (step := need(count, pieces)) > free:
        but = " but for dropout and BatchNorm, which are of a piece"
        said = f"a step takes about {step / GIB:.1f} GiB more, and {free / GIB:.1f} GiB are free"
        for fewer in (n for n in range(count // 2, 0, -1) if count % n == 0 and not (order.paired and n % 2)):
            if (less := need(fewer, pieces * count // fewer)) < 0.9 * free:
                return [f"{said}; trainer.micro_batch={fewer} takes {less / GIB:.1f} GiB, with the same curve{but}"]
        return [f"{said}; no trainer.micro_batch is enough: take a smaller model, or more devices"]
    measured = config["data"]["eval_batch_size"]
    state = moments(model, config["optim"], config["trainer"]["ema_decay"] is not None)
    evaluation = gaps * trace(model, task, config, spec, measured, train=False).peak
    if not world.sharded and (whole := evaluation + state) > free:
        fits = max(1, int(measured * max(0.0, 0.9 * free - state) / evaluation))
        return [
            f"an evaluation takes about {whole / GIB:.1f} GiB more, and {free / GIB:.1f} GiB are free; "
            f"data.eval_batch_size={fits} does, for the same numbers (and counts as another run)"
        ]
    return []
