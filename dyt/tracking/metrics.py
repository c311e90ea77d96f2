"""metrics.jsonl: each step once, whole lines or none, whatever the disk does."""

import contextlib
import errno
import json
import os
from pathlib import Path

from dyt.rundir.files import finite, write_text


def read_metrics(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl; a torn or broken line is left out."""
    try:
        return rows_of_text(path.read_text(errors="replace"))
    except FileNotFoundError:
        return []


def rows_of_text(text: str) -> list[dict]:
    """The whole rows among the lines of a metrics.jsonl."""
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


class Metrics:
    """Appends rows to metrics.jsonl, each step once. Rows after step `start`, of a run cut off, come anew.

    Of a run that starts from scratch all do, that of step 0 too, which has what a conversion did.
    """

    def __init__(self, path: Path, start: int):
        self.rows = [row for row in read_metrics(path) if row["step"] <= start] if start else []
        write_text(path, "".join(json.dumps(row) + "\n" for row in self.rows))
        self.unwritten: list[str] = []  # lines that a full disk did not take yet
        self._file: int | None = os.open(path, os.O_WRONLY | os.O_APPEND)

    def log(self, row: dict) -> None:
        """`row` has ``step``; a value that is not finite is written as null, since JSON has no NaN.

        Raises:
            OSError: it could not be written; it is kept and comes with the next row.
        """
        row = finite(row)
        self.rows.append(row)
        self.unwritten.append(json.dumps(row) + "\n")
        self.flush()

    def flush(self) -> None:
        """Writes what is kept, line by line, whole lines or none of them."""
        if os.fstat(self._file).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "the file was removed")
        while self.unwritten:
            line, size = self.unwritten[0].encode(), os.fstat(self._file).st_size
            if os.write(self._file, line) < len(line):
                os.ftruncate(self._file, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.unwritten.pop(0)

    def sync(self) -> None:
        """To the disk itself, not only out of this process."""
        self.flush()
        os.fsync(self._file)

    def close(self) -> None:
        """Writes what it can; `unwritten` is what it could not."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self.sync()
            os.close(self._file)
            self._file = None
