"""Shards of token ids as a data set, nanoGPT's files too, and several sets in shares."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from dyt.data import shards
from dyt.data.cache import kept
from dyt.data.sources import Source, cache_dir, locate
from dyt.data.spec import Spec
from dyt.data.text import Tokens, Windows, in_order, paired
from dyt.data.tokenizer import Tokenizer

SCAN = 1 << 24  # ids that are looked through at once
GPT2 = 50257


class Row(Sequence):
    """Arrays of ids as if they were one. Slices are copies where they cross an end."""

    def __init__(self, parts: list[np.ndarray]):
        self.parts = [part for part in parts if len(part)]
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1]) if self.parts else 0

    def __getitem__(self, at: slice) -> np.ndarray:
        start, stop, _ = at.indices(len(self))
        found = [part[max(0, start - off) : stop - off] for off, part in self._from(start, stop)]
        return found[0] if len(found) == 1 else np.concatenate([np.empty(0, np.uint16), *found])

    def _from(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        first = int(np.searchsorted(self.ends, start, side="right"))
        for i in range(first, len(self.parts)):
            if (off := int(self.ends[i]) - len(self.parts[i])) >= stop:
                return
            yield off, self.parts[i]

    def cut(self, start: int, stop: int) -> "Row":
        """A stretch of it, without reading it."""
        return Row([part[max(0, start - off) : stop - off] for off, part in self._from(start, stop)])


class Opened:
    """One folder: its splits as rows of ids, and the tokenizer that made them.

    Raises:
        ValueError, OSError: missing or damaged shards, or ids beyond the vocabulary.
    """

    def __init__(self, data: dict, source: Source, name: str | None):
        folder, index = shards.folder_of(data, name), shards.read_index(data, name)
        parts = (source.sha256, source.stamp, str(folder.absolute()), data["verify"], "v1")
        key = f"data.path={folder}"
        if index is None:
            _, files = shards.files_of(data, name)
            dtype = "<u2"
            about = kept(cache_dir(data) / "ids", parts, lambda _: {"largest": _largest(files)})[1]
            self.tokenizer = _of_ids(data, about["largest"] + 1, key)
        else:
            files = {s: [folder / shard["file"] for shard in of["shards"]] for s, of in index["splits"].items()}
            dtype = np.dtype(index["dtype"]).newbyteorder("<")
            if data["verify"]:
                kept(cache_dir(data) / "ids", parts, lambda _: shards.refuse_damaged(folder, index) or {})
            text = (folder / shards.TOKENIZER).read_text() if index["tokenizer"]["kind"] == "json" else ""
            self.tokenizer = Tokenizer(index["tokenizer"]["kind"], text=text)
            if data["tokenizer"] not in (None, self.tokenizer.kind):
                raise ValueError(f"data.tokenizer={data['tokenizer']}: {key} was made with "
                                 f"{self.tokenizer.kind}; leave data.tokenizer out")  # fmt: skip
            if data["vocab"] is not None:
                raise ValueError(
                    f"data.vocab={data['vocab']}: {key} says itself that it has {self.tokenizer.vocab_size} tokens; "
                    "leave data.vocab out, or type model.vocab_size"
                )
        self.tokens = {s: Row([np.memmap(f, dtype=dtype, mode="r") for f in group]) for s, group in files.items()}
        if "train" not in self.tokens:
            raise ValueError(f"{key}: has no split train")
        if "val" not in self.tokens:
            whole, fraction = self.tokens["train"], data["val_fraction"]
            if not 0 < fraction < 1:
                raise ValueError(f"data.val_fraction={fraction}: must be between 0 and 1, since {key} has no "
                                 "validation split")  # fmt: skip
            keep = int(len(whole) * (1 - fraction))
            self.tokens |= {"train": whole.cut(0, keep), "val": whole.cut(keep, len(whole))}


def _largest(files: dict[str, list[Path]]) -> int:
    arrays = [np.memmap(file, dtype="<u2", mode="r") for group in files.values() for file in group]
    return max(int(a[i : i + SCAN].max()) for a in arrays for i in range(0, len(a), SCAN))


def _of_ids(data: dict, needed: int, key: str) -> Tokenizer:
    """The tokenizer of ids that come without one: what ``data.tokenizer`` or ``data.vocab`` says, else ids alone."""
    if data["tokenizer"] is not None:
        tokenizer = Tokenizer.named(data["tokenizer"])
    elif data["vocab"] is None and GPT2 - 257 < needed <= GPT2:  # GPT-2's, of which rare tokens may not occur
        return Tokenizer("ids", size=GPT2)
    else:
        tokenizer = Tokenizer("ids", size=needed if data["vocab"] is None else data["vocab"])
    if tokenizer.vocab_size < needed:
        word = "data.vocab" if data["tokenizer"] is None else "data.tokenizer"
        raise ValueError(f"{word}={data[word[5:]]}: {key} holds the id {needed - 1}, and that vocabulary has "
                         f"{tokenizer.vocab_size}; type data.vocab={needed}, or more")  # fmt: skip
    return tokenizer


class ShardData(Tokens):
    """``data=shards``: one folder, or with ``data.mix`` several in shares.

    Raises:
        ValueError, OSError: missing or damaged shards, sets of different tokenizers, or less than two windows.
    """

    def __init__(self, data: dict, context: int, known: str | None = None):
        source = locate(data)
        mix = data["mix"] or {}
        opened = [Opened(data, source, name) for name in mix or [None]]
        self.parts = [part.tokens for part in opened]
        self.shares = list(mix.values()) or [1.0]
        first = opened[0].tokenizer
        for name, part in zip(mix, opened, strict=False):
            if part.tokenizer.to_json() != first.to_json():
                raise ValueError(f"data.mix: {next(iter(mix))} and {name} were made with different tokenizers")
        if known not in (None, first.kind):
            raise ValueError(
                f"init_from: its weights know {known} tokens, and data.path={data['path']} holds {first.kind}"
            )
        if data["train_tokens"]:
            if mix:
                raise ValueError("data.train_tokens is of one set; leave it out with data.mix")
            self.parts[0]["train"] = self.parts[0]["train"].cut(0, data["train_tokens"])
        super().__init__(data, context, first, dict(self.parts[0]), source.sha256)
        if mix:
            for name, tokens in zip(mix, self.parts, strict=True):
                short = next((s for s in ("train", "val") if len(tokens[s]) < 2 * context), None)
                if short:
                    raise ValueError(
                        f"data.mix: {name} has less {short} text than two windows of model.context={context}"
                    )
            splits = {s for tokens in self.parts for s in tokens}
            sizes = {s: sum(len(t[s]) for t in self.parts if s in t) for s in ("train", "val", "test") if s in splits}
            self.spec = Spec("text", source.sha256, sizes, vocab_size=first.vocab_size)
            self.samples = self.windows(0).size

    def windows(self, seed: int):
        """The training samples: with ``data.mix`` an epoch has of each set its share."""
        made = [
            Windows(tokens["train"], self.context, seed)
            for tokens in (self.parts if self.data["mix"] else [self.tokens])
        ]
        return Mixture(made, self.shares) if self.data["mix"] else made[0]

    def eval_batches(
        self, split: str, rank: int = 0, world: int = 1, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The split of every set, one after the other, every token but a set's first predicted once.

        With a limit the sets take turns, so that each has its batches.
        """
        sets = [t[split] for t in self.parts if split in t] if self.data["mix"] else [self.tokens[split]]
        each = [in_order(tokens, self.context, self.data["eval_batch_size"]) for tokens in sets]
        batches = itertools.chain(*each) if limit is None else in_turn(each)
        for rows in itertools.islice(batches, rank, limit, world):
            yield paired(rows())


def in_turn(sources: list[Iterator]) -> Iterator:
    """One of each, again and again; a source that has ended is passed over."""
    nothing = object()
    return (x for row in itertools.zip_longest(*sources, fillvalue=nothing) for x in row if x is not nothing)


class Mixture:
    """Windows of several sets. An epoch has of each set its share of windows, and ends where the set that is scarcest
    for its share has been seen once; a set that has more goes on from there in the next epoch.
    """

    def __init__(self, parts: list[Windows], shares: list[float]):
        self.parts = parts
        total = sum(shares)
        whole = min(part.size * total / share for part, share in zip(parts, shares, strict=True))
        self.counts = [max(1, int(whole * share / total + 1e-9)) for share in shares]
        self.ends = np.cumsum(self.counts)
        self.size = int(self.ends[-1])

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Inputs and targets, (B, T) each, int64."""
        return paired([self.row(*key) for key in keys])

    def row(self, epoch: int, index: int) -> np.ndarray:
        """One sample: of the set whose stretch of the epoch `index` falls into, its next window in turn."""
        i = int(np.searchsorted(self.ends, index, side="right"))
        place = epoch * self.counts[i] + index - (int(self.ends[i]) - self.counts[i])
        return self.parts[i].row(*divmod(place, self.parts[i].size))
