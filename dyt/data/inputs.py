"""What scripts/prepare_data.py reads: files and folders, or sets of the hub as a stream. No torch."""

import hashlib
import itertools
import logging
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dyt.data.documents import documents
from dyt.data.folders import by_split, files_below, splits_of_hub
from dyt.data.shards import sha256_of
from dyt.data.sources import builder_of, cache_dir

HUB = re.compile(r"[\w.-]+/[\w.-]+")
END = 1 << 16  # bytes of a file's beginning and end that stand for it
UNPACKED = 4  # times the size of a packed file, where it does not say
ORDER = ("train", "val", "test")


@dataclass(frozen=True)
class Input:
    """One file, or one split of a hub set."""

    split: str
    builder: str  # text | csv | json | parquet | hub
    name: str
    file: Path | None = None
    rows: Any = field(default=None, compare=False)  # of the hub: a datasets.IterableDataset


def inputs_of(words: list[str], data: dict) -> list[Input]:
    """The inputs that SOURCE... names, training first, in the order of their names.

    Raises:
        ValueError, OSError: nothing is there, it holds no text, or the hub cannot be reached; one line.
    """
    found, alone = [], []
    for word in words:
        path = Path(word).expanduser()
        if path.is_file():
            alone.append(path)
        elif path.is_dir():
            files = files_below(path, cache_dir(data))
            if not files:
                raise FileNotFoundError(f"{word}: the folder is empty")
            found += _of_files(path, files)
        elif HUB.fullmatch(word):
            found += _of_hub(word, data)
        else:
            raise FileNotFoundError(f"{word}: no such file or folder, and no name of the hub (owner/name)")
    if alone:
        root = Path(os.path.commonpath([f.parent.absolute() for f in alone]))
        found += _of_files(root, [f.absolute() for f in alone])
    return sorted(found, key=lambda i: ORDER.index(i.split))


def _of_files(root: Path, files: list[Path]) -> list[Input]:
    return [
        Input(split, builder_of(f, str(f.relative_to(root))), str(f.relative_to(root)), f)
        for split, group in by_split(root, files).items()
        for f in group
    ]


def _of_hub(name: str, data: dict) -> list[Input]:
    import datasets

    datasets.utils.logging.set_verbosity(logging.CRITICAL)  # what it says is in the error we raise
    try:
        table = datasets.load_dataset(name, data["hub_config"], revision=data["revision"], streaming=True)
    except Exception as error:  # the library raises a dozen kinds, from ConnectionError to ArrowInvalid
        text = " ".join(str(error.__cause__ or error).split())[:200]
        raise ValueError(
            f"{name}: the hub's set could not be opened ({text}); without a network name files or folders"
        ) from error
    table = {str(split): rows for split, rows in table.items()}
    splits = splits_of_hub(list(table), name)
    return [Input(split, "hub", f"{name} {split}", rows=table[theirs]) for theirs, split in splits.items()]


def documents_of(given: Input, data: dict, skip: int) -> Iterator[tuple[str, object]]:
    """(place, value) of an input's documents after the first `skip`."""
    column = data["text_key"] or "text"
    if given.builder != "hub":
        return itertools.islice(documents(given.file, given.builder, column, data["encoding"]), skip, None)
    return _streamed(given.rows.skip(skip) if skip else given.rows, column, skip)


def _streamed(rows, column: str, number: int) -> Iterator[tuple[str, object]]:
    for row in rows:
        if column not in row:
            raise KeyError(", ".join(row))
        yield f"row {number}", row[column]
        number += 1


def fingerprint(given: Input, data: dict) -> list:
    """What tells a changed input from the one that was read: name, size, the sum of both its ends, and its time."""
    if given.file is None:
        return [given.split, given.name, data["hub_config"], data["revision"]]
    about = given.file.stat()
    with open(given.file, "rb") as stream:
        digest = hashlib.sha256(stream.read(END))
        stream.seek(max(0, about.st_size - END))
        digest.update(stream.read(END))
    return [given.split, given.name, about.st_size, digest.hexdigest()[:16], about.st_mtime_ns]


def content_sums(inputs: list[Input], read: list[list], data: dict) -> list[str | None]:
    """The sha256 of each input; None of one that is no file, or no longer as it was `read`."""
    there = [given.file is not None and given.file.is_file() and fingerprint(given, data) for given in inputs]
    return [sha256_of(g.file) if now == was else None for g, now, was in zip(inputs, there, read, strict=True)]


def as_before(inputs: list[Input], now: list[list], was: list[list], sums: list[str | None]) -> list[list]:
    """The fingerprints `now`, with the old one of each input that only its time tells from what was read.

    Args:
        was: fingerprints of what was read; those of older folders have no time.
        sums: `content_sums` of what was read; empty where it was not read to its end.

    Raises:
        ValueError: one was written since, and holds something else, or nobody knows.
    """
    if [old[:4] for old in was] != [new[:4] for new in now]:
        return now
    for i, (given, old, new) in enumerate(zip(inputs, was, now, strict=True)):
        if old == new[: len(old)]:
            continue
        kept = sums[i] if i < len(sums) else None
        if kept is None:
            time = f"{old[4] // 10**9}.{old[4] % 10**9:09d}"
            raise ValueError(f"{given.file}: was written since; type another folder, or, if its content is what it "
                             f"was, touch -d @{time} {shlex.quote(str(given.file))}")  # fmt: skip
        if sha256_of(given.file) != kept:
            raise ValueError(f"{given.file}: holds something else than what was read; type another folder")
    return was


def text_bytes(given: Input, column: str) -> int | None:
    """About how many bytes of text an input holds; None of the hub, where it does not say."""
    if given.file is None:
        info = getattr(given.rows, "info", None)
        return (info.splits[given.rows.split].num_bytes if info and info.splits else None) or None
    size = given.file.stat().st_size
    if given.builder == "parquet":
        import pyarrow.parquet as pq

        about = pq.ParquetFile(given.file).metadata
        groups = (about.row_group(i) for i in range(about.num_row_groups))
        return sum(
            g.column(c).total_uncompressed_size
            for g in groups
            for c in range(g.num_columns)
            if g.column(c).path_in_schema == column
        )
    ending = given.file.suffix.lower()
    if ending == ".gz" and size < 1 << 30:  # its last bytes say, below 4 GiB
        with open(given.file, "rb") as stream:
            stream.seek(max(0, size - 4))
            return max(size, int.from_bytes(stream.read(4), "little"))
    return size * (UNPACKED if ending in (".gz", ".bz2", ".xz", ".zst") else 1)
