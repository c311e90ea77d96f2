"""A training step as it grows: time, memory and what processes exchange, against ranks, width, depth, context, batch.

Each case runs in processes that gloo joins, in the trainer's own step (training/loop.py).
"""

import functools
import multiprocessing
import os
import socket
import statistics
import time

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dyt.efficiency.timing import saved_bytes

MIB = 2**20
NORMS = ("layernorm", "rmsnorm", "dyt")
BASE = {"dim": 128, "depth": 4, "context": 128, "batch": 8}
GROWS = {"dim": (64, 128, 256), "depth": (2, 4, 8), "context": (64, 128, 256), "batch": (4, 8, 16)}
MEASURED = ("step_ms", "state_mib", "kept_mib")  # of a step in one process
LAYOUTS = {"ddp": ["trainer.strategy=ddp"], "fsdp": ["trainer.strategy=fsdp"], "tp": ["trainer.tp={ranks}"]}


class Collectives(TorchDispatchMode):
    """Counts what a process sends to others while it is active: ``{operation: [times, bytes]}``."""

    def __init__(self):
        super().__init__()
        self.seen: dict[str, list[int]] = {}

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op.namespace in ("c10d", "_c10d_functional"):
            tensors = [x for x in torch.utils._pytree.tree_leaves(args) if isinstance(x, torch.Tensor)]
            entry = self.seen.setdefault(op._opname.strip("_"), [0, 0])
            entry[0] += 1
            entry[1] += max(x.numel() * x.element_size() for x in tensors)  # of in and out, the larger
        return op(*args, **(kwargs or {}))


def case(layout: str, ranks: int, norm: str, **sizes) -> dict:
    return {"layout": layout, "ranks": ranks, "norm": norm, **BASE, **sizes}


def cases() -> list[dict]:
    """Ranks in every layout, then each size alone in one process."""
    found = [case("single", 1, norm) for norm in NORMS]
    found += [case(layout, ranks, norm) for ranks in (2, 4) for layout in LAYOUTS for norm in NORMS]
    for key, values in GROWS.items():
        found += [case("single", 1, norm, **{key: v}) for v in values for norm in NORMS if v != BASE[key]]
    return found


def _step(about: dict, steps: int) -> dict:
    """One case in this process: a row."""
    from dyt.config import compose
    from dyt.data.order import Order
    from dyt.run import assemble
    from dyt.training.distributed import join
    from dyt.training.loop import Trainer
    from dyt.training.schedule import Schedule, Stop

    words = ["model=gpt_nano", f"model.dim={about['dim']}", f"model.depth={about['depth']}", "model.heads=4"]
    words += [f"model.context={about['context']}", f"data.batch_size={about['batch']}", f"norm={about['norm']}"]
    words += [word.format(**about) for word in LAYOUTS.get(about["layout"], [])] + ["optim.clip_grad=1.0"]
    config = compose.load(words)
    world = join("cpu", config["trainer"]["strategy"], config["trainer"]["tp"])
    data, model, _, task = assemble(config, world, 0)
    order = Order(data.samples, about["batch"], 0, 1, world.data_rank, world.data_size)
    trainer = Trainer(config, model, task, data, order, Schedule(10**6, 10**6, 10**6, 10**6), world)
    batches = iter(data.train_batches(order, 0, steps + 4))
    times = []
    with Stop() as stop:
        for _ in range(2):
            trainer.train_step(batches, 1e-4, stop)
        with Collectives() as sent:
            trainer.train_step(batches, 1e-4, stop)
        for _ in range(steps):
            world.wait()
            began = time.perf_counter()
            trainer.train_step(batches, 1e-4, stop)
            times.append(1000 * (time.perf_counter() - began))
    held = {id(t): t for t in trainer.model.parameters()} | {
        id(t): t for part in getattr(trainer.optimizer, "parts", [trainer.optimizer])
        for state in part.state.values() for t in state.values() if isinstance(t, torch.Tensor)
    }  # fmt: skip
    from dyt.training.average import here

    sizes = [here(t).numel() * t.element_size() for t in held.values()]
    row = {"step_ms": round(statistics.median(times), 2), "state_mib": round(sum(sizes) / MIB, 3)}
    row |= {"collectives": sum(n for n, _ in sent.seen.values())}
    row |= {"sent_mib": round(sum(b for _, b in sent.seen.values()) / MIB, 3)}
    kinds = {k: {"times": n, "mib": round(b / MIB, 3)} for k, (n, b) in sorted(sent.seen.items())}
    if world.size == 1:
        inputs, targets = next(batches)
        forward = functools.partial(task.loss, model, inputs, targets)
        row["kept_mib"] = round(saved_bytes(forward, trainer.parameters) / MIB, 3)
    return about | row | {"by_kind": kinds}


def _norms(about: dict, rounds: int) -> dict:
    """One norm on a stream whose channels are split: time of forward and backward, and what it sends."""
    import torch.distributed as dist

    from dyt.efficiency.split_norms import split_norm
    from dyt.training.distributed import join

    world = join("cpu", "ddp")
    group = dist.group.WORLD
    norm = split_norm(about["norm"], about["dim"] // about["ranks"], group, about["ranks"])
    x = torch.randn(about["batch"], about["context"], about["dim"] // about["ranks"], requires_grad=True)
    times = []
    for _ in range(rounds + 3):
        world.wait()
        began = time.perf_counter()
        norm(x).sum().backward()
        times.append(1000 * (time.perf_counter() - began))
    with Collectives() as sent:  # apart, for counting takes time
        norm(x).sum().backward()
    row = {"norm_ms": round(statistics.median(times[3:]), 3), "collectives": sum(n for n, _ in sent.seen.values())}
    return about | row | {"sent_bytes": sum(b for _, b in sent.seen.values())}


def _serve(rank: int, size: int, port: int, work: list, pipe) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    from dyt.training.distributed import leave

    for kind, about, count in work:
        row = {"step": _step, "norm": _norms}[kind](about, count)
        leave()
        if rank == 0:
            pipe.send(row)


def together(size: int, work: list) -> list[dict]:
    """Rows of ``(kind, case, repeats)``, each by `size` processes."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours, theirs = context.Pipe()
    processes = [context.Process(target=_serve, args=(rank, size, port, work, theirs)) for rank in range(size)]
    for process in processes:
        process.start()
    rows = []
    for _ in work:
        while not ours.poll(1):
            if any(p.exitcode for p in processes):
                raise RuntimeError("a process of the measurement ended")
        rows.append(ours.recv())
    for process in processes:
        process.join()
    return rows


def measure(repeats: int) -> tuple[list[dict], list[dict]]:
    """(rows of training steps, rows of norms whose channels are split)."""
    steps, norms = [], []
    for ranks in (4, 2, 1):
        work = [("step", about, repeats) for about in cases() if about["ranks"] == ranks]
        if ranks > 1:
            work += [("norm", case("split channels", ranks, norm, dim=512), 5 * repeats) for norm in NORMS]
        for row in together(ranks, work):
            (norms if "norm_ms" in row else steps).append(row)
    return steps, norms


def exponent(sizes: list[float], values: list[float]) -> float:
    """p of the best values = a sizes^p, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def exponents(rows: list[dict]) -> list[dict]:
    """Of a step's time and of what a process keeps, by norm, for each size that grows alone."""
    found = []
    for key in GROWS:
        for norm in NORMS:
            others = {k: v for k, v in BASE.items() if k != key} | {"norm": norm, "layout": "single"}
            here = sorted((r for r in rows if others.items() <= r.items()), key=lambda r: r[key])
            sizes = [r[key] for r in here]
            fits = {what: round(exponent(sizes, [r[what] for r in here]), 2) for what in MEASURED}
            found.append({"grows": key, "from": sizes[0], "to": sizes[-1], "norm": norm, **fits})
    return found


# A simulation on paper, of machines that nobody here has. Every number of it is an assumption or follows from one.
ASSUMED = {
    "model": "LLaMA 7B: 6.74e9 parameters, 32 blocks, 4,096 channels, 65 norms",
    "tokens a device and step": 8192,
    "device": "4e14 FLOP/s reached (H100, 40% of its dense bfloat16 peak), 6 FLOPs a parameter and token",
    "within a machine": "8 devices, 3e11 bytes/s a device",
    "between machines": "5e10 bytes/s a device",
    "a collective takes at least": "2e-5 s within a machine, and 5e-6 s more for each doubling of the machines",
    "fsdp": "weights gathered twice (bfloat16) and gradients scattered once (float32), beside the computation",
    "tp": "8 devices of a machine, with the tokens of 8: 4 sums a block of 65,536 x 4,096 bfloat16 values, not hidden",
    "split channels": "a norm over channels adds 2 sums of 1 (RMSNorm) or 2 (LayerNorm) float32 a token; DyT none",
}


def simulate(devices: int) -> dict:
    """Seconds of a step on `devices`, from `ASSUMED` alone."""
    parameters, blocks, channels, norms, tokens = 6.74e9, 32, 4096, 65, 8192
    rate, inside, between = 4e14, 3e11, 5e10
    machines = max(1, devices // 8)
    least = 2e-5 + 5e-6 * np.log2(machines)
    compute = 6 * parameters * tokens / rate
    exchange = parameters * (2 * 2 + 4) / (inside if machines == 1 else between) + 3 * (blocks + 1) * least
    group = 8 * tokens  # eight devices hold a model together, and have the tokens of eight
    tp = 4 * blocks * (2 * group * channels * 2 / inside + 2e-5)
    row = {"compute_s": compute, "fsdp_exchange_s": exchange, "fsdp_s": max(compute, exchange), "tp_s": compute + tp}
    for norm, numbers in (("rmsnorm", 1), ("layernorm", 2)):
        row[f"norms_{norm}_s"] = 2 * norms * (2 * group * numbers * 4 / inside + 2e-5)
    return {"devices": devices, **{k: float(v) for k, v in row.items()}, "norms_dyt_s": 0.0}


def table(written: dict) -> str:
    """The page of it: what was measured, the exponents, and the simulation with its assumptions."""
    from dyt.efficiency.tables import table as lines

    steps, norms = written["steps"], written["norms"]
    by_rank = sorted(
        (r for r in steps if BASE.items() <= r.items()), key=lambda r: (r["layout"] != "single", r["ranks"])
    )
    about = written["provenance"]
    quiet = "."
    if about["load_average_before"] >= about["cores"] / 2:
        quiet = ": something else ran, so times mean little here; memory, collectives and bytes are exact."
    head = [
        "layout",
        "processes",
        "norm",
        "step, ms",
        "weights and optimizer in each, MiB",
        "collectives a step",
        "MiB a step",
    ]
    keys = ("layout", "ranks", "norm", "step_ms", "state_mib", "collectives", "sent_mib")
    parts = [
        "# A training step as it grows", "",
        f"Written by `python scripts/bench.py scaling`. A GPT of {BASE['depth']} blocks, {BASE['dim']} channels, "
        f"{BASE['batch']} x {BASE['context']} tokens a step over all processes, joined by gloo on one machine: "
        f"{about.get('cpu') or about.get('hardware', '')}. Four processes share its cores, so their time says what "
        "the exchange costs and nothing of speed-up. MiB: the larger of what goes in and what comes out.", "",
        f"Load average before: {about['load_average_before']} on {about['cores']} cores{quiet}", "",
        *lines(head, [[r[k] for k in keys] for r in by_rank], 3), "",
        "## A norm where the channels are split", "",
        "The residual stream lies over the processes by channels: a statistic over channels takes a sum over them, "
        "forward and backward, in each norm. DyT has none, and takes none; only its alpha, one number a norm, "
        "has a gradient to add up, once a step for all norms together. The time is not of the exchange alone: "
        "LayerNorm and RMSNorm are made of PyTorch's operators here, and DyT is one kernel, so it leads without any "
        "exchange too.", "",
        *lines(["processes", "norm", "forward + backward, ms", "collectives", "bytes"],
               [[r["ranks"], r["norm"], r["norm_ms"], r["collectives"], r["sent_bytes"]]
                for r in sorted(norms, key=lambda r: r["ranks"])], 2), "",
        "Where each process has whole tokens, all of them (`trainer.tp`) or some, no norm sends anything.", "",
        "## How it grows, in one process", "",
        "p of time = a size^p, fitted over the sizes named.", "",
        *lines(["what grows", "from", "to", "norm", "p of the step's time", "p of weights and optimizer",
                "p of activations"],
               [list(r.values()) for r in exponents(steps)], 4), "",
        "## On paper: 8 to 1,024 devices", "",
        "No such machine was used. Seconds of a step, each number from these assumptions:", "",
        *[f"- {what}: {how}" for what, how in ASSUMED.items()], "",
    ]  # fmt: skip
    columns = {
        "computation": "compute_s", "FSDP's exchange": "fsdp_exchange_s", "step, fsdp": "fsdp_s", "step, tp 8": "tp_s",
        "norms' sums: RMSNorm": "norms_rmsnorm_s", "LayerNorm": "norms_layernorm_s", "DyT": "norms_dyt_s",
    }  # fmt: skip
    rows = [simulate(n) for n in (8, 16, 32, 64, 128, 256, 512, 1024)]
    body = [[r["devices"], *(f"{r[k]:.4f}" for k in columns.values())] for r in rows]
    return "\n".join([*parts, *lines(["devices", *columns], body), ""])
