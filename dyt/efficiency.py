"""How long norms take and what they keep in memory, side by side in one process. scripts/bench.py is the command.

Contenders take turns in short blocks, each block's first call untimed, so that neither a drifting machine nor another
contender's leftovers in the memory allocator favours one. Medians and quartiles; ratios are of medians.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dyt.kernels import dynamic, reference

BLOCK = 4  # timed calls of one contender before the next has its turn


class HuggingFaceRMSNorm(nn.Module):
    """RMSNorm as Hugging Face's LLaMA computes it without fusion: in float32, several kernels."""

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


class _Dynamic(nn.Module):
    def __init__(self, dim: int, how: Callable, squash: str = "tanh"):
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(1)) if squash == "erf" else None
        self.how, self.squash = how, squash

    def forward(self, x: Tensor) -> Tensor:
        return self.how(x, self.alpha, self.weight, self.bias, self.shift, self.squash)


def contenders(dim: int, device, dtype) -> dict[str, nn.Module]:
    """What a user would pick, by name, each a module for ``(..., dim)``."""
    made = {
        "LayerNorm": nn.LayerNorm(dim),
        "RMSNorm (fused)": nn.RMSNorm(dim, eps=1e-6),
        "RMSNorm (Hugging Face, eager)": HuggingFaceRMSNorm(dim),
        "DyT (as in the paper, eager)": _Dynamic(dim, reference.dynamic),
        "DyT (torch.compile)": _Dynamic(dim, torch.compile(reference.dynamic)),
        "DyT (ours)": _Dynamic(dim, dynamic),
        "Derf (ours)": _Dynamic(dim, dynamic, "erf"),
    }
    if torch.device(device).type == "cuda":
        try:
            from liger_kernel.transformers import LigerDyT

            made["DyT (liger-kernel)"] = LigerDyT(dim)
        except ImportError:
            pass
    return {name: module.to(device=device, dtype=dtype) for name, module in made.items()}


def take_turns(calls: dict[str, Callable], rounds: int, device) -> dict[str, list[float]]:
    """Times of each call in ms, in blocks that alternate; one untimed call before each block."""
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for i in range(rounds):
        for name in order if i % 2 else reversed(order):
            calls[name]()
            for _ in range(BLOCK):
                wait()
                began = time.perf_counter()
                calls[name]()
                wait()
                times[name].append(1000 * (time.perf_counter() - began))
    return times


def spread(values: list[float]) -> dict:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}


def saved_bytes(forward: Callable[[], Tensor], parameters: list[Tensor]) -> int:
    """Bytes that autograd keeps for backward, parameters left out, each piece of memory once."""
    own = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = forward()
    del out
    return sum(kept.values())


def measure_op(rows: int, cols: int, device, dtype, rounds: int) -> list[dict]:
    """One row a contender: forward, forward + backward, memory kept, and bandwidth over a plain copy's."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, cols, generator=generator).to(device=device, dtype=dtype).requires_grad_()
    grad = torch.randn(rows, cols, generator=generator).to(device=device, dtype=dtype)
    modules = contenders(cols, device, dtype)

    def both(module):
        return torch.autograd.grad(module(x), [x, *module.parameters()], grad)

    forward = {name: (lambda m=m: m(x)) for name, m in modules.items()}
    forward["copy"] = lambda: x.detach().clone()
    backward = {name: (lambda m=m: both(m)) for name, m in modules.items()}
    f, b = take_turns(forward, rounds, device), take_turns(backward, rounds, device)
    copy = statistics.median(f["copy"])
    found = []
    for name in forward:
        row = {"rows": rows, "cols": cols, "dtype": str(dtype).removeprefix("torch."), "contender": name}
        row |= {"forward_ms": spread(f[name]), "bandwidth_of_copy": round(copy / statistics.median(f[name]), 3)}
        if name in b:
            row["forward_backward_ms"] = spread(b[name])
            row["saved_mib"] = round(saved_bytes(forward[name], list(modules[name].parameters())) / 2**20, 2)
        found.append(row)
    return found


def measure_step(model_name: str, norms: list[str], device: str, rounds: int) -> list[dict]:
    """One row a norm: a training step of the model (forward, backward, clip, AdamW) and what backward keeps."""
    from dyt import config as configs
    from dyt.data.order import Order
    from dyt.distributed import join
    from dyt.optim import adamw
    from dyt.run import assemble

    world = join(device)
    calls, parts, kept = {}, {}, {}
    for norm in norms:
        config = configs.load([f"model={model_name}", f"norm={norm}"])
        data, model, _, task = assemble(config, world, 0)
        optim = config["optim"]
        optimizer = adamw(model, lr=optim["lr"], betas=optim["betas"], weight_decay=optim["weight_decay"])
        order = Order(data.samples, config["data"]["batch_size"], 0)
        inputs, targets = (t.to(world.device) for t in next(iter(data.train_batches(order, 0, 1))))
        parts[norm] = (model.train(), optimizer, task, inputs, targets, optim["clip_grad"])

    def step(norm):
        model, optimizer, task, inputs, targets, clip = parts[norm]
        task.loss(model, inputs, targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for norm in norms:
        model, _, task, inputs, targets, _ = parts[norm]
        kept[norm] = saved_bytes(lambda m=model, t=task, i=inputs, y=targets: t.loss(m, i, y), list(model.parameters()))
        calls[norm] = lambda n=norm: step(n)
    times = take_turns(calls, rounds, device)
    return [
        {
            "model": model_name,
            "batch": list(parts[norm][3].shape),
            "norm": norm,
            "step_ms": spread(times[norm]),
            "saved_mib": round(kept[norm] / 2**20, 2),
        }
        for norm in norms
    ]


def llama_models(sizes: dict, device, dtype) -> dict[str, nn.Module]:
    """LLaMA-style models that differ in the norm alone; "none" is the one whose time is taken off for the layer's."""
    from dyt.data import Spec
    from models.gpt import build

    norms = {
        "none": lambda dim, site: nn.Identity(),
        "RMSNorm (Hugging Face, eager)": lambda dim, site: HuggingFaceRMSNorm(dim),
        "RMSNorm (fused)": lambda dim, site: nn.RMSNorm(dim, eps=1e-6),
        "DyT (as in the paper, eager)": lambda dim, site: _Dynamic(dim, reference.dynamic),
        "DyT (ours)": lambda dim, site: _Dynamic(dim, dynamic),
    }
    style = {"positions": "rope", "mlp": "swiglu", "tied": False}
    made = {}
    for name, norm in norms.items():
        with torch.device(device):
            made[name] = build(norm, Spec("text", "", {}, vocab_size=1000), **sizes, **style).to(dtype)
    return made


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
        without = statistics.median(times["none"])
        for name, values in times.items():
            row = {"phase": phase, "compiled": compiled, "contender": name, **sizes, "dtype": str(dtype).split(".")[1]}
            found.append(row | {"model_ms": spread(values), "layer_ms": round(statistics.median(values) - without, 3)})
    return found


def measure_data(rounds: int) -> list[dict]:
    """Samples a second that each embedded set can feed, augmentation included, the loop left out."""
    from dyt import config as configs
    from dyt.data import open_data
    from dyt.data.order import Order

    found = []
    for words, context in ((["model=vit_nano"], None), (["model=gpt_nano"], 64)):
        data_config = configs.load(words)["data"]
        data = open_data(data_config, context)
        order = Order(data.samples, data_config["batch_size"], 0)
        times = []
        for i in range(rounds + 1):  # the first pass decodes, and is left out
            batches = data.train_batches(order, 30 * i, 30 * (i + 1))
            began = time.perf_counter()
            count = sum(len(targets) for _, targets in batches)
            if i:
                times.append(count * data.unit_per_sample / (time.perf_counter() - began))
        found.append({"data": data_config["name"], "unit": f"{data.unit} a second", "rate": spread(times)})
    return found
