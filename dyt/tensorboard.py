"""TensorBoard as a logger: what W&B would get, under the same names and steps."""

import math
from pathlib import Path

from dyt.config import flatten


class TensorBoard:
    """Scalars of a run in ``<run directory>/tensorboard``; rows after step `start`, of a run cut off, come anew.

    Raises:
        ValueError: the package is not installed.
    """

    url = None

    def __init__(self, folder: Path, config: dict, start: int):
        self.writer = None
        if config["logger"]["mode"] == "disabled":
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("logger=tensorboard: the package is missing; type pip install tensorboard") from error
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)
        if not start:
            lines = "\n".join(f"    {key}: {value}" for key, value in flatten(config).items())
            self.writer.add_text("config", lines, 0)

    def log(self, row: dict) -> None:
        """Every number of a row but its step."""
        for key, value in row.items():
            if self.writer and key != "step":
                self.writer.add_scalar(key, math.nan if value is None else value, row["step"])

    @property
    def shows(self) -> bool:
        """Whether anybody sees what is logged."""
        return self.writer is not None

    def finish(self, summary: dict, failed: bool, sample: str | None = None, **_) -> None:
        if self.writer:
            if sample is not None:
                self.writer.add_text("sample", "\n".join(f"    {line}" for line in sample.splitlines()))
            self.writer.close()
