"""Where numbers go: metrics.jsonl, which is the truth, and W&B, which is a view of it."""

import json
import logging
import math
import netrc
import os
from pathlib import Path

from dyt.manifest import write_text

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
        self._stream = open(path, "a")

    def log(self, row: dict) -> None:
        """`row` has ``step``; a value that is not finite is written as null, since JSON has no NaN."""
        row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self.rows.append(row)
        self._stream.write(json.dumps(row) + "\n")
        self._stream.flush()

    def sync(self) -> None:
        """To the disk itself, not only out of this process."""
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        if not self._stream.closed:
            self.sync()
            self._stream.close()


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
