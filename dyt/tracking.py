"""Where numbers go: metrics.jsonl, which is the truth, and W&B, which is a view of it."""

import contextlib
import errno
import json
import logging
import netrc
import os
from pathlib import Path

from dyt.manifest import finite, write_text

log = logging.getLogger(__name__)


def read_metrics(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl; a torn or broken line is left out."""
    rows = []
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return rows
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


class Metrics:
    """Appends rows to metrics.jsonl, each step once. Rows after step `start`, of a run cut off, come anew."""

    def __init__(self, path: Path, start: int):
        self.rows = [row for row in read_metrics(path) if row["step"] <= start]
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


def has_key() -> bool:
    """Whether a W&B key is configured: in the environment or in netrc. Asks nothing."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    return server in hosts


def wandb_mode(mode: str) -> str:
    """``auto`` as online, offline or disabled; the WANDB_MODE variable wins over auto."""
    if mode != "auto":
        return mode
    asked = os.environ.get("WANDB_MODE", "").lower()
    if asked in ("online", "offline", "disabled"):
        return asked
    return "online" if has_key() else "offline"


class Wandb:
    """A W&B run that cannot hurt ours: the first failure is one warning, and from then on it is silent."""

    def __init__(self, mode: str, folder: Path, run_id: str, config: dict, **about):
        self.run, self.url = None, None
        mode = wandb_mode(mode)
        if mode == "disabled":
            return
        for attempt in (mode, "offline"):
            try:
                self.run = self._start(attempt, folder, run_id, config, **about)
                self.url = self.run.url if attempt == "online" else None
                return
            except Exception as error:  # wandb raises its own, requests' and OS errors alike
                text = " ".join(str(error).split())[:160]
                again = "; going on offline" if attempt == "online" else "; going on without it"
                log.warning("W&B could not start %s (%s: %s)%s", attempt, type(error).__name__, text, again)
                if attempt == "offline":
                    return

    def _start(self, mode: str, folder: Path, run_id: str, config: dict, **about):
        import wandb

        run = wandb.init(
            mode=mode,
            dir=str(folder.resolve()),  # its service process may stand elsewhere
            id=run_id,
            resume="allow",
            config=config,
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, console="off", init_timeout=20),
            **about,
        )
        # Our own step is the x-axis: wandb's counter starts at 0 again when an offline run is resumed.
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        return run

    def _try(self, action) -> None:
        if self.run is None:
            return
        try:
            action()
        except Exception as error:
            log.warning("W&B stopped working (%s: %s); metrics.jsonl goes on", type(error).__name__, error)
            self.run = None

    def log(self, row: dict) -> None:
        self._try(lambda: self.run.log(row))

    def finish(self, summary: dict, failed: bool) -> None:
        self._try(lambda: self.run.summary.update(summary))
        self._try(lambda: self.run.finish(exit_code=1 if failed else 0))
        self.run = None
