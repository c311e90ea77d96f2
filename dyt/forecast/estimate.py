"""From a traced step to the memory of one device under each strategy."""

from dataclasses import dataclass

from torch import nn

from dyt.forecast.trace import Traced
from dyt.training.sharding import blocks_of

OF_A_MACHINE = 8  # devices of one machine, among which hsdp shards


@dataclass(frozen=True)
class Memory:
    """Bytes of one device. Gradients come as activations go, so that the total is less than the sum of the others.

    Args:
        strategy: single, ddp, fsdp or hsdp.
        checkpointing: none, block or selective.
        parameters: float32, with what is gathered of other devices.
        gradients: with DDP's buckets.
        optimizer: its moments, and the moving average of the weights.
        activations: what backward waits for.
        total: the most at once.
    """

    strategy: str
    checkpointing: str
    parameters: int
    gradients: int
    optimizer: int
    activations: int
    total: int

    @property
    def name(self) -> str:
        """As a table shows it."""
        return self.strategy + ("" if self.checkpointing == "none" else f", checkpointing {self.checkpointing}")


def chosen(trainer: dict, devices: int) -> str:
    """The strategy of a config on so many devices."""
    named = trainer.get("strategy", "auto")
    return ("ddp" if devices > 1 else "single") if named == "auto" else named


def moments(model: nn.Module, optim: dict, ema: bool) -> int:
    """Bytes of the optimizer's state, and of the moving average of the weights."""
    sizes = {name: p.numel() * p.element_size() for name, p in model.named_parameters() if p.requires_grad}
    whole = sum(sizes.values())
    state = {"adamw": 2 * whole, "sgd": whole}.get(optim["kind"])
    if state is None:  # muon: one moment of the blocks' matrices, AdamW's two of the rest
        matrices = (
            n for n, p in model.named_parameters() if p.ndim == 2 and any(map(str.isdigit, n.split("."))) and n in sizes
        )
        state = 2 * whole - sum(sizes[n] for n in matrices)
    return state + (sum(p.numel() * p.element_size() for p in model.parameters()) if ema else 0)


def memory(
    traced: Traced,
    model: nn.Module,
    config: dict,
    strategy: str,
    devices: int,
    checkpointing: str = "none",
    pieces: int = 1,
) -> Memory:
    """Of one device of `devices`, for the piece that was traced, one of `pieces`.

    DDP holds every gradient a second time, in its buckets. FSDP shards parameters, gradients and moments, and gathers
    what is outside the blocks, and two blocks at a time, in the type that is computed in; it has no copies of
    autocast's. With several pieces it keeps the whole gradient in float32 until the last one. Libraries and the
    allocator take more: some hundred MiB, and a few percent on a GPU.
    """
    whole = sum(traced.parameters.values())
    state = moments(model, config["optim"], config["trainer"]["ema_decay"] is not None)
    kept = sum(traced.kept.values())
    if strategy in ("single", "ddp"):
        buckets = whole if strategy == "ddp" else 0
        total = whole + state + traced.batch + buckets + max(traced.peak, whole)
        return Memory(strategy, checkpointing, whole, whole + buckets, state, kept, total)
    parts = min(devices, OF_A_MACHINE) if strategy == "hsdp" else devices
    computed = 0.5 if config["trainer"]["precision"] == "bf16" else 1.0  # of float32's size
    blocks = [sum(p.numel() * p.element_size() for p in block.parameters()) for block in blocks_of(model)]
    block = max(blocks, default=0)
    gathered = int(computed * (whole - sum(blocks) + 2 * block))
    own, gradients = whole // parts, whole // parts + (max(block, whole - sum(blocks)) if pieces == 1 else whole)
    activations = kept - traced.copies
    total = own + gathered + gradients + state // parts + traced.batch + traced.lean
    return Memory(strategy, checkpointing, own + gathered, gradients, state // parts, activations, total)
