"""How a model lies over the processes of a run: whole in each (single, ddp), or a part of it in each (fsdp, hsdp, tp).

The loop asks a `Layout` for what depends on it, and knows no more. PyTorch does the work: DDP, FSDP2 block by block,
activation checkpointing, torch.compile. A tensor that is spread over processes is told in *boxes*: of the whole tensor,
which parts are here, each with its place. First weights, clipping and checkpoints are all in terms of these.
"""

import contextlib
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dyt.rundir import checkpoint
from dyt.training.average import Average, here, is_spread
from dyt.training.blocks import blocks_of, change_forward
from dyt.training.distributed import World
from dyt.training.tensor_parallel import split

Boxes = tuple[tuple[int, ...], list[tuple[tuple[int, ...], Tensor]]]  # the whole shape; (place, values) of what is here


def whole(x: Tensor) -> Tensor:
    """A tensor in full; every process must ask for it."""
    return x.full_tensor() if is_spread(x) else x


class Layout:
    """A model over the processes of a run.

    Args:
        model: on the world's device. Where it is to be sharded, as built: real in the leading process, which has the
            first weights, and on the meta device in all others; so a device holds its part and one tensor more.
        trainer: the config's part: ``precision``, ``compile``, ``checkpointing``.
        also: further modules of the same shape that are evaluated only, as the moving average's.

    Raises:
        ValueError: the model cannot be split over ``trainer.tp`` processes.
    """

    def __init__(self, model: nn.Module, world: World, trainer: dict, also: Iterable[nn.Module] = ()):
        self.model, self.world = model, world
        self.cuts: dict[str, tuple[int, list[int]]] = {}  # of tensor parallelism, by parameter
        modules = [model, *also]
        start = tensors_of(model) if world.sharded and world.leads else None
        if world.tp > 1:
            group = world.mesh["tensor"].get_group()
            for module in modules:
                self.cuts = split(module, world.rank % world.tp, world.tp, group)
        blockwise = world.strategy in ("fsdp", "hsdp")
        for block in blocks_of(model):
            change_forward(block, trainer.get("checkpointing", "none"), blockwise and trainer["compile"])
        for module in modules:
            if blockwise:
                self._shard(module, bf16=trainer["precision"] == "bf16")
            if world.sharded:
                materialise(module, world.device)
                self.spread({f"model/{k}": v for k, v in tensors_of(module).items()}, start)
        self.wrapped = torch.compile(model) if trainer["compile"] and not blockwise else model
        if world.strategy == "ddp" and world.data_size > 1:
            ids = [world.device.index] if world.device.type == "cuda" else None
            group = world.mesh["data"].get_group() if world.tp > 1 else None
            self.wrapped = DistributedDataParallel(self.wrapped, device_ids=ids, process_group=group)
        self.names = {id(p): name for name, p in model.named_parameters()}

    def _shard(self, module: nn.Module, bf16: bool) -> None:
        """FSDP2 in place: parameters become their shards, gathered a block at a time while it runs."""
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
        axes = ("machine", "data") if self.world.strategy == "hsdp" else "data"
        how = {"mesh": self.world.mesh[axes], "mp_policy": policy, "reshard_after_forward": True}
        for part in module.modules():
            if getattr(part, "keeps_precision", False):
                fully_shard(part, **how | {"mp_policy": MixedPrecisionPolicy()})
        for block in blocks_of(module):
            fully_shard(block, **how)
        fully_shard(module, **how)

    # -- a step --------------------------------------------------------------------------------------------------

    def accumulating(self, last: bool):
        """A context for one piece of a batch: gradients travel with the last one only."""
        if isinstance(self.wrapped, DistributedDataParallel):
            return contextlib.nullcontext() if last else self.wrapped.no_sync()
        if self.world.strategy in ("fsdp", "hsdp"):
            self.model.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def norm(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        """The norm of the whole gradient of these parameters, () in every process."""
        kept: list[Tensor] = []
        cut: list[Tensor] = []
        for p in parameters:
            if p.grad is not None:
                (cut if self.cuts and self.names[id(p)] in self.cuts else kept).append(p.grad)
        norm = whole(nn.utils.get_total_norm(kept))
        if self.world.tp > 1:
            parts = whole(nn.utils.get_total_norm(cut)).square().to(norm)
            dist.all_reduce(parts, group=self.world.mesh["tensor"].get_group())
            norm = (norm.square() + parts).sqrt()
        return norm

    # -- tensors that are spread -----------------------------------------------------------------------------------

    def boxes(self, key: str, tensor: Tensor) -> Boxes:
        """Of the tensor that `key`, ``model/<name>`` or ``optimizer/<name>/<what>``, stands for: what is here of it."""
        local, shape, at = here(tensor), list(tensor.shape), [0] * tensor.ndim
        if is_spread(tensor):
            from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

            _, at = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
        if local.numel() == 0:
            found = []
        else:
            found = [(tuple(at), local)]
        axis, parts = self.cuts.get(key.split("/")[1], (0, []))
        if not parts or tensor.ndim <= axis:
            return tuple(shape), found
        tp, rank = self.world.tp, self.world.rank % self.world.tp
        shape[axis], inside, outside, pieces = sum(parts), 0, 0, []
        for size in parts:  # of each part a process has one run, which FSDP may have cut again
            own = size // tp
            for place, values in found:
                low = max(inside, place[axis])
                high = min(inside + own, place[axis] + values.shape[axis])
                if low < high:
                    moved = list(place)
                    moved[axis] = outside + rank * own + low - inside
                    pieces.append((tuple(moved), values.narrow(axis, low - place[axis], high - low)))
            inside, outside = inside + own, outside + size
        return tuple(shape), pieces

    @torch.no_grad()
    def spread(self, tensors: dict[str, Tensor], start: dict[str, Tensor] | None) -> None:
        """Gives every process its part of what the leading one has in full in `start`, by name, one at a time."""
        for key, tensor in tensors.items():
            shape, parts = self.boxes(key, tensor)
            full = torch.empty(shape, dtype=tensor.dtype, device=self.world.device)
            if start is not None:
                full.copy_(start[key.partition("/")[2]])
            dist.broadcast(full, 0)
            for place, values in parts:
                values.copy_(full[_slices(place, values)])

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def state(self, optimizer, ema: Average | None) -> dict:
        """What a checkpoint holds of the tensors: state dicts, or where the model is sharded, boxes on the CPU."""
        if not self.world.sharded:
            average = ema.module.state_dict() if ema else None
            return {"model": self.model.state_dict(), "optimizer": optimizer.state_dict(), "ema": average}
        return {"boxes": self._copied(self._tensors(optimizer, ema))}

    def weights(self, shown: nn.Module) -> dict:
        """What a checkpoint of weights alone holds: of the model, or of its average."""
        weights = shown.state_dict()
        return self._copied({f"model/{k}": v for k, v in weights.items()}) if self.world.sharded else weights

    def load(self, saved, optimizer, ema: Average | None, source: str) -> None:
        """Goes on from a checkpoint (rundir/checkpoint.py), whatever the number of processes that wrote it.

        Raises:
            ValueError: it is of another model.
        """
        if isinstance(saved, checkpoint.Whole) and not self.world.sharded:
            state = saved.state()
            checkpoint.load_weights(self.model, state["model"], source)
            optimizer.load_state_dict(state["optimizer"])
            if ema and state["ema"]:
                ema.module.load_state_dict(state["ema"])
            return
        parts = [[p for g in part.param_groups for p in g["params"]] for part in _parts(optimizer)]
        flat = saved.flat([[self.names[id(p)] for p in part] for part in parts])
        of: dict[str, list[str]] = {}
        for key in flat.shapes:
            kind, name, *what = key.split("/")
            if kind == "optimizer":
                of.setdefault(name, []).append(what[0])
        for part, parameters in zip(_parts(optimizer), parts, strict=True):
            for p in parameters:
                name = self.names[id(p)]
                for what in of.get(name, []):
                    shape, dtype = flat.shapes[f"optimizer/{name}/{what}"]
                    like = shape == self.boxes(f"model/{name}", p)[0]
                    new = torch.zeros_like(p, dtype=dtype) if like else torch.zeros(shape, dtype=dtype, device=p.device)
                    part.state[p][what] = new.detach()
        self._fill(flat, self._tensors(optimizer, ema), source)

    def load_weights(self, weights: dict[str, Tensor], source: str) -> None:
        """Takes whole weights, which every process has; of a masked autoencoder those of its encoder.

        Raises:
            ValueError: they are of another model.
        """
        ours = {k: whole(v) if k.startswith("head.") else v for k, v in self.model.state_dict().items()}
        weights = checkpoint.encoder_of(weights, ours)
        if not self.world.sharded:
            return checkpoint.load_weights(self.model, weights, source)
        checkpoint.refuse_untied(ours, weights, source)
        flat = checkpoint.Flat({f"model/{k}": v for k, v in weights.items()})
        self._fill(flat, {f"model/{k}": v for k, v in self.model.state_dict().items()}, source)

    def _tensors(self, optimizer, ema: Average | None) -> dict[str, Tensor]:
        found = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        found |= {f"ema/{k}": v for k, v in ema.module.state_dict().items()} if ema else {}
        for part in _parts(optimizer):
            for p, state in part.state.items():
                at = f"optimizer/{self.names[id(p)]}"
                found |= {f"{at}/{k}": v for k, v in state.items() if isinstance(v, Tensor)}
        return found

    def _copied(self, tensors: dict[str, Tensor]) -> dict[str, Boxes]:
        boxes = {key: self.boxes(key, tensor) for key, tensor in tensors.items()}
        return {key: (shape, [(at, _on_cpu(values)) for at, values in parts]) for key, (shape, parts) in boxes.items()}

    @torch.no_grad()
    def _fill(self, flat, tensors: dict[str, Tensor], source: str) -> None:
        boxes = {key: self.boxes(key, tensor) for key, tensor in tensors.items()}
        theirs = {k: shape for k, (shape, _) in flat.shapes.items() if k in boxes or k.startswith("model/")}
        ours = {key: shape for key, (shape, _) in boxes.items()}
        wrong = [
            f"{key.partition('/')[2]} {theirs.get(key, 'missing')} there, {ours.get(key, 'unknown')} here"
            for key in sorted(ours.keys() | theirs.keys())
            if theirs.get(key) != ours.get(key)
        ]
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise ValueError(f"{source}: weights of another model or norm ({'; '.join(wrong[:3])}{more})")
        flat.read(boxes)


def _on_cpu(values: Tensor) -> Tensor:
    copied = torch.empty(values.shape, dtype=values.dtype)
    return copied.copy_(values.detach())


def _parts(optimizer) -> list[torch.optim.Optimizer]:
    return list(getattr(optimizer, "parts", [optimizer]))


def _slices(place: tuple[int, ...], values: Tensor) -> tuple[slice, ...]:
    return tuple(slice(at, at + size) for at, size in zip(place, values.shape, strict=True))


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """All that a model holds, by name: its state dict, and the buffers that a checkpoint leaves out."""
    return dict(module.named_buffers(remove_duplicate=False)) | module.state_dict()


def materialise(module: nn.Module, device: torch.device) -> None:
    """Gives parameters and buffers without values memory on `device`; a weight that two layers share stays one."""
    made: dict[int, Tensor] = {}
    for layer in module.modules():
        for held in (layer._parameters, layer._buffers):
            for name, old in held.items():
                if old is None or (old.device.type == device.type):
                    continue
                if id(old) not in made:
                    new = torch.empty_like(old, device=device, requires_grad=False)
                    made[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                held[name] = made[id(old)]
