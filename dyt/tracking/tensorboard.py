"""TensorBoard as a logger: what W&B would get, under the same names and steps."""

import logging
import math
from pathlib import Path

import numpy as np
from PIL import Image

from dyt.config import variants
from dyt.config.identity import flatten

log = logging.getLogger(__name__)
LAYOUT = {  # the tab "Custom scalars" in the page's order
    "Answer": {"validation": ["Multiline", ["val/loss", "val/top1"]]},
    "Curves": {key: ["Multiline", [key]] for key in ("train/loss", "grad_norm")},
    "Tuning": {"learning rate": ["Multiline", ["^lr$"]]},
    "Layers": {
        "alpha": ["Multiline", ["probe/.*/alpha"]],
        "saturated": ["Multiline", ["probe/.*/saturated"]],
        "gradient norm": ["Multiline", ["probe/.*/grad_norm"]],
    },
}


class TensorBoard:
    """Scalars of a run in ``<run directory>/tensorboard``; it cannot hurt the run: a failure is one warning.

    Args:
        rows: of metrics.jsonl up to step `start`; later ones, of a run cut off, come anew.

    Raises:
        ValueError: the package is not installed.
    """

    url = None

    def __init__(self, folder: Path, config: dict, rows: list[dict], start: int):
        self.writer = None
        if config["logger"]["mode"] == "disabled":
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("logger=tensorboard: the package is missing; type pip install tensorboard") from error
        place = folder / "tensorboard"
        if start == 0:  # from scratch: what a process left that was killed before its first checkpoint comes anew
            self._try(lambda: [file.unlink() for file in place.glob("events.*")])
        new = not list(place.glob("events.*"))
        self._try(lambda: self._open(SummaryWriter, place, start))
        if new:
            self._try(lambda: self.writer.add_text("variant", f"{variants.of_run(config)}, seed {config['seed']}", 0))
            self._try(lambda: self.writer.add_custom_scalars(LAYOUT))
            lines = "\n".join(f"    {key}: {value}" for key, value in flatten(config).items())
            self._try(lambda: self.writer.add_text("config", lines, 0))
            for row in rows:  # of the run that this one extends
                self.log(row)

    def _open(self, kind, place: Path, start: int) -> None:
        self.writer = kind(str(place), purge_step=start + 1)

    def _try(self, action) -> None:
        try:
            action()
        except (OSError, AttributeError) as error:  # no writer: opening it failed, which was said
            if self.writer or isinstance(error, OSError):
                log.warning("TensorBoard stopped working (%s); training goes on and metrics.jsonl has all", error)
            self.writer = None

    def log(self, row: dict) -> None:
        """Every number of a row but its step. Like metrics.jsonl's it outlives a kill that comes next."""
        for key, value in row.items():
            if self.writer and key != "step":
                number = math.nan if value is None else value
                self._try(lambda k=key, v=number: self.writer.add_scalar(k, v, row["step"]))
        if self.writer:
            self._try(self.writer.flush)

    def finish(self, summary: dict, failed: bool, sample: str | None = None, picture: Path | None = None, **_) -> None:
        if self.writer and sample is not None:
            self._try(lambda: self.writer.add_text("sample", "\n".join(f"    {x}" for x in sample.splitlines())))
        if self.writer and picture is not None:
            pixels = np.asarray(Image.open(picture).convert("RGB"))
            self._try(lambda: self.writer.add_image("samples", pixels, dataformats="HWC"))
        if self.writer:
            self._try(self.writer.close)
