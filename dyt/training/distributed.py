"""The processes of a run: who am I, add up over all, only one writes, and what becomes of them when one dies."""

import functools
import itertools
import os
import sys
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dyt.data.ahead import each
from dyt.rundir import processes
from dyt.training.faults import say

STRATEGIES = ("auto", "single", "ddp", "fsdp", "hsdp")
BEAT, MISSED = 2.0, 20  # seconds between signs of life; so many missed ones are a death: 40 s
ALONE = timedelta(days=1)  # for which the others wait for what the leading process does alone, as at a run's end
_runs = itertools.count()
_left = threading.Event()
_beating: threading.Thread | None = None


@dataclass(frozen=True)
class World:
    """This process among those of a run.

    ``tp`` neighbouring ones hold one copy of the model together; `mesh` has them on its last axis, ``tensor``, and the
    copies on the axes before it: ``data``, or for hsdp ``machine`` and ``data``. `waiting` is a group of all of them.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    strategy: str = "single"  # or ddp, fsdp, hsdp
    tp: int = 1
    mesh: Any = None
    waiting: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether no process has the whole model."""
        return self.tp > 1 or self.strategy in ("fsdp", "hsdp")

    @property
    def data_rank(self) -> int:
        """Which share of a batch is this process's: those that hold a model together see the same samples."""
        return self.rank // self.tp

    @property
    def data_size(self) -> int:
        return self.size // self.tp

    def add(self, values: Tensor) -> Tensor:
        """Element-wise sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def moved(self, batch):
        """A batch, a tensor or a tuple of batches, on this process's device."""
        return each(batch, lambda part: part.to(self.device, non_blocking=True))

    def wait(self) -> None:
        """Until all are here, be it hours. Over gloo: one that fails in the meantime ends it at once."""
        if self.size > 1:
            dist.barrier(group=self.waiting)

    def shared(self, value):
        """The leading process's `value`, any plain object, in all of them."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def in_step(self, batches, idle):
        """`batches` for a sharded model, which all processes run or none: `idle` runs it while others have more."""
        batches = iter(batches)
        while True:
            batch = next(batches, None)
            if not self.add(torch.tensor(float(batch is not None), device=self.device)):
                return
            if batch is None:
                idle()
            else:
                yield batch


def join(device: str, strategy: str = "auto", tp: int = 1) -> World:
    """Joins the processes that torchrun or srun started, if that is how this one was started.

    Raises:
        ValueError: ``trainer.device=cuda`` where torch sees no GPU, or a strategy that does not fit the processes.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda: torch sees no GPU here; type cpu in its place")
    at = processes.place()
    strategy = _fitting(strategy, tp, at)
    cuda = torch.cuda.is_available() and device != "cpu"
    where = torch.device("cuda", at.local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(where)
    if at.size == 1 and strategy == "single":
        return World(where)
    if not dist.is_initialized():
        processes.meeting_point()
        store = _store(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"], at.rank, at.size)
        name = f"run{next(_runs)}"  # what the last run left in the store is not for this one
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=dist.PrefixStore(name, store), rank=at.rank, world_size=at.size)
        _watch(dist.PrefixStore(name, store.clone()), at.rank, at.size)
    from torch.distributed.device_mesh import init_device_mesh

    axes = {"data": at.size // tp, "tensor": tp}
    if strategy == "hsdp":
        axes = {"machine": at.size // at.per_machine, "data": at.per_machine // tp, "tensor": tp}
    mesh = init_device_mesh(where.type, tuple(axes.values()), mesh_dim_names=tuple(axes))
    waiting = dist.new_group(backend="gloo", timeout=ALONE)  # a step that hangs still ends after torch's own minutes
    return World(where, at.rank, at.size, strategy, tp, mesh, waiting)


@functools.lru_cache(maxsize=1)
def _store(address: str, port: str, rank: int, size: int):
    """Where the processes meet. Kept for the next run: who opens it anew at the same place may still find the old one,
    which ends as the leading process leaves it.
    """
    return next(dist.rendezvous("env://", rank=rank, world_size=size, timeout=timedelta(minutes=10)))[0]


def _fitting(strategy: str, tp: int, at: processes.Place) -> str:
    """What ``auto`` means here.

    Raises:
        ValueError: it does not go with the processes that there are.
    """
    start = f"start it with torchrun --nproc-per-node {max(2, tp)} train.py ... or srun"
    if not at.launched and (strategy in ("ddp", "fsdp", "hsdp") or tp > 1):
        asked = f"trainer.tp={tp}" if tp > 1 else f"trainer.strategy={strategy}"
        raise ValueError(f"{asked}: this is one process, started alone; {start}, or type trainer.strategy=auto")
    if strategy == "single" and at.size > 1:
        raise ValueError(f"trainer.strategy=single: these are {at.size} processes; start it as python train.py ...")
    if at.size % tp:
        raise ValueError(f"trainer.tp={tp}: does not divide the {at.size} processes; type one that does")
    if strategy == "hsdp":
        if at.size <= at.per_machine or at.size % at.per_machine:
            raise ValueError(
                f"trainer.strategy=hsdp: needs several machines with equally many processes; these are {at.size}, "
                f"{at.per_machine} a machine; type trainer.strategy=fsdp"
            )
        if at.per_machine % tp:
            raise ValueError(f"trainer.tp={tp}: does not divide the {at.per_machine} processes of a machine")
    if strategy == "auto":
        return "ddp" if at.size > 1 else "single"
    return strategy


def _watch(store, rank: int, size: int) -> None:
    """From now on this process shows that it lives, and ends within a minute when its neighbour no longer does.

    Over gloo a death is seen at once. NCCL, and a machine that is gone, may keep the others waiting for half an hour.
    Beats are counted, not timed, so that a job that is suspended as a whole goes on.
    """
    global _beating
    _left.clear()
    key, beside = f"dyt/alive/{rank}", f"dyt/alive/{(rank + 1) % size}"
    processes.first_to_fail = lambda: _first(store, rank)

    def beat():
        count, seen, missed = 0, None, 0
        while not _left.wait(BEAT):
            count += 1
            try:
                store.set(key, str(count))
                now = store.get(beside) if store.check([beside]) else None
            except Exception:  # the process that keeps the store is gone
                now = seen
            missed = missed + 1 if now == seen and now != b"left" else 0
            seen = now
            if missed >= MISSED:
                say(f"process {rank}: process {(rank + 1) % size} of this run is gone; the same command goes on "
                    "from the last checkpoint", file=sys.stderr)  # fmt: skip
                os._exit(1)
        try:
            store.set(key, "left")
        except Exception:
            pass

    _beating = threading.Thread(target=beat, daemon=True)
    _beating.start()


def _first(store, rank: int) -> bool:
    try:
        return store.compare_set("dyt/failed", "", str(rank)) == str(rank).encode()
    except Exception:
        return True


def leave() -> None:
    """Leaves the group, if this process is in one."""
    global _beating
    if _beating is not None:
        _left.set()
        _beating.join(5)
        _beating = None
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
