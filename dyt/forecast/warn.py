"""What a run is told before its first step: that memory will not do, that pictures are blown up."""

import torch
from torch import nn

from dyt.forecast.hardware import GIB, free_memory

LARGE = 2.0  # times the side of a picture above which enlarging it is said


def warnings(config: dict, model: nn.Module, task, data, device: torch.device, processes: int, here: int) -> list[str]:
    """Sentences, none where all is well.

    Args:
        config: the run's.
        model: as it is on the device.
        task: what is learned.
        data: the data set.
        device: of this process.
        processes: of the run.
        here: of them, on this machine.
    """
    return [*_enlarged(config, data), *_memory(config, model, task, data, device, processes, here)]


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


def _memory(config: dict, model: nn.Module, task, data, device, processes: int, here: int) -> list[str]:
    from dyt.forecast.trace import rough

    free = free_memory(device, here if device.type == "cpu" else 1)
    pieces, batch = config["trainer"]["accumulate"], config["data"]["batch_size"]
    count, measured = max(1, batch // (pieces * processes)), config["data"]["eval_batch_size"]
    own = sum(p.numel() * p.element_size() for p in model.parameters())
    try:
        if free is None or 5 * own + rough(model, config, data.spec, max(count, measured)) < free / 2:
            return []
        return _traced(config, model, task, data, free, processes, count, measured, own)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # a model that runs on real tensors alone
        return []


def _traced(config, model, task, data, free: int, processes: int, count: int, measured: int, own: int) -> list[str]:
    from dyt.forecast.estimate import memory
    from dyt.forecast.trace import trace

    trainer = config["trainer"]
    strategy = trainer.get("strategy", "auto")
    strategy = ("ddp" if processes > 1 else "single") if strategy == "auto" else strategy
    recompute = trainer.get("recompute", "none") != "none"

    def need(count: int, pieces: int) -> int:
        found = trace(model, task, config, data.spec, count, pieces=pieces, recompute=recompute)
        return memory(found, model, config, strategy, processes, recompute).total - own  # the parameters are there

    told, pieces = [], trainer["accumulate"]
    if (step := need(count, pieces)) > free:
        said = f"a step takes about {step / GIB:.1f} GiB more, and {free / GIB:.1f} GiB are free"
        for fewer in (n for n in range(count // 2, 0, -1) if count % n == 0):
            if (less := need(fewer, pieces * count // fewer)) < 0.9 * free:
                said += f"; trainer.accumulate={pieces * count // fewer} takes {less / GIB:.1f} GiB for the same curve"
                break
        else:
            said += "; no trainer.accumulate is enough: take a smaller model, or more devices"
        told.append(said)
    evaluated = trace(model, task, config, data.spec, measured, train=False).peak
    if (evaluated := evaluated + min(4 * own, step)) > free and not told:
        fits = max(1, int(measured * free * 0.8 / evaluated))
        told.append(
            f"an evaluation takes about {evaluated / GIB:.1f} GiB more, and {free / GIB:.1f} GiB are free; "
            f"data.eval_batch_size={fits} does, for the same numbers"
        )
    return told
