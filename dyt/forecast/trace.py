"""What a step holds in memory and computes: run once on tensors that have shapes and no content.

Every operator is seen as it allocates, so recomputing, fused kernels and autocast's copies count as they are. The fake
tensors are on the CPU, whose attention, like a GPU's, keeps no matrix of tokens by tokens. With dropout in attention
the CPU's keeps it and a GPU's does not: there the estimate is too high for a GPU.
"""

import contextlib
import copy
import re
import weakref
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from dyt.data.ahead import each
from dyt.tasks import Place
from dyt.training.sharding import blocks_of, change_forward

DEEP, SOME = 8, 2  # blocks above which only so many, and twice as many, are traced
# Of a module's name the block it is in.
LAYER = re.compile(r"stages\.\d+\.(?:blocks\.\d+|downsample)|(?:\w+\.)*?\w+\.\d+(?=\.|$)|\w+")


@dataclass(frozen=True)
class Traced:
    """Bytes and FLOPs of one piece of a step on one device."""

    parameters: dict[str, int]  # bytes by layer
    count: int  # parameters
    kept: dict[str, int]  # bytes by layer that backward waits for
    copies: int  # of those kept, autocast's copies of weights
    peak: int  # most bytes at once beyond parameters and the batch, gradients included
    lean: int  # likewise without gradients and autocast's copies, which a sharded model has of one block at a time
    batch: int  # bytes of inputs and targets
    flops: float  # forward and backward


class Live(TorchDispatchMode):
    """Counts bytes of the storages that operators make, from birth to death, by the module that is running.

    Args:
        own: tensors that are there already.
        weights: the parameters, whose copies in another type and whose gradients are told apart.
    """

    def __init__(self, own: list[Tensor], weights: list[Tensor]):
        super().__init__()
        self.now = self.aside = self.peak = self.lean = 0
        self.flops = 0.0
        self.within: list[str] = []  # names of the modules that run
        self.alive: dict[int, list] = {}  # storage -> [bytes, module, whether a weight's copy or gradient, reference]
        self._known = {t.untyped_storage()._cdata for t in own}
        self._weights = {w.untyped_storage()._cdata for w in weights}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        copies = func._overloadpacket is torch.ops.aten._to_copy and _key(args[0]) in self._weights
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                self._born(t, copies)
        return out

    def _born(self, t: Tensor, copy: bool) -> None:
        key, storage = _key(t), t.untyped_storage()
        if key in self._known or key in self.alive:
            return
        name = self.within[-1] if self.within else ""
        self.alive[key] = [storage.nbytes(), name, copy, weakref.ref(storage, lambda _: self._died(key))]
        self._count(storage.nbytes(), copy)

    def _died(self, key: int) -> None:
        size, _, aside, _ = self.alive.pop(key)
        self._count(-size, aside)

    def _count(self, size: int, aside: bool) -> None:
        self.now += size
        self.aside += size if aside else 0
        self.peak, self.lean = max(self.peak, self.now), max(self.lean, self.now - self.aside)

    def leave(self) -> None:
        """The module that runs ends."""
        self.within.pop()

    def gradient(self, p: nn.Parameter) -> None:
        """A parameter has its gradient."""
        if (about := self.alive.get(_key(p.grad))) and not about[2]:
            about[2] = True
            self.aside += about[0]


def _key(t: Tensor) -> int:
    return t.untyped_storage()._cdata


def layer_of(name: str) -> str:
    """``blocks.3.attn.qkv`` is in ``blocks.3``, ``encoder.blocks.3.attn.qkv`` in ``encoder.blocks.3``."""
    found = LAYER.match(name)
    return found[0] if found else ""


def window_of(data: dict) -> int:
    """Samples of a recording's window."""
    return round(data["seconds"] * data["sample_rate"])


def batch_like(config: dict, spec, count: int, generator: torch.Generator | None = None) -> tuple:
    """(inputs, targets) as a run's data gives them: of zeros, or of noise where there is a generator."""
    data, context = config["data"], config["model"].get("context")

    def numbers(*shape: int) -> Tensor:
        return torch.zeros(shape) if generator is None else torch.randn(shape, generator=generator)

    def whole(below: int, *shape: int) -> Tensor:
        if generator is None:
            return torch.zeros(shape, dtype=torch.long)
        return torch.randint(below, shape, generator=generator)

    if data["task"] == "image":
        return numbers(count, spec.channels, data["img_size"], data["img_size"]), whole(spec.classes, count)
    if data["task"] == "audio":
        window = window_of(data)
        return (numbers(count, window), torch.full((count,), window)), torch.zeros(count, dtype=torch.long)
    if data["task"] == "episode":
        steps = count, context
        parts = numbers(*steps), numbers(*steps, spec.states), numbers(*steps, spec.actions).tanh()
        return (*parts, torch.arange(context).expand(steps)), torch.ones(steps, dtype=torch.bool)
    ids = whole(spec.vocab_size, count, context + 1)
    return ids[:, :-1], whole(spec.classes, count) if data["task"] == "sequence" else ids[:, 1:]


def samples_of(config: dict, task, spec, count: int = 2) -> tuple:
    """A few samples, of zeros, as the task prepares what a run's data gives."""
    return task.prepare(*batch_like(config, spec, count), Place(("val",), 0))


def trace(
    model: nn.Module,
    task,
    config: dict,
    spec,
    count: int,
    *,
    pieces: int = 1,
    checkpointing: str = "none",
    train: bool = True,
) -> Traced:
    """One piece of a step, `count` samples on one device; of several `pieces`, one that finds gradients there.

    Args:
        model: it is left as it is; on the meta device it takes no memory.
        task: what is learned.
        config: the run's.
        spec: what the model knows of its data.
        count: samples of the piece.
        pieces: that a device computes its share in.
        checkpointing: none, block or selective, as of the config's trainer.
        train: False: an evaluation, without gradients.
    """
    given = {"pieces": pieces, "checkpointing": checkpointing, "train": train}
    blocks = getattr(model, "blocks", ())
    if len(blocks) <= DEEP or len({tuple(p.shape for p in block.parameters()) for block in blocks}) > 1:
        return _trace(ghost(model, "meta"), task, config, spec, count, **given)
    # Of alike blocks each adds the same, to the byte; the first may lack what later ones have, such as drop path.
    few, more = (_trace(_with_blocks(model, n), task, config, spec, count, **given) for n in (SOME, 2 * SOME))
    left = (len(blocks) - 2 * SOME) / SOME
    traced = [more.kept.get(f"blocks.{n}", 0) for n in range(2 * SOME)]
    sizes = [*traced[:-1], *[traced[-2]] * (len(blocks) - 2 * SOME), traced[-1]]  # the last is followed by no block
    each = {f"blocks.{n}": size for n, size in enumerate(sizes) if size}
    kept = {k: v for k, v in more.kept.items() if not k.startswith("blocks.")}
    grown = {
        name: type(much)(much + left * (much - getattr(few, name)))
        for name, much in vars(more).items()
        if not isinstance(much, dict)
    }
    return Traced(_sizes(model), kept=each | kept, **grown)


def _with_blocks(model: nn.Module, count: int) -> nn.Module:
    """A copy without values, with the first blocks alone."""
    blocks = model.blocks
    try:
        model.blocks = blocks[:count]
        return ghost(model, "meta")
    finally:
        model.blocks = blocks


def _sizes(model: nn.Module) -> dict[str, int]:
    sizes: Counter = Counter()
    for name, p in model.named_parameters():
        sizes[layer_of(name)] += p.numel() * p.element_size()
    return dict(sizes)


def _trace(model: nn.Module, task, config: dict, spec, count: int, *, pieces: int, checkpointing: str, train: bool):
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=config["trainer"]["precision"] == "bf16")
    samples = samples_of(config, task, spec)
    # One real tensor is there, the default generator's state, where dropout or mixup draw.
    with FakeTensorMode(allow_non_fake_inputs=True), contextlib.ExitStack() as held:
        model = ghost(model, "cpu").train(train)
        for block in blocks_of(model):
            change_forward(block, checkpointing, compiled=False)
        weights = [p for p in model.parameters() if p.requires_grad]
        inputs, targets = each(samples, lambda t: torch.zeros(count, *t.shape[1:], dtype=t.dtype))
        batch = tree_leaves((inputs, targets))
        live = Live([*model.parameters(), *model.buffers(), *batch], weights)
        for name, module in model.named_modules():
            if name:
                held.callback(module.register_forward_pre_hook(lambda *_, n=name: live.within.append(n)).remove)
                held.callback(module.register_forward_hook(lambda *_: live.leave(), always_call=True).remove)
        for p in weights:
            held.callback(p.register_post_accumulate_grad_hook(live.gradient).remove)
        kept: list[list] = []
        with live:
            for _ in range(min(2, pieces)):
                there = set(live.alive)
                live.peak, live.lean = live.now, live.now - live.aside
                if not train:
                    with torch.no_grad(), autocast:
                        task.measure(model, inputs, targets)
                    break
                with autocast:
                    loss = task.loss(model, inputs, targets)
                kept = [list(about) for key, about in live.alive.items() if key not in there]
                loss.backward()
                del loss
        layers: Counter = Counter()
        for size, name, _, _ in kept:
            layers[layer_of(name)] += size
        return Traced(
            parameters=_sizes(model),
            count=sum(p.numel() for p in model.parameters()),
            kept=dict(layers),
            copies=sum(size for size, _, copy, _ in kept if copy),
            peak=live.peak,
            lean=live.lean,
            batch=sum(t.numel() * t.element_size() for t in batch),
            flops=live.flops / min(2, pieces),
        )


def ghost(model: nn.Module, device: str) -> nn.Module:
    """A copy of the model whose tensors are empty and on `device`; tied ones stay tied."""
    memo: dict[int, Tensor] = {}
    for t in (*model.parameters(), *model.buffers()):
        empty = torch.empty(t.shape, dtype=t.dtype, device=device)
        memo[id(t)] = nn.Parameter(empty, t.requires_grad) if isinstance(t, nn.Parameter) else empty
    return copy.deepcopy(model, memo)


def rough(model: nn.Module, task, config: dict, spec, count: int) -> int:
    """Bytes that `count` samples' forward pass may hold: three times what modules put out, more than any keeps.

    A fiftieth of the time of `trace`, which imports much; where this is little, nothing need be traced.
    """
    made = 0

    def add(module, given, out):
        nonlocal made
        made += sum(t.numel() * t.element_size() for t in tree_leaves(out) if isinstance(t, Tensor))

    model = ghost(model, "meta")
    for module in model.modules():
        if not any(True for _ in module.children()):
            module.register_forward_hook(add)
    with torch.no_grad():
        two = samples_of(config, task, spec)  # BatchNorm takes no single one
        task.measure(model, *each(two, lambda t: t.to("meta")))
    return 3 * made * count // 2
