"""Documents out of files: text in any encoding, CSV, JSON lines and Parquet, each fault named by file and line."""

import bz2
import codecs
import csv
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path

BLOCK = 1 << 22
MARKS = (  # byte order marks, the longer first
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _zstd(file: Path, _: str):
    import pyarrow as pa

    return pa.input_stream(str(file), compression="zstd")


PACKED = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
    (b"\x28\xb5\x2f\xfd", _zstd),
)


class Unreadable(ValueError):
    """A file cannot be read as what it is taken for; the text names file, line and cause."""


def documents(file: Path, builder: str, column: str, encoding: str | None) -> Iterator[tuple[str, object]]:
    """(place, value) of each document of a file: a line of text with its end, or a row's `column`.

    Raises:
        Unreadable: with file, line or row, and cause. KeyError: no row has the column; its argument lists those it has.
    """
    if builder == "parquet":
        return _parquet(file, column)
    lines = _lines(file, encoding)
    if builder == "text":
        return lines
    return _rows(file, lines, _csv if builder == "csv" else _json, column)


def texts(
    found: Iterator[tuple[str, object]], data: dict, split: str, builder: str
) -> Iterator[tuple[str, str | None]]:
    """(place, text) of what `documents` gives, its faults in a user's words; None where a row has no text.

    Raises:
        ValueError: unreadable, or no text; one line with file, line or row, and cause.
    """
    column, where = data["text_key"] or "text", data["path"] or data["hub"] or data["name"]
    try:
        for place, text in found:
            if text is not None and not isinstance(text, str):
                raise ValueError(f"data.text_key={column}: holds {type(text).__name__}, not text, in {split} ({place})")
            yield place, text
    except Unreadable as error:
        raise ValueError(f"data.path={where}: unreadable as {builder}: {error}") from error
    except KeyError as error:
        raise ValueError(f"data.text_key={column}: no such column in {split}; it has {error.args[0]}") from error


def _rows(file: Path, lines: Iterator, read: Callable, column: str) -> Iterator[tuple[str, object]]:
    first = True
    for place, row in read(file, lines):
        if first and column not in row:
            raise KeyError(", ".join(map(str, row)))
        first = False
        yield place, row.get(column)


def _lines(file: Path, encoding: str | None) -> Iterator[tuple[str, str]]:
    """(place, line) with line ends as they are; no byte order mark."""
    with open(file, "rb") as stream:
        head = stream.read(8)
    opener = next((way for mark, way in PACKED if head.startswith(mark)), open)
    try:
        with opener(file, "rb") as stream:
            yield from _decoded(file, stream, encoding)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, OSError) as error:
        if opener is open:
            raise
        raise Unreadable(f"{file.name} cannot be unpacked: {' '.join(str(error).split())}") from error


def _decoded(file: Path, stream, encoding: str | None) -> Iterator[tuple[str, str]]:
    block = stream.read(BLOCK)
    marked = next((name for mark, name in MARKS if block.startswith(mark)), None)
    if block.startswith(b"version https://git-lfs"):
        raise Unreadable(f"{file.name} stands for a file that Git LFS has not fetched; type git lfs pull")
    name = encoding if marked is None else marked
    if marked is not None and encoding is not None and not _alike(encoding, marked):
        raise Unreadable(f"{file.name} begins with the byte order mark of {marked}; leave data.encoding={encoding} out")
    if name is None:
        name = "utf-8"
        if b"\0" in block:
            raise Unreadable(f"{file.name} {_with_nulls(block)}")
    decoder = codecs.getincrementaldecoder(name)()
    number, rest, begun = 1, "", False
    while block:
        following = stream.read(BLOCK)
        try:
            text = decoder.decode(block, final=not following)
        except UnicodeError as error:
            raise Unreadable(_undecodable(file, name, error, number, block, encoding)) from error
        if not begun and text:
            text, begun = text.removeprefix("\ufeff"), True
        if "\0" in text:
            line = number + text[: text.index("\0")].count("\n")
            raise Unreadable(f"{file.name}, line {line}: holds NUL bytes, no text")
        *whole, rest = (rest + text).split("\n")
        for line in whole:
            yield f"{file.name}, line {number}", line + "\n"
            number += 1
        block = following
    if rest:
        yield f"{file.name}, line {number}", rest


def check_encoding(name: str | None) -> None:
    """Raises ValueError for a name that Python knows no text encoding by."""
    try:
        if name is not None:
            "".encode(name)
            codecs.lookup(name)
    except LookupError as error:
        raise ValueError(f"data.encoding={name}: unknown; type e.g. utf-8, utf-16, cp1252, latin-1, gb18030") from error


def _alike(encoding: str, marked: str) -> bool:
    """Whether a mark says what was typed, with or without the byte order."""
    return codecs.lookup(marked).name.startswith(codecs.lookup(encoding).name[:6])


def _with_nulls(block: bytes) -> str:
    """What a block with NUL bytes is, in words."""
    for name in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        width = int(name[4:6]) // 8
        try:
            text = block[: len(block) // width * width].decode(name)
        except UnicodeDecodeError:
            continue
        usual = sum(c.isprintable() or c in "\t\n\r\f" for c in text[:10_000])
        if usual > 0.99 * len(text[:10_000]) and any(c in text for c in " \n"):
            return f"looks like {name} without a byte order mark; type data.encoding={name}"
    return "holds NUL bytes: token ids or another binary file, no text; point at the text itself"


def _undecodable(file: Path, name: str, error: UnicodeError, number: int, block: bytes, asked: str | None) -> str:
    start = getattr(error, "start", 0)
    wrong = block[start : start + 1].hex()
    line = number + block[:start].count(b"\n")
    says = f"{file.name}, line {line}: byte 0x{wrong} is not {name.removesuffix('-sig')}"
    if asked is not None:
        return f"{says}; type the file's own data.encoding"
    try:
        block.decode("cp1252")
    except UnicodeDecodeError:
        return f"{says}; type data.encoding=<its encoding>, e.g. latin-1"
    return f"{says}; it may be cp1252 (Windows): type data.encoding=cp1252"


def _csv(file: Path, lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, dict]]:
    csv.field_size_limit(1 << 31)
    reader = csv.reader(
        (line for _, line in lines), delimiter="\t" if ".tsv" in file.name.lower() else ",", strict=True
    )
    try:
        header = next(reader, [])
        for row in reader:
            if row and len(row) != len(header):
                raise Unreadable(
                    f"{file.name}, line {reader.line_num}: {len(row)} fields, and the first line has {len(header)}"
                )
            if row:
                yield f"{file.name}, line {reader.line_num}", dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise Unreadable(f"{file.name}, line {reader.line_num}: {error}") from error


def _json(file: Path, lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, dict]]:
    """JSON lines, or one list of objects."""
    whole = None
    for place, line in lines:
        if whole is None and line.strip():
            whole = [] if line.lstrip().startswith("[") else False
        if whole is False:
            if line.strip():
                yield place, _object(place, line)
        elif whole is not None:
            whole.append(line)
    if whole:
        found = _loads(file.name, "".join(whole))
        for number, row in enumerate(found):
            if not isinstance(row, dict):
                raise Unreadable(f"{file.name}, item {number}: {type(row).__name__}, not an object with columns")
            yield f"{file.name}, item {number}", row


def _object(place: str, line: str) -> dict:
    row = _loads(place, line)
    if not isinstance(row, dict):
        raise Unreadable(f"{place}: {type(row).__name__}, not an object with columns")
    return row


def _loads(place: str, text: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(
            f"{place}: no JSON ({error}); a line holds one object, or the file one list of them"
        ) from error


def _parquet(file: Path, column: str) -> Iterator[tuple[str, object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        if column not in names:
            raise KeyError(", ".join(names))
        number = 0
        for batch in table.iter_batches(columns=[column]):
            for value in batch.column(0).to_pylist():
                yield f"{file.name}, row {number}", value
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"{file.name}: {type(error).__name__}: {' '.join(str(error).split())[:160]}") from error
