"""The order of samples: a function of (seed, step), never of what ran before."""

import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dyt.data.ahead import each


def derive(*parts) -> int:
    """A seed from anything printable: ``derive(seed, "step", 12)``; 63 bits."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def seed_all(*parts) -> None:
    """Seeds torch, numpy and random. Done anew for each step and sample, so that no state needs to be saved."""
    seed = derive(*parts)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed, which seeds every backend, takes 0.12 ms
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


class Order:
    """Which samples make which step: each epoch is one permutation, its last incomplete batch left out.

    Args:
        size: samples in an epoch.
        batch: samples of one optimizer step, over all ranks and pieces.
        pieces: parts a rank computes its share in (gradient accumulation).
        rank, world: this process and their number.
        paired: in a step the first sample goes with the last, the second with the last but one, and so on: no piece
            parts a pair, and each holds its own in the order that the whole step has.

    Raises:
        ValueError: the batch is larger than the set, or does not divide; paired, a piece is odd.
    """

    def __init__(
        self, size: int, batch: int, seed: int, pieces: int = 1, rank: int = 0, world: int = 1, *, paired: bool = False
    ):
        if batch > size:
            raise ValueError(f"data.batch_size={batch} is larger than the training set ({size}); make it smaller")
        if batch % (pieces * world):
            raise ValueError(
                f"data.batch_size={batch} must be divisible by trainer.accumulate x processes = {pieces} x {world}"
            )
        self.size, self.batch, self.seed, self.pieces, self.rank, self.world = size, batch, seed, pieces, rank, world
        self.steps_per_epoch = size // batch
        self.share = batch // (pieces * world)  # samples of one piece of this rank
        self.paired = paired
        if paired and self.share % 2:
            raise ValueError(
                f"data.batch_size={batch} in {pieces} x {world} pieces of {self.share}: mixup and cutmix need an even "
                "one; change data.batch_size, trainer.accumulate or trainer.micro_batch"
            )
        self._epoch, self._permutation = -1, None

    def first(self, piece: int) -> int:
        """The place in a step's batch of the first sample of this rank's piece."""
        return (piece * self.world + self.rank) * self.share

    def of_step(self, step: int) -> list[list[tuple[int, int]]]:
        """This rank's pieces of step `step` (from 0), each a list of (epoch, index)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
            self._epoch, self._permutation = epoch, torch.randperm(self.size, generator=generator).numpy()
        chosen = self._permutation[place * self.batch : (place + 1) * self.batch]
        if self.paired:
            first, second = np.split(chosen, 2)
            halves = first.reshape(-1, self.share // 2), second.reshape(-1, self.share // 2)[::-1]
            parts = np.concatenate(halves, axis=1)
        else:
            parts = np.split(chosen, self.pieces * self.world)
        return [[(epoch, int(i)) for i in parts[p * self.world + self.rank]] for p in range(self.pieces)]


def pieces_of(batch: int, ranks: int, micro_batch: int | None, *, paired: bool = False) -> int | None:
    """In how many pieces a rank computes its share of a batch, none larger than `micro_batch`; None where that is.

    Args:
        batch: samples of one optimizer step, over all ranks.
        ranks: processes that share them.
        micro_batch: samples at once.
        paired: as in `Order`, whose pieces then have an even number of samples.

    Raises:
        ValueError: the batch does not divide by the ranks.
    """
    if micro_batch is None:
        return None
    if batch % ranks:
        raise ValueError(f"data.batch_size={batch} must be divisible by the {ranks} processes")
    share = batch // ranks
    fitting = (n for n in range(-(-share // micro_batch), share + 1) if share % (2 * n if paired else n) == 0)
    return next(fitting, share)  # none where they cannot be even, which `Order` refuses


class Steps:
    """A batch sampler for ``DataLoader``: the pieces of steps `start` to `stop`, in order."""

    def __init__(self, order: Order, start: int, stop: int):
        self.order, self.start, self.stop = order, start, stop

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.stop):
            yield from self.order.of_step(step)

    def __len__(self) -> int:
        return (self.stop - self.start) * self.order.pieces


def evenly(count: int, most: int) -> list[int]:
    """At most so many of `count` rows, evenly chosen: rows may stand sorted by class."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def in_batches(count: int, size: int, limit: int | None = None) -> list[list[int]]:
    """All rows of a split in order, in batches of `size`; with a limit so many batches of evenly chosen rows."""
    rows = list(range(count)) if limit is None else evenly(count, limit * size)
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def some(data, split: str, most: int):
    """One batch of at most so many samples of a split: evenly chosen where the data can, else the first."""
    if hasattr(data, "some"):
        return data.some(split, most)
    return each(next(iter(data.eval_batches(split, limit=1))), lambda part: part[:most])


def loader(dataset: Dataset, batches, data: dict) -> DataLoader:
    """Batches of `dataset` (its ``__getitems__``), by as many processes as a config's data part asks for."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=data["workers"],
        timeout=data["timeout"] if data["workers"] else 0,
        pin_memory=torch.cuda.is_available(),
    )


def _as_it_is(batch):
    return batch
