"""Documents, batch by batch, as token ids: read by one process, tokenized by several, handed on in order."""

import itertools
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process

import numpy as np

from dyt.data.documents import texts
from dyt.data.inputs import Input, documents_of
from dyt.data.tokenizer import Tokenizer

BATCH = 1 << 20  # characters that a worker gets at once
AHEAD = 2  # batches a worker that are read before they are asked for


@dataclass(frozen=True)
class Batch:
    """Texts of one input, and where reading goes on after them: (input, documents read of it)."""

    given: Input
    texts: list[str]
    ends: list[bool]  # whether a document ends with that text
    place: str  # of the last, for messages
    absent: int  # rows without text since the batch before
    then: tuple[int, int]


def batches(inputs: list[Input], data: dict, start: tuple[int, int]) -> Iterator[Batch]:
    """The documents from `start` on, cut at the same places whichever batch's end it starts from.

    Raises:
        ValueError: a file that cannot be read, or a row without text; one line with file and row.
    """
    for number in range(start[0], len(inputs)):
        skip = start[1] if number == start[0] else 0
        found, ends, size, absent = [], [], 0, 0
        read, place = skip, ""
        for text, ended, read, place in _pieces(inputs[number], data, skip):
            if text is None:
                absent += 1
                continue
            found.append(text)
            ends.append(ended)
            size += len(text)
            if size >= BATCH:
                yield Batch(inputs[number], found, ends, place, absent, (number, read))
                found, ends, size, absent = [], [], 0, 0
        yield Batch(inputs[number], found, ends, place, absent, (number + 1, 0))


def _pieces(given: Input, data: dict, skip: int) -> Iterator[tuple[str | None, bool, int, str]]:
    """(text, whether a document ends there, documents read so far, place): a table's row, or lines of a text file."""
    read, lines, size, place = skip, [], 0, given.name
    for place, text in texts(documents_of(given, data, skip), data, given.split, given.builder):
        read += 1
        if text is None and data["on_error"] != "skip":
            row = place.split(",")[-1].strip()
            raise ValueError(
                f"{given.name}: {row} has no text; data.on_error=skip leaves such rows out and counts them"
            )
        if given.builder != "text":
            if text != "":
                yield text, True, read, place
            continue
        lines.append(text)
        size += len(text)
        if size >= BATCH:
            yield "".join(lines), False, read, place
            lines, size = [], 0
    if given.builder == "text" and read:
        yield "".join(lines), True, read, place


_tokenizer: Tokenizer | None = None  # of this worker


def _begin(tokenizer: dict) -> None:
    global _tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are the parallel part
    _tokenizer = Tokenizer(**tokenizer)


def _begin_worker(tokenizer: dict) -> None:
    # A pool's processes outlive a parent that was killed: they hold the queue's other end themselves.
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    _begin(tokenizer)


def _work(texts: list[str], ends: list[bool], dtype: str, lines: bool) -> tuple[bytes, bytes, int]:
    return tokenize(_tokenizer, texts, ends, dtype, lines)


def tokenize(
    tokenizer: Tokenizer, texts: list[str], ends: list[bool], dtype: str, lines: bool
) -> tuple[bytes, bytes, int]:
    """(ids, where documents end among them as uint64, bytes of text) of a batch's texts.

    Args:
        tokenizer: what makes ids.
        texts: of one input.
        ends: whether a document ends with each text.
        dtype: of the ids.
        lines: they are of a text file, which has line ends of its own, so that bytes get none more. A tokenizer with
            a token for a document's end puts it there too.

    Raises:
        UnicodeEncodeError: half a character.
    """
    parts = tokenizer.encode_all(texts)
    size = sum(map(len, parts)) if tokenizer.kind == "byte" else sum(len(text.encode()) for text in texts)
    end = None if lines and tokenizer.kind == "byte" else tokenizer.end
    made, where, count = [np.empty(0, dtype)], [], 0
    for ids, ended in zip(parts, ends, strict=True):
        made.append(ids)
        count += len(ids)
        if ended:
            if end is not None and not (len(ids) and ids[-1] == end):
                made.append(np.array([end], dtype))
                count += 1
            where.append(count)
    return np.concatenate(made).astype(dtype).tobytes(), np.array(where, dtype="<u8").tobytes(), size


def in_turn(work: Iterator[Batch], dtype: str, workers: int, tokenizer: Tokenizer) -> Iterator[tuple[Batch, tuple]]:
    """(batch, what `tokenize` makes of it), in order; with one worker in this process.

    Raises:
        ValueError: half a character in a text, or a worker was killed, as where memory runs out.
    """
    _begin(tokenizer.to_json())  # here too: for one worker
    ahead = AHEAD * (workers + 1) if workers > 1 else 1
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker, (tokenizer.to_json(),)) as pool:
        ask = _now if workers == 1 else pool.submit
        asked = ((b, ask(_work, b.texts, b.ends, dtype, b.given.builder == "text")) for b in work)
        waiting = deque(itertools.islice(asked, ahead))
        try:
            while waiting:
                batch, future = waiting.popleft()
                waiting.extend(itertools.islice(asked, 1))
                yield batch, future.result()
        except UnicodeEncodeError as error:
            raise ValueError(f"{batch.given.name}, {batch.place} or shortly before: holds half a character "
                             f"({error.reason}); mend that row") from error  # fmt: skip
        except BrokenProcessPool as error:
            raise ValueError("a worker was killed, often because memory ran out; the same command with fewer --workers "
                             "goes on") from error  # fmt: skip
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _now(work: Callable, *given) -> Future:
    done: Future = Future()
    try:
        done.set_result(work(*given))
    except UnicodeEncodeError as error:
        done.set_exception(error)
    return done
