"""Rows of the four benchmarks and of the profile. Contenders alternate in one process; ratios carry 95% intervals."""

import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from dyt.efficiency.contenders import EAGER_RMS, FUSED_RMS, OURS, PAPER, contenders, llama_models
from dyt.efficiency.timing import difference, peak_bytes, profiled, ratio, saved_bytes, spread, take_turns
from dyt.training import cpu

MIB = 2**20


def measure_op(rows: int, cols: int, device, dtype, rounds: int) -> list[dict]:
    """One row a contender: forward, forward + backward, memory, and bandwidth over a plain copy's."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, cols, generator=generator).to(device=device, dtype=dtype).requires_grad_()
    grad = torch.randn(rows, cols, generator=generator).to(device=device, dtype=dtype)
    modules = contenders(cols, device, dtype)

    def both(module):
        return torch.autograd.grad(module(x), [x, *module.parameters()], grad)

    calls = {
        "forward": {name: (lambda m=m: m(x)) for name, m in modules.items()} | {"copy": lambda: x.detach().clone()},
        "forward_backward": {name: (lambda m=m: both(m)) for name, m in modules.items()},
    }
    times = {phase: take_turns(turns, rounds, device, launches=False) for phase, turns in calls.items()}
    copy = statistics.median(times["forward"]["copy"])
    found = []
    for name in calls["forward"]:
        row = {"rows": rows, "cols": cols, "dtype": str(dtype).removeprefix("torch."), "contender": name}
        for phase in (p for p in times if name in times[p]):
            row[f"{phase}_ms"] = spread(times[phase][name])
            bases = times[phase] if name == "DyT (ours)" else ("LayerNorm",)
            for base in (b for b in bases if b != "no norm"):
                row[f"{phase}_of {base}"] = ratio(times[phase][name], times[phase][base])
        if name != "no norm":
            row["bandwidth_of_copy"] = round(copy / statistics.median(times["forward"][name]), 3)
        if name in modules:
            row["saved_mib"] = round(saved_bytes(calls["forward"][name], list(modules[name].parameters())) / MIB, 2)
            row["peak_mib"] = round(peak_bytes(calls["forward_backward"][name], device) / MIB, 2)
        found.append(row)
    return found


def _training(model_name: str, norm: str, world):
    """A model as train.py makes it: (config, data, order, model, task, optimizer)."""
    from dyt.config import compose
    from dyt.data.order import Order
    from dyt.run import assemble
    from dyt.training.optim import build

    config = compose.load([f"model={model_name}", f"norm={norm}"])
    data, model, _, task = assemble(config, world, 0)
    optimizer = build(model, config["optim"])
    order = Order(data.samples, config["data"]["batch_size"], 0)
    return config, data, order, model.train(), task, optimizer


def measure_step(model_name: str, norms: list[str], device: str, rounds: int) -> list[dict]:
    """One row a norm: a training step of the model (forward, backward, clip, AdamW) and what backward keeps."""
    from dyt.training.distributed import join

    world = join(device)
    calls, kept, shape = {}, {}, None
    for norm in norms:
        config, data, order, model, task, optimizer = _training(model_name, norm, world)
        inputs, targets = (t.to(world.device) for t in next(iter(data.train_batches(order, 0, 1))))
        clip, shape = config["optim"]["clip_grad"], list(inputs.shape)

        def step(model=model, task=task, optimizer=optimizer, inputs=inputs, targets=targets, clip=clip):
            task.loss(model, inputs, targets).backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        kept[norm] = saved_bytes(lambda m=model, t=task, i=inputs, y=targets: t.loss(m, i, y), list(model.parameters()))
        calls[norm] = step
    times = take_turns(calls, rounds, device)
    return [
        {
            "model": model_name,
            "batch": shape,
            "norm": norm,
            "step_ms": spread(times[norm]),
            "of layernorm": ratio(times[norm], times["layernorm"]),
            "saved_mib": round(kept[norm] / MIB, 2),
        }
        for norm in norms
    ]


def measure_model(sizes: dict, device, dtype, rounds: int, compiled: bool) -> list[dict]:
    """One row a norm: time of a whole model, batch 1 x context, and of its norms: model minus model without norms."""
    models = llama_models(sizes, device, dtype)
    if compiled:  # one graph a contender and phase
        torch._dynamo.config.recompile_limit = 64
    calls = {name: torch.compile(m) if compiled else m for name, m in models.items()}
    tokens = torch.randint(1000, (1, sizes["context"]), generator=torch.Generator().manual_seed(0)).to(device)

    def infer(call):
        with torch.no_grad():
            return call(tokens)

    def learn(call, model):
        call(tokens).float().logsumexp(-1).mean().backward()
        model.zero_grad(set_to_none=True)

    phases = {
        "inference": {name: (lambda c=call: infer(c)) for name, call in calls.items()},
        "training": {name: (lambda c=call, m=models[name]: learn(c, m)) for name, call in calls.items()},
    }
    found = []
    for phase, turns in phases.items():
        times = take_turns(turns, rounds, device)
        for name, values in times.items():
            row = {"phase": phase, "compiled": compiled, "contender": name, **sizes, "dtype": str(dtype).split(".")[1]}
            row |= {"model_ms": spread(values), "layer_ms": round(difference(values, times["none"]), 3)}
            for arm, base in ((PAPER, EAGER_RMS), (OURS, FUSED_RMS)):
                if name == arm:
                    row["model_of_rmsnorm"] = ratio(values, times[base])
                    row["layer_of_rmsnorm"] = ratio(values, times[base], times["none"])
            found.append(row)
    return found


def measure_data(rounds: int, words: list[str] = (), device: str = "cpu") -> list[dict]:
    """Samples a second that each embedded set, or a recipe's own in `words`, can feed, and that its model takes.

    Augmentation is in the first; the second is the trainer's own step, set up as the run would be, at a learning rate
    of 0. Where a run loads in its own process (``data.workers=0``) a step waits for its batch; with workers loading
    keeps up where it feeds more than is taken.

    Raises:
        ValueError, OSError: the recipe cannot be run; one line with the key to set.
    """
    from dyt.config import compose, identity
    from dyt.run import prepare
    from dyt.training.loop import Diverged
    from dyt.training.schedule import Stop

    found = []
    for recipe in [list(words)] if words else (["model=vit_nano"], ["model=gpt_nano"]):
        run = prepare(identity.plan(compose.load([f"trainer.device={device}", *recipe])))
        config, data, order = run.plan.config, run.data, run.order
        steps = min(30, max(1, order.steps_per_epoch // 2))
        fed, taken = [], []
        for i in range(rounds + 1):  # the first pass decodes, and is left out
            began = time.perf_counter()
            count = sum(len(targets) for _, targets in data.train_batches(order, steps * i, steps * (i + 1)))
            fed.append(count * data.unit_per_sample / (time.perf_counter() - began))
        batches = itertools.cycle([run.world.moved(batch) for batch in data.train_batches(order, 0, 1)])  # its pieces
        try:
            with Stop() as stop:
                for _ in range(rounds + 1):
                    began = time.perf_counter()
                    run.loop.train_step(batches, 0.0, stop)
                    if run.world.device.type == "cuda":
                        torch.cuda.synchronize()
                    taken.append(order.batch * data.unit_per_sample / (time.perf_counter() - began))
        except Diverged as error:
            raise ValueError(f"model={config['model']['name']}: {error}, before anything is learned") from error
        row = {"data": config["data"]["name"], "unit": f"{data.unit} a second", "rate": spread(fed[1:])}
        row |= {"model": config["model"]["name"], "taken": spread(taken[1:]), "workers": config["data"]["workers"]}
        found.append(row)
    return found


# Where a step's time goes, by the first part whose words stand in an operator's name.
PARTS = {
    "norm": ("layer_norm", "rms_norm", "dyt::", "batch_norm"),
    "attention": ("scaled_dot_product",),
    "matrix products": ("mm", "convolution", "bmm", "matmul", "linear"),
    "activation": ("gelu", "silu", "relu"),
    "optimizer": ("adamw", "Optimizer", "_foreach"),
    "gradient norm": ("vector_norm", "clip"),
    "loss": ("log_softmax", "nll_loss", "cross_entropy"),
    "copies": ("copy_", "aten::cat", "fill_", "zero_", "clone"),
}
SPANS = {"span of data": "data", "span of logging": "logging"}


def _part(event) -> str:
    """The span that an operator ran in, else what it is by its name."""
    around = event
    while around is not None:
        if around.name in SPANS:
            return SPANS[around.name]
        around = around.cpu_parent
    return next((p for p, words in PARTS.items() if any(w in event.name for w in words)), "other operators")


def measure_profile(model_name: str, norm: str, steps: int) -> dict:
    """Where the time of `steps` steps of the trainer goes on the CPU, in ms a step, by part.

    The learning rate is 0, so that norms work on like values. Logging is to metrics.jsonl and W&B offline. Python, the
    autograd engine and the profiler's own cost are ``everything else``.
    """
    from dyt.tracking.metrics import Metrics
    from dyt.tracking.wandb import Wandb
    from dyt.training.distributed import join
    from dyt.training.loop import Trainer
    from dyt.training.schedule import Schedule, Stop

    cpu.prepare()
    config, data, order, model, task, _ = _training(model_name, norm, join("cpu"))
    total, log_every = steps + 3, config["trainer"]["log_every"]
    trainer = Trainer(config, model, task, data, order, Schedule(total, log_every, 10**9, 10**9), join("cpu"))

    def spanned(name, call):
        def timed(*given):
            with torch.profiler.record_function(name):
                return call(*given)

        return timed

    for _ in data.train_batches(order, 0, min(40, order.steps_per_epoch)):  # pictures are decoded once
        pass
    source = iter(data.train_batches(order, 0, total))
    batches = iter(spanned("span of data", lambda: next(source)), None)
    with tempfile.TemporaryDirectory() as folder, Stop() as stop:
        metrics = Metrics(Path(folder) / "metrics.jsonl", 0)
        wandb = Wandb("offline", Path(folder), f"profile-{time.time_ns()}", {}, [])
        log = spanned("span of logging", lambda row: (metrics.log(row), wandb.log(row)))
        for _ in range(3):
            trainer.train_step(batches, 0.0, stop)
        with profiled() as seen:
            began = time.perf_counter()
            for step in range(3, total):
                loss, grad_norm, _ = trainer.train_step(batches, 0.0, stop)
                if step % log_every == 0:
                    log({"step": step, "train/loss": loss, "grad_norm": grad_norm})
            wall = 1000 * (time.perf_counter() - began)
        metrics.close()
        wandb.finish({}, failed=False)
    spent = dict.fromkeys((*PARTS, "other operators", *SPANS.values()), 0.0)
    for event in seen.events():
        spent[_part(event)] += event.self_cpu_time_total / 1000
    spent["everything else"] = max(0.0, wall - sum(spent.values()))
    return {
        "model": model_name,
        "norm": norm,
        "step_ms": round(wall / steps, 3),
        "parts_ms": {part: round(ms / steps, 3) for part, ms in spent.items()},
    }
