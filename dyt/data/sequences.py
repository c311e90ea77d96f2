"""Labelled sequences of bases, as long as the model's context; what is shorter is filled up with N."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dyt.data import made_dna
from dyt.data.bases import SIZE, UNKNOWN, complemented, records
from dyt.data.chromosomes import Places, places
from dyt.data.coding import BLOCK, NAMES, pieces
from dyt.data.order import Order, Steps, derive, evenly, in_batches, loader
from dyt.data.spec import Spec

SPLITS = ("train", "val", "test")


class SequenceData:
    """A set of labelled sequences.

    Raises:
        ValueError, OSError: no sequence, a single class, one longer than the context, or a letter that is no base.
    """

    unit, counts = "tokens", "sequences"  # what training is counted in, and what a split's size is

    def __init__(self, data: dict, context: int, known: list[str] | None = None):
        self.data, self.context = data, context
        found = places(data)
        sequences, labels, names, splits = _read(data, found, context)
        if known and not set(names) <= set(known):
            other = sorted(set(names) - set(known))[0]
            raise ValueError(f"data={data['name']}: the class {other} is none of those that the weights know: "
                             f"{', '.join(known)}")  # fmt: skip
        if known:
            labels, names = np.array([known.index(name) for name in names])[labels], known
        self.of = {
            s: (sequences[splits == i], labels[splits == i]) for i, s in enumerate(SPLITS) if (splits == i).any()
        }
        for split in ("train", "val"):
            if split not in self.of:
                raise ValueError(f"data.val_fraction={data['val_fraction']}: leaves no sequence for {split}")
        sizes = {split: len(labels) for split, (_, labels) in self.of.items()}
        self.spec = Spec("sequence", found.sha256, sizes, classes=len(names), vocab_size=SIZE, names=tuple(names))
        self.samples, self.unit_per_sample = sizes["train"], context

    def train_batches(self, order: Order, start: int, stop: int) -> DataLoader:
        """(bases (B, T), classes (B,)), int64, for the steps from `start` to `stop`."""
        rows = Rows(*self.of["train"], self.data["reverse_complement"], order.seed)
        return loader(rows, Steps(order, start, stop), self.data)

    def eval_batches(
        self, split: str, rank: int = 0, world: int = 1, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole split in order, each sequence once over all ranks; with a limit evenly chosen ones."""
        rows = Rows(*self.of[split], 0.0, 0)
        for batch in in_batches(len(rows.labels), self.data["eval_batch_size"], limit)[rank::world]:
            yield rows.__getitems__([(0, i) for i in batch])

    def some(self, split: str, most: int) -> tuple[Tensor, Tensor]:
        """One batch of at most so many samples of a split, evenly chosen."""
        rows = Rows(*self.of[split], 0.0, 0)
        return rows.__getitems__([(0, i) for i in evenly(len(rows.labels), most)])


class Rows(Dataset):
    """A split; whether a sample is read on the other strand is a function of (seed, epoch, index)."""

    def __init__(self, sequences: np.ndarray, labels: np.ndarray, turned: float, seed: int):
        self.sequences, self.labels, self.turned, self.seed = sequences, labels, turned, seed

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        chosen = [index for _, index in keys]
        bases = self.sequences[chosen].astype(np.int64)
        for row, (epoch, index) in zip(bases, keys, strict=True):
            if self.turned and derive(self.seed, "strand", epoch, index) % 10**6 < self.turned * 10**6:
                size = len(row) - int((row[::-1] != UNKNOWN).argmax())  # what is filled up stays at the end
                row[:size] = complemented(row[:size])
        return torch.from_numpy(bases), torch.from_numpy(self.labels[chosen].astype(np.int64))


def _read(data: dict, found: Places, context: int) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """(sequences (N, context), labels (N,), names, split (N,) by `SPLITS`)."""
    if found.classes:
        return _of_files(data, found, context)
    if (length := data["length"]) > context:
        raise ValueError(f"data.length={length}: more bases than model.context={context}; type model.context={length}")
    if found.files:
        rows, labels, where = pieces(*found.files, length, data["pieces"])
        period = max(2, round(1 / data["val_fraction"]))
        blocks = where // BLOCK % period
        splits = np.select([blocks == 0, blocks == period // 2], [1, 2], 0)
    else:
        rows, coding = made_dna.pieces(length, data["pieces"] or 2000)
        labels = np.where(coding, 0, 1)
        splits = _held_out(labels, np.zeros(len(labels), dtype=int), data["val_fraction"])
    filled = np.full((len(rows), context), UNKNOWN, dtype=np.uint8)
    filled[:, :length] = rows
    return filled, labels, list(NAMES), splits


def _of_files(data: dict, found: Places, context: int):
    names = sorted(set(found.classes))
    rows, labels, splits = [], [], []
    for file, split, name in zip(found.files, found.splits, found.classes, strict=True):
        for place, sequence in records(Path(file)):
            if len(sequence) > context:
                raise ValueError(
                    f"data.path={data['path']}: {place}: a sequence of {len(sequence)} bases, more than "
                    f"model.context={context}; type model.context={len(sequence)} or more"
                )
            rows.append(np.frombuffer(sequence.ljust(context, bytes([UNKNOWN])), dtype=np.uint8))
            labels.append(names.index(name))
            splits.append(SPLITS.index(split))
    if len(set(labels)) < 2:
        raise ValueError(f"data.path={data['path']}: found {len(set(labels))} class of sequences, {', '.join(names)}; "
                         "a classifier needs two: a file or a folder for each")  # fmt: skip
    labels, splits = np.array(labels), np.array(splits)
    return np.stack(rows), labels, names, _held_out(labels, splits, data["val_fraction"])


def _held_out(labels: np.ndarray, splits: np.ndarray, share: float) -> np.ndarray:
    """Splits, with a share of each class taken from training for validation where it is missing; for the test too where
    the set names no splits.
    """
    from dyt.data.images import hold_out

    splits, named = splits.copy(), splits.any()
    takes = [] if (splits == 1).any() else [(1, share)]
    takes += [] if named else [(2, share / (1 - share))]  # of what is left
    for split, part in takes:
        rest = np.flatnonzero(splits == 0)
        splits[rest[hold_out(labels[rest], part)[1]]] = split
    return splits
