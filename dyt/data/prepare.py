"""Documents to shards of token ids: in parallel, in order, and to be gone on with. The same bytes whatever the workers.

    read documents -> batches of a mebibyte -> tokenize (workers) -> append to the shard -> note how far (progress.json)

One process reads and writes, since both are a hundred times faster than a BPE tokenizer; only batches travel. Cuts of
batches and shards depend on the text alone. Memory: a few batches a worker, whatever the size of the input.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np

from dyt.data import shards
from dyt.data.inputs import Input, as_before, content_sums, fingerprint, inputs_of, text_bytes
from dyt.data.tokenizer import Tokenizer
from dyt.data.tokenizing import batches, in_turn, tokenize

SHARD = 1 << 27  # tokens after which a shard ends: 256 MiB of uint16
SAVE_S = 5.0  # seconds between notes of how far it is


class Shards:
    """The output folder: appends ids to the open shard of a split, and notes how far it is.

    Args:
        out: the folder, which is made.
        settings: what decides the bytes; a folder that was made with others is refused.
        size: tokens after which a shard ends, at the end of its batch.
        inputs: whose fingerprints are in the settings.

    Raises:
        ValueError: made with other settings, holding other files, or in use by another process. OSError: unwritable.
    """

    def __init__(self, out: Path, settings: dict, dtype: str, size: int, inputs: list[Input] = ()):
        self.out, self.settings, self.dtype, self.size, self.inputs = out, settings, dtype, size, inputs
        self.width = np.dtype(dtype).itemsize
        self.done: dict[str, list[dict]] = {}
        self.then, self.absent, self.finished, self.open = (0, 0), 0, False, None
        self.between = True  # of two batches: not within one, where what is noted would not hold together
        out.mkdir(parents=True, exist_ok=True)
        self.lock = open(out / ".lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the system if its holder dies
        except BlockingIOError as error:
            raise ValueError(f"--out {out}: another prepare_data.py writes there") from error
        except OSError as error:
            why = f"its file system has no locks ({error.strerror}); type a folder on a local disk"
            raise ValueError(f"--out {out}: {why}") from error
        for name in (shards.INDEX, shards.PROGRESS):
            if (out / name).is_file():
                self._go_on(name)
                return
        ours = (".lock", shards.TOKENIZER, *map(_part, (shards.INDEX, shards.PROGRESS, shards.TOKENIZER)))
        if others := sorted(f.name for f in out.iterdir() if f.name not in ours):
            if not all(re.fullmatch(r"(train|val|test)-\d{5}\.(bin|ends)(\.part)?", name) for name in others):
                raise ValueError(f"--out {out}: holds {others[0]}; type a folder that is empty, or not there yet")

    def _go_on(self, name: str) -> None:
        try:
            noted = json.loads((self.out / name).read_text())
            theirs = noted["settings"]
            self.done = {s: of["shards"] for s, of in noted["splits"].items()}
            self.finished, self.absent = name == shards.INDEX, noted["left_out"]
            self.then = tuple(noted.get("then", ()))
            sums, was = noted.get("input_sums", []), [list(one) for one in theirs.get("inputs", [])]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"--out {self.out}: its {name} is damaged; type another folder") from error
        settings = dict(self.settings)
        if self.inputs:
            settings["inputs"] = as_before(self.inputs, settings["inputs"], was, sums)
        for key in theirs | settings:
            if theirs.get(key) != settings.get(key):
                ours, was = (_shown(of.get(key)) for of in (settings, theirs))
                raise ValueError(
                    f"--out {self.out}: was made with {key} {was}, and this is {ours}; type another folder"
                )
        if not self.finished and noted["open"]:
            self._open(*noted["open"])
            self.ids.seek(0)
            while block := self.ids.read(shards.BLOCK):
                self.sum.update(block)

    def _open(self, split: str, tokens: int = 0, documents: int = 0) -> None:
        """The next shard of a split, of which so much is kept and what else is there is cut off."""
        self.open, self.tokens, self.documents, self.sum = split, tokens, documents, hashlib.sha256()
        self.name = f"{split}-{len(self.done.setdefault(split, [])):05d}"
        for ending in ("bin", "ends"):  # closed just before a kill, and not noted
            whole, part = self.out / f"{self.name}.{ending}", self.out / f"{self.name}.{ending}.part"
            if whole.exists() and not part.exists():
                whole.rename(part)
        self.ids = self._cut(f"{self.name}.bin.part", tokens * self.width)
        self.ends = self._cut(f"{self.name}.ends.part", documents * 8)

    def _cut(self, name: str, kept: int):
        """A file of the folder, open to be written on after its first `kept` bytes."""
        file = self.out / name
        file.touch()
        if file.stat().st_size < kept:
            raise ValueError(f"--out {self.out}: {name} is shorter than {shards.PROGRESS} says; type another folder")
        stream = open(file, "rb+")
        stream.truncate(kept)
        stream.seek(kept)
        return stream

    def add(self, split: str, ids: bytes, ends: bytes, then: tuple[int, int], absent: int = 0) -> None:
        """Appends a batch, after which reading goes on at `then`, and ends the shard where it is full."""
        self.between = False
        if self.open != split:
            self.close()
            self._open(split)
        moved = (np.frombuffer(ends, "<u8") + np.uint64(self.tokens)).tobytes()
        self.ids.write(ids), self.ends.write(moved), self.sum.update(ids)
        self.tokens += len(ids) // self.width
        self.documents += len(ends) // 8
        if self.tokens >= self.size:
            self.close()
        self.then, self.absent = then, self.absent + absent
        self.between = True

    def close(self) -> None:
        """Ends the open shard."""
        if self.open is None:
            return
        for stream in (self.ids, self.ends):
            stream.flush()
            os.fsync(stream.fileno())
            stream.close()
            os.replace(stream.name, stream.name.removesuffix(".part"))
        ends = self.out / f"{self.name}.ends"
        entry = {"file": f"{self.name}.bin", "tokens": self.tokens, "documents": self.documents}
        entry |= {"sha256": self.sum.hexdigest(), "ends_sha256": shards.sha256_of(ends)}
        if self.tokens:
            self.done[self.open].append(entry)
        else:
            (self.out / f"{self.name}.bin").unlink(), ends.unlink()
        self.open = None

    def note(self) -> None:
        """Writes how far it is: what was added is on the disk, and reading goes on at `then`."""
        if not self.between:
            return  # what was noted last still holds
        if self.open is not None:
            for stream in (self.ids, self.ends):
                stream.flush()
                os.fsync(stream.fileno())
        opened = [self.open, self.tokens, self.documents] if self.open is not None else None
        self._write(shards.PROGRESS, self._about() | {"then": list(self.then), "open": opened})

    def finish(self, tokenizer: Tokenizer, sums: list[str | None]) -> None:
        """Closes the last shard and writes the index; the folder is whole from then on. `sums` are of its inputs."""
        self.close()
        if not self.done.get("train"):
            raise ValueError("no text in the training split: nothing to write")
        if tokenizer.kind == "json":
            self._write(shards.TOKENIZER, tokenizer.text)
        about = {"format": shards.FORMAT, "dtype": self.dtype, "vocab_size": tokenizer.vocab_size}
        about |= {"tokenizer": {"kind": tokenizer.kind, "sha256": _sum(tokenizer.text)}, "input_sums": sums}
        self._write(shards.INDEX, about | self._about())
        (self.out / shards.PROGRESS).unlink(missing_ok=True)

    def leave(self) -> None:
        """Others may write there."""
        if self.finished or (self.out / shards.INDEX).exists():
            (self.out / ".lock").unlink(missing_ok=True)
        self.lock.close()

    def _about(self) -> dict:
        splits = {
            split: {
                "tokens": sum(e["tokens"] for e in done),
                "documents": sum(e["documents"] for e in done),
                "shards": done,
            }
            for split, done in self.done.items()
            if done or split == self.open
        }
        return {"left_out": self.absent, "settings": self.settings, "splits": splits}

    def _write(self, name: str, content) -> None:
        text = content if isinstance(content, str) else json.dumps(content, indent=1) + "\n"
        part = self.out / _part(name)
        with open(part, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, self.out / name)

    @property
    def bytes(self) -> int:
        """What is written so far."""
        return sum(f.stat().st_size for f in self.out.iterdir() if f.is_file())


def _part(name: str) -> str:
    """What a file is called until it is whole."""
    return f".{name}.part"


def _sum(text: str) -> str | None:
    return hashlib.sha256(text.encode()).hexdigest() if text else None


def _shown(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"


# -- all of it ---------------------------------------------------------------------------------------------------------


def prepare(
    words: list[str], tokenizer: Tokenizer, out: Path, workers: int, data: dict, size: int = SHARD, tell=None
) -> dict:
    """Makes a folder of shards, or goes on with it; returns its index.

    Args:
        words: files, folders, or names of the hub.
        tokenizer: what makes ids.
        out: the folder.
        workers: processes that tokenize; they change no byte.
        data: text_key, encoding, on_error, hub_config, revision and cache_dir, as of a config's ``data``.
        size: tokens after which a shard ends.
        tell: is called with a `Progress` after each batch.

    Raises:
        ValueError, OSError: bad input, a folder made with other settings, too small a disk: one line, and what was
            written before stays, so that the same command goes on.
    """
    inputs = inputs_of(words, data)
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    settings = {"tokenizer": _sum(tokenizer.text) or tokenizer.kind, "dtype": dtype, "shard_tokens": size}
    settings |= {key: data[key] for key in ("text_key", "encoding", "on_error")}
    settings |= {"inputs": [fingerprint(given, data) for given in inputs]}
    made = Shards(out, settings, dtype, size, inputs)
    try:
        if not made.finished:
            _make(made, inputs, tokenizer, workers, data, tell)
    finally:
        made.leave()
    return json.loads((out / shards.INDEX).read_text())


def _make(made: Shards, inputs: list[Input], tokenizer: Tokenizer, workers: int, data: dict, tell) -> None:
    sizes = [text_bytes(given, data["text_key"] or "text") for given in inputs]
    progress = Progress(None if None in sizes else sum(sizes), made)
    _refuse_small_disk(inputs, tokenizer, data, made, progress.total)
    saved = time.monotonic()
    work = in_turn(batches(inputs, data, made.then), made.dtype, workers, tokenizer)
    with contextlib.closing(work):
        try:
            for batch, (ids, ends, count) in work:
                made.add(batch.given.split, ids, ends, batch.then, batch.absent)
                if time.monotonic() - saved > SAVE_S or made.open is None:
                    made.note()
                    saved = time.monotonic()
                progress.seen(count, len(ids) // made.width)
                if tell:
                    tell(progress)
        except KeyboardInterrupt:
            made.note()
            raise
    made.finish(tokenizer, content_sums(inputs, made.settings["inputs"], data))


class Progress:
    """How far it is: bytes of text and tokens of this start, and what is left by the rate so far.

    Args:
        total: bytes of text of all inputs, about; None: not known.
        made: the output.
    """

    def __init__(self, total: int | None, made: Shards):
        self.total, self.made = total, made
        self.began, self.bytes, self.tokens = time.monotonic(), 0, 0
        self.before = sum(e["tokens"] for of in made.done.values() for e in of) + (made.tokens if made.open else 0)

    def seen(self, count: int, tokens: int) -> None:
        self.bytes += count
        self.tokens += tokens

    def __str__(self) -> str:
        spent = max(1e-9, time.monotonic() - self.began)
        said = f"{self.before + self.tokens:,} tokens, {self.bytes / spent / 1e6:.1f} MB/s, "
        said += f"{self.tokens / spent:,.0f} tokens/s"
        if not self.total:
            return said
        before = self.before * self.bytes / max(1, self.tokens)  # of an earlier start, about
        share = min(1.0, (before + self.bytes) / self.total)
        left = (self.total - before - self.bytes) * spent / max(1, self.bytes)
        return f"{share:.0%} of about {self.total / 1e6:,.0f} MB: {said}, {max(0, left):,.0f} s left"


def _refuse_small_disk(inputs: list[Input], tokenizer: Tokenizer, data: dict, made: Shards, total: int | None) -> None:
    """Raises OSError where the output, reckoned from the first batch's tokens a byte, does not fit."""
    if not total:
        return
    first = next(batches(inputs, data, (0, 0)), None)
    if first is None or not first.texts:
        return
    ids, ends, count = tokenize(tokenizer, first.texts, first.ends, made.dtype, first.given.builder == "text")
    need = total * (len(ids) + len(ends)) / max(1, count) - made.bytes
    free = shutil.disk_usage(made.out).free
    if need > free:
        raise OSError(
            f"--out {made.out}: the tokens take about {need / 2**30:.2f} GiB more, and {free / 2**30:.2f} GiB are free "
            "there; free some, or type a folder on a larger disk"
        )
