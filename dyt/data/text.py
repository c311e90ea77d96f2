"""Text as tokens: read once, tokenized once, kept as a memory map keyed by content."""

import itertools
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dyt.data.cache import kept
from dyt.data.documents import check_encoding, documents, texts
from dyt.data.order import Order, Steps, derive, loader, seed_all
from dyt.data.sources import Source, cache_dir, locate, refuse_changed
from dyt.data.spec import Spec
from dyt.data.tables import hub_table
from dyt.data.tokenizer import Tokenizer

log = logging.getLogger(__name__)
BY_LETTER = ("byte", "char")  # tokenizers to which it is the same whether lines come one by one
PIECE = 1 << 20  # letters that another one gets at once


class Windows:
    """Windows of `context` + 1 tokens, overlapping in one; sample i of epoch e starts at offset(e) + i context."""

    def __init__(self, tokens: Sequence, context: int, seed: int):
        self.tokens, self.context, self.seed = tokens, context, seed
        self.size = max(0, (len(tokens) - context) // context)

    def row(self, epoch: int, index: int) -> np.ndarray:
        """The `context` + 1 tokens of one sample."""
        at = index * self.context + derive(self.seed, "offset", epoch) % self.context
        return self.tokens[at : at + self.context + 1]

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Inputs and targets, (B, T) each, int64."""
        return paired([self.row(*key) for key in keys])


def paired(rows: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """(B, T) inputs and targets, the targets one token later, of rows of T + 1 tokens."""
    both = torch.from_numpy(np.stack(rows).astype(np.int64))  # (B, T + 1)
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()


class Tokens:
    """Splits of token ids as windows; what gives them is a class below it.

    Raises:
        ValueError: less text than two windows.
    """

    unit = "tokens"

    def __init__(self, data: dict, context: int, tokenizer: Tokenizer, tokens: dict[str, Sequence], sha256: str):
        self.data, self.context, self.tokenizer, self.tokens = data, context, tokenizer, tokens
        for split in ("train", "val"):
            have = len(self.tokens.get(split, ()))
            if have < 2 * context:
                raise ValueError(
                    f"data={data['name']}: its {split} text has {have} tokens, less than two windows of "
                    f"model.context={context}; use more text or a smaller context"
                )
        sizes = {split: len(tokens) for split, tokens in self.tokens.items()}
        self.spec = Spec("text", sha256, sizes, vocab_size=tokenizer.vocab_size)
        self.samples = (sizes["train"] - context) // context
        self.unit_per_sample = context

    def windows(self, seed: int):
        """The training samples."""
        return Windows(self.tokens["train"], self.context, seed)

    def train_batches(self, order: Order, start: int, stop: int) -> DataLoader:
        """(inputs, targets), each (B, T) int64, for the steps from `start` to `stop`."""
        return loader(self.windows(order.seed), Steps(order, start, stop), self.data)

    def eval_batches(
        self, split: str, rank: int = 0, world: int = 1, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole split in order, every token but the first predicted once; the last window may be short."""
        batches = in_order(self.tokens[split], self.context, self.data["eval_batch_size"])
        for rows in itertools.islice(batches, rank, limit, world):
            yield paired(rows())


def in_order(tokens: Sequence, length: int, size: int) -> Iterator[Callable[[], list[np.ndarray]]]:
    """What reads each batch of `size` windows of a split, and last the short one."""
    starts = range(0, len(tokens) - length, length)
    for i in range(0, len(starts), size):
        yield lambda at=starts[i : i + size]: [tokens[s : s + length + 1] for s in at]
    if rest := (len(tokens) - 1) % length:
        yield lambda: [tokens[len(tokens) - 1 - rest :]]


class TextData(Tokens):
    """A text set as token windows.

    Raises:
        ValueError: no text, or less of it than two windows.
    """

    def __init__(self, data: dict, context: int, chars: str | None = None):
        source = locate(data)
        folder, meta = _tokenized(data, source, chars if data["tokenizer"] == "char" else None)
        for split, (absent, blank) in meta.get("left_out", {}).items():
            log.warning("%s: %d rows without text left out, %d empty ones add no token", split, absent, blank)
        tokenizer = Tokenizer(**meta["tokenizer"])
        tokens = {
            split: np.memmap(folder / f"{split}.bin", dtype=tokenizer.dtype, mode="r")
            for split, count in meta["tokens"].items()
            if count
        }
        if data["train_tokens"]:
            tokens["train"] = tokens["train"][: data["train_tokens"]]
        super().__init__(data, context, tokenizer, tokens, source.sha256)


def _tokenized(data: dict, source: Source, given: str | None) -> tuple[Path, dict]:
    """The folder of the token cache, made when it is not there or not whole, and what it says of itself."""
    check_encoding(data.get("encoding"))
    parts = (source.sha256, source.stamp, data["tokenizer"], data["text_key"], data["val_fraction"], given, "v2")
    parts += (data.get("encoding"), data.get("on_error") == "skip")
    # Once text files were encoded line by line.
    parts += ("joined",) if source.builder == "text" and data["tokenizer"] not in BY_LETTER else ()
    if source.builder == "text" and any(len(files) > 1 for files in source.files.values()):
        parts += ("ends",)  # once two files without a final newline were glued
    parts += ("apart",) if source.builder == "hub" else ()  # once a set without train was read as if it had one
    return kept(cache_dir(data) / "tokens", parts, lambda folder: _tokenize(data, source, folder, given))


def _read(data: dict, source: Source, split: str) -> Iterator[tuple[str, str | None]]:
    """(place, text) of each document of a split; None where there is none.

    Raises:
        ValueError: unreadable, or no text; one line with file, line or row, and cause.
    """
    column = data["text_key"] or "text"
    if source.builder == "hub":
        found = _rows(hub_table(data, source)[split], column)
    else:
        found = _in_files([Path(f) for f in source.files[split]], source.builder, column, data.get("encoding"))
    return texts(found, data, split, source.builder)


def _in_files(files: list[Path], builder: str, column: str, encoding: str | None) -> Iterator[tuple[str, object]]:
    """The documents of several files; a text file without a final newline gets one, or two words would become one."""
    last = "\n"
    for file in files:
        for place, text in documents(file, builder, column, encoding):
            if builder == "text" and not last.endswith(("\n", "\r")):
                yield place, "\n"
            yield place, text
            last = text


def _joined(lines: Iterator[tuple[str, str | None]]) -> Iterator[tuple[str, str]]:
    """Lines of text in pieces of a million letters: GPT-2's pairs go over the ends of lines."""
    kept, size, place = [], 0, ""
    for place, text in lines:
        kept.append(text)
        size += len(text)
        if size >= PIECE:
            yield place, "".join(kept)
            kept, size = [], 0
    if kept:
        yield place, "".join(kept)


def _rows(rows, column: str) -> Iterator[tuple[str, object]]:
    if column not in rows.column_names:
        raise KeyError(", ".join(rows.column_names))
    for number, value in enumerate(rows[column]):
        yield f"row {number}", value


def _tokenize(data: dict, source: Source, folder: Path, given: str | None) -> dict:
    splits = list(hub_table(data, source) if source.builder == "hub" else source.files)
    chars = given or ""
    if data["tokenizer"] == "char" and given is None:
        seen = {c for split in splits for _, text in _read(data, source, split) for c in set(text or "")}
        chars = "".join(sorted(seen | {"\n"}))
    tokenizer = Tokenizer(data["tokenizer"], chars if data["tokenizer"] == "char" else "")
    # A text file comes line by line with its line breaks; a table's rows are documents that need a mark between them.
    ending = "" if source.builder == "text" else tokenizer.separator
    counts, left_out = {}, {}
    for split in splits:
        counts[split] = absent = blank = 0
        with open(folder / f"{split}.bin", "wb") as out:
            read = _read(data, source, split)
            if source.builder == "text" and data["tokenizer"] not in BY_LETTER:
                read = _joined(read)
            for number, (place, text) in enumerate(read):
                if text is None and data.get("on_error") != "skip":
                    raise ValueError(
                        f"data.path={data['path'] or data['hub']}: row {number} of {split} ({place.split(',')[0]}) has "
                        "no text; data.on_error=skip leaves such rows out and counts them"
                    )
                absent += text is None
                blank += text == ""
                if text:
                    try:
                        ids = tokenizer.encode(text if text.endswith(ending) else text + ending)
                    except UnicodeEncodeError as error:
                        raise ValueError(f"data.path={data['path']}: {place}: holds half a character "
                                         f"({error.reason}); mend that row") from error  # fmt: skip
                    counts[split] += len(ids)
                    out.write(ids.astype(tokenizer.dtype).tobytes())
        if absent or (blank and ending):
            left_out[split] = absent, blank
    if not counts.get("train"):
        column = data["text_key"] or "text"
        raise ValueError(f"data.path={data['path'] or data['hub']}: no text in column {column!r} of the training split")
    if "val" not in counts:
        counts |= _hold_out(folder / "train.bin", folder / "val.bin", counts["train"], data["val_fraction"], tokenizer)
    refuse_changed(data, source)
    return {"tokenizer": tokenizer.to_json(), "tokens": counts, "left_out": left_out}


def _hold_out(train: Path, val: Path, count: int, fraction: float, tokenizer: Tokenizer) -> dict:
    """Moves the last part of the training text to validation."""
    if not 0 < fraction < 1:
        raise ValueError(
            f"data.val_fraction={fraction}: must be between 0 and 1, since the text has no validation split"
        )
    width = tokenizer.dtype().itemsize
    keep = int(count * (1 - fraction))
    with open(train, "rb+") as stream, open(val, "wb") as out:
        stream.seek(keep * width)
        shutil.copyfileobj(stream, out)
        stream.truncate(keep * width)
    return {"train": keep, "val": count - keep}


def continued(model, tokenizer: Tokenizer, prompt: str, count: int, seed: int, device, **how) -> str:
    """`prompt` and `count` more tokens that `model` draws; `how` as for its ``generate``.

    Raises:
        ValueError: the tokenizer does not know the prompt.
    """
    try:
        ids = tokenizer.encode(prompt)
    except ValueError as error:
        raise ValueError(f"prompt: {error}") from error
    seed_all(seed, "sample")
    tokens = torch.from_numpy(ids.astype("int64")).to(device)[None]  # (1, T)
    return tokenizer.decode(model.generate(tokens, count, **how)[0].tolist())
