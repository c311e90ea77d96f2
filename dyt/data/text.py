"""Text as tokens: read once, tokenized once, kept as a memory map keyed by content."""

import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dyt.data.cache import kept
from dyt.data.documents import Unreadable, check_encoding, documents
from dyt.data.order import Order, Steps, derive, loader, seed_all
from dyt.data.sources import Source, cache_dir, locate, refuse_changed
from dyt.data.spec import Spec
from dyt.data.tables import hub_table

log = logging.getLogger(__name__)


class Tokenizer:
    """byte (256 tokens), char (the characters of the set) or gpt2 (50,257, through tiktoken).

    Raises:
        ValueError: an unknown kind, or gpt2 without tiktoken and its vocabulary file.
    """

    def __init__(self, kind: str, chars: str = ""):
        if kind not in ("byte", "char", "gpt2"):
            raise ValueError(f"data.tokenizer={kind}: choose from byte, char, gpt2")
        if not isinstance(chars, str):
            raise ValueError("a char tokenizer's characters must be a text")
        self.kind, self.chars = kind, chars
        self.separator = "\n"
        self.vocab_size = {"byte": 256, "char": len(chars), "gpt2": 50257}[kind]
        if kind == "char":
            points = np.array([ord(c) for c in chars], dtype=np.int64)
            self._index = np.full(int(points.max()) + 1 if chars else 1, -1, dtype=np.int64)
            self._index[points] = np.arange(len(chars))
        if kind == "gpt2":
            self.separator = "<|endoftext|>"
            try:
                import tiktoken

                self._bpe = tiktoken.get_encoding("gpt2")
            except ImportError as error:
                raise ValueError("data.tokenizer=gpt2 needs the package tiktoken: pip install tiktoken") from error
            except Exception as error:  # requests' whole family, where its file cannot be fetched
                raise ValueError(
                    "data.tokenizer=gpt2: tiktoken could not fetch its vocabulary file; run once with a network, or "
                    "set TIKTOKEN_CACHE_DIR to a folder that has it, or type data.tokenizer=byte"
                ) from error

    @property
    def dtype(self):
        return np.uint8 if self.vocab_size <= 256 else np.uint16 if self.vocab_size <= 65536 else np.uint32

    def encode(self, text: str) -> np.ndarray:
        """Text as ids, shape (T,).

        Raises:
            ValueError: a character that the char tokenizer does not know.
        """
        if self.kind == "byte":
            return np.frombuffer(text.encode(), dtype=np.uint8)
        if self.kind == "gpt2":
            return np.array(self._bpe.encode(text, allowed_special="all"), dtype=self.dtype)
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
        ids = np.where(points < len(self._index), self._index[np.minimum(points, len(self._index) - 1)], -1)
        if (ids < 0).any():
            unknown = sorted({chr(p) for p in points[ids < 0]})
            raise ValueError(f"characters outside the vocabulary: {' '.join(map(repr, unknown[:10]))}")
        return ids.astype(self.dtype)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids as text; broken UTF-8 shows as the replacement character, and padding ids of the vocabulary too."""
        ids = [int(i) for i in ids]
        if self.kind == "byte":
            return bytes(i for i in ids if i < 256).decode(errors="replace")
        if self.kind == "gpt2":
            return self._bpe.decode([i for i in ids if i < self.vocab_size])
        return "".join(self.chars[i] if i < len(self.chars) else "\ufffd" for i in ids)

    def to_json(self) -> dict:
        return {"kind": self.kind, "chars": self.chars}


class Windows:
    """Windows of `context` + 1 tokens, overlapping in one; sample i of epoch e starts at offset(e) + i context."""

    def __init__(self, tokens: np.ndarray, context: int, seed: int):
        self.tokens, self.context, self.seed = tokens, context, seed
        self.size = max(0, (len(tokens) - context) // context)

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Inputs and targets, (B, T) each, int64."""
        offset = derive(self.seed, "offset", keys[0][0]) % self.context
        starts = np.array([index for _, index in keys]) * self.context + offset
        return cut(self.tokens, starts, self.context)


def cut(tokens: np.ndarray, starts: np.ndarray, length: int) -> tuple[Tensor, Tensor]:
    """(B, T) inputs and targets, the targets one token later."""
    rows = tokens[starts[:, None] + np.arange(length + 1)]  # (B, T + 1)
    rows = torch.from_numpy(rows.astype(np.int64))
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


class TextData:
    """A text set as token windows.

    Raises:
        ValueError: no text, or less of it than one window.
    """

    def __init__(self, data: dict, context: int, chars: str | None = None):
        self.data, self.context = data, context
        source = locate(data)
        folder, meta = _tokenized(data, source, chars if data["tokenizer"] == "char" else None)
        for split, (absent, blank) in meta.get("left_out", {}).items():
            log.warning("%s: %d rows without text left out, %d empty ones add no token", split, absent, blank)
        self.tokenizer = Tokenizer(**meta["tokenizer"])
        self.tokens = {
            split: np.memmap(folder / f"{split}.bin", dtype=self.tokenizer.dtype, mode="r")
            for split, count in meta["tokens"].items()
            if count
        }
        if data["train_tokens"]:
            self.tokens["train"] = self.tokens["train"][: data["train_tokens"]]
        for split in ("train", "val"):
            have = len(self.tokens.get(split, ()))
            if have < 2 * context:
                raise ValueError(
                    f"data={data['name']}: its {split} text has {have} tokens, less than two windows of "
                    f"model.context={context}; use more text or a smaller context"
                )
        sizes = {split: len(tokens) for split, tokens in self.tokens.items()}
        self.spec = Spec("text", source.sha256, sizes, vocab_size=self.tokenizer.vocab_size)
        self.unit = "tokens"
        self.samples = (sizes["train"] - context) // context
        self.unit_per_sample = context

    def train_batches(self, order: Order, start: int, stop: int) -> DataLoader:
        """(inputs, targets), each (B, T) int64, for the steps from `start` to `stop`."""
        windows = Windows(self.tokens["train"], self.context, order.seed)
        return loader(windows, Steps(order, start, stop), self.data)

    def eval_batches(
        self, split: str, rank: int = 0, world: int = 1, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole split in order, every token but the first predicted once; the last window may be short."""
        tokens, length, size = self.tokens[split], self.context, self.data["eval_batch_size"]
        starts = np.arange(0, len(tokens) - 1 - length + 1, length)
        batches = [(starts[i : i + size], length) for i in range(0, len(starts), size)]
        rest = (len(tokens) - 1) % length
        if rest:
            batches.append((np.array([len(tokens) - 1 - rest]), rest))
        for at, width in batches[:limit][rank::world]:
            yield cut(tokens, at, width)


def _tokenized(data: dict, source: Source, given: str | None) -> tuple[Path, dict]:
    """The folder of the token cache, made when it is not there or not whole, and what it says of itself."""
    check_encoding(data.get("encoding"))
    parts = (source.sha256, source.stamp, data["tokenizer"], data["text_key"], data["val_fraction"], given, "v2")
    parts += (data.get("encoding"), data.get("on_error") == "skip")
    return kept(cache_dir(data) / "tokens", parts, lambda folder: _tokenize(data, source, folder, given))


def _read(data: dict, source: Source, split: str) -> Iterator[tuple[str, str | None]]:
    """(place, text) of each document of a split; None where there is none.

    Raises:
        ValueError: unreadable, or no text; one line with file, line or row, and cause.
    """
    column, where = data["text_key"] or "text", data["path"] or data["hub"] or data["name"]
    try:
        if source.builder == "hub":
            rows = hub_table(data, source)[split]
            if column not in rows.column_names:
                raise KeyError(", ".join(rows.column_names))
            found = ((f"row {number}", value) for number, value in enumerate(rows[column]))
        else:
            files = source.files[split]
            found = (x for f in files for x in documents(Path(f), source.builder, column, data.get("encoding")))
        for place, text in found:
            if text is not None and not isinstance(text, str):
                raise ValueError(f"data.text_key={column}: holds {type(text).__name__}, not text, in {split} ({place})")
            yield place, text
    except Unreadable as error:
        raise ValueError(f"data.path={where}: unreadable as {source.builder}: {error}") from error
    except KeyError as error:
        raise ValueError(f"data.text_key={column}: no such column in {split}; it has {error.args[0]}") from error


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
            for number, (place, text) in enumerate(_read(data, source, split)):
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
