"""torchrun and what it needs: who am I, add up over all, only one writes."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from dyt.tasks import each


@dataclass(frozen=True)
class World:
    """This process among those of a run."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        """Element-wise sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def moved(self, batch):
        """A batch, a tensor or a tuple of batches, on this process's device."""
        return each(batch, lambda part: part.to(self.device, non_blocking=True))

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


def join(device: str) -> World:
    """Joins torchrun's processes, if that is how this one was started.

    Raises:
        ValueError: ``trainer.device=cuda`` where torch sees no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda: torch sees no GPU here; type cpu in its place")
    cuda = torch.cuda.is_available() and device != "cpu"
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return World(place, rank, size)


def leave() -> None:
    """Leaves the group, if this process is in one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
