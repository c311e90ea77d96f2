"""Recordings with labels, as windows of one length: longer ones are cut, shorter ones followed by silence."""

import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dyt.data.images import hold_out
from dyt.data.labels import numbered
from dyt.data.order import Order, Steps, derive, evenly, in_batches, loader
from dyt.data.recordings import Recordings, recordings_of, resampled, samples_in
from dyt.data.sources import locate
from dyt.data.spec import Spec

log = logging.getLogger(__name__)
KEEP_DECODED = 1 << 30  # bytes of samples kept in memory


class AudioData:
    """An audio set.

    Raises:
        ValueError: empty, unreadable, too short, or without the columns that the config names.
    """

    def __init__(self, data: dict, known: list[str] | None = None):
        self.data, rate = data, data["sample_rate"]
        self.window = round(data["seconds"] * rate)
        if data["seconds"] < data["min_seconds"]:
            raise ValueError(
                f"data.seconds={data['seconds']:g}: must be at least data.min_seconds={data['min_seconds']:g}"
            )
        source = locate(data)
        if data["source"] == "made" and source.builder == "tones":
            log.warning("data.source=made: espeak-ng is not installed, so these are tones shaped like vowels, no "
                        "speech; type data.path=<folder of wav files> for real recordings")  # fmt: skip
        self.splits = {s: _long_enough(r, s, data) for s, r in recordings_of(data, source).items() if len(r)}
        if "train" not in self.splits:
            raise ValueError(f"data.path={data['path']}: no training recordings")
        self.labels: dict[str, dict[str, np.ndarray]] = {}  # of each kind, label and speaker, and split
        names = self._number("label", known)
        self._number("speaker", None)
        if "val" not in self.splits:
            rows = self.splits["train"]
            of_rows = self.labels["label"]["train"] if names else np.zeros(len(rows), dtype=np.int64)
            for split, chosen in zip(("train", "val"), hold_out(of_rows, data["val_fraction"]), strict=True):
                self.splits[split] = rows.chosen(chosen)
                for values in self.labels.values():
                    values[f"{split} "] = values["train"][chosen]
            for values in self.labels.values():
                values |= {split: values.pop(f"{split} ") for split in ("train", "val")}
        sizes = {split: len(rows) for split, rows in self.splits.items()}
        shortest = min(int(rows.counts.min()) for rows in self.splits.values())
        self.spec = Spec(
            "audio", source.sha256, sizes, classes=len(names), names=tuple(names), rate=rate,
            shortest=min(shortest, self.window),
        )  # fmt: skip
        self.unit = "recordings"
        self.samples = sizes["train"]
        self.unit_per_sample = 1

    def _number(self, kind: str, known: list[str] | None) -> list[str]:
        """Numbers the labels of a kind where the recordings have them, two or more; returns their names."""
        import datasets

        given = {split: getattr(rows, f"{kind}s") for split, rows in self.splits.items()}
        if any(values is None for values in given.values()) or len(set().union(*given.values()) - {None}) < 2:
            return []
        tables = {split: datasets.Dataset.from_dict({kind: values}) for split, values in given.items()}
        self.labels[kind], names = numbered(tables, kind, self.data, known, new=kind == "speaker")
        return names

    def train_batches(self, order: Order, start: int, stop: int) -> DataLoader:
        """((waves (B, L) float32, lengths (B,) int64), labels (B,) int64) for the steps from `start` to `stop`."""
        return loader(Windows(self, "train", order.seed), Steps(order, start, stop), self.data)

    def eval_batches(self, split: str, rank: int = 0, world: int = 1, limit: int | None = None) -> Iterator[tuple]:
        """The whole split in order, each recording once over all ranks; with a limit evenly chosen ones."""
        batches = in_batches(len(self.splits[split]), self.data["eval_batch_size"], limit)
        keys = [[(0, i) for i in rows] for rows in batches[rank::world]]
        yield from loader(Windows(self, split, None), keys, self.data)

    def evenly(self, split: str, most: int) -> tuple[np.ndarray, Iterator[tuple]]:
        """Places in a split of at most so many recordings, evenly chosen, and their batches."""
        size, chosen = self.data["eval_batch_size"], evenly(len(self.splits[split]), most)
        batches = [[(0, i) for i in chosen[at : at + size]] for at in range(0, len(chosen), size)]
        return np.array(chosen), iter(loader(Windows(self, split, None), batches, self.data))

    def some(self, split: str, most: int) -> tuple:
        """One batch of at most so many samples of a split, evenly chosen."""
        rows = [[(0, i) for i in evenly(len(self.splits[split]), most)]]
        return next(iter(loader(Windows(self, split, None), rows, self.data)))


def _long_enough(rows: Recordings, split: str, data: dict) -> Recordings:
    """`rows` with their numbers of samples at the rate that the model gets.

    Raises:
        ValueError: one is shorter than ``data.min_seconds``, and ``data.on_error`` is not skip.
    """
    counted = [samples_in(cell, rows.name(i), data) for i, cell in enumerate(rows.cells)]
    rates = sorted({rate for rate, _ in counted} - {data["sample_rate"]})
    if rates:
        log.warning(
            "%s: recordings of %s samples a second are resampled to data.sample_rate=%d",
            split, ", ".join(map(str, rates)), data["sample_rate"],
        )  # fmt: skip
    counts = np.array([resampled(count, rate, data["sample_rate"]) for rate, count in counted])
    short = np.flatnonzero(counts < data["min_seconds"] * data["sample_rate"])
    if len(short) and data["on_error"] != "skip":
        raise ValueError(
            f"{rows.name(short[0])}: lasts {counts[short[0]] / data['sample_rate']:.3g} s, and "
            f"data.min_seconds={data['min_seconds']:g}; data.on_error=skip leaves shorter ones out and counts them"
        )
    rows.counts = counts
    if len(short):
        log.warning("%s: %d recordings shorter than %g s left out", split, len(short), data["min_seconds"])
        rows = rows.chosen(np.flatnonzero(counts >= data["min_seconds"] * data["sample_rate"]))
    return rows


class Windows(Dataset):
    """One split's windows. Where a window of a longer recording lies is a function of (seed, epoch, index)."""

    def __init__(self, owner: AudioData, split: str, seed: int | None):
        self.rows, self.window, self.seed, self.data = owner.splits[split], owner.window, seed, owner.data
        none = np.full(len(self.rows), -1, dtype=np.int64)
        self.labels = owner.labels.get("label", {}).get(split, none)
        self.decoded: dict[int, np.ndarray] = owner.__dict__.setdefault("decoded", {}).setdefault(split, {})

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        waves, lengths = np.zeros((len(keys), self.window), dtype=np.float32), []
        for row, (epoch, index) in zip(waves, keys, strict=True):
            samples = self._samples(index)
            spare, begin = len(samples) - self.window, 0
            if spare > 0 and self.seed is not None:
                begin = derive(self.seed, "sample", epoch, index) % (spare + 1)
            samples = samples[begin : begin + self.window]
            if self.data["normalize"]:
                samples = (samples - samples.mean()) / (samples.std() + 1e-7)
            row[: len(samples)] = samples
            lengths.append(len(samples))
        labels = torch.tensor([int(self.labels[index]) for _, index in keys])
        return (torch.from_numpy(waves), torch.tensor(lengths)), labels

    def _samples(self, index: int) -> np.ndarray:
        found = self.decoded.get(index)
        if found is None:
            found = self.rows.read(index, self.data)
            if (len(self.decoded) + 1) * found.nbytes <= KEEP_DECODED:
                self.decoded[index] = found
        return found
