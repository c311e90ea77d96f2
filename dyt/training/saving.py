"""What a run writes on its way: rows, the best weights, checkpoints. Only the leading process does.

Where the model is sharded, all processes write checkpoints together (saving_together.py).
"""

from functools import partial
from pathlib import Path

from dyt.rundir import checkpoint
from dyt.rundir.patience import Patience


class Saver:
    """Writes into a run's directory, with patience for a disk that is full or gone (rundir/patience.py).

    Args:
        folder: the run's ``checkpoints/``.
        metrics: of the leading process; None in the others, which write nothing.
        logger: of the leading process; None in the others.
        patience: seconds for which writing may fail before the run does.
        keep: how many of the newest checkpoints stay.
    """

    def __init__(self, folder: Path, metrics=None, logger=None, *, patience: float, keep: int):
        self.folder, self.metrics, self.logger, self.keep = folder, metrics, logger, keep
        self.disk = Patience(patience, str(folder.parent))
        self.unsaved: tuple[int, dict] | None = None  # step and weights of a best checkpoint still to be written

    def row(self, row: dict) -> None:
        """Appends a row to metrics.jsonl, and shows it to W&B or TensorBoard."""
        if self.metrics:
            self.disk.attempt("metrics.jsonl", partial(self.metrics.log, row))
            self.logger.log(row)

    def best(self, step: int, weights: dict | None) -> None:
        """Writes ``best-<step>.pt``; where the disk refuses, those weights wait for the next call (None: no new best).

        Training goes on meanwhile, so weights that wait are copied.
        """
        if not self.metrics:
            return
        if weights is not None:
            self.unsaved = step, weights
        if self.unsaved is None:
            return
        write = partial(checkpoint.save, self.folder, "best", self.unsaved[0], {"model": self.unsaved[1]}, keep=1)
        if self.disk.attempt("the best checkpoint", write):
            self.unsaved = None
        elif weights is not None:
            self.unsaved = step, {k: v.clone() for k, v in weights.items()}

    def checkpoint(self, step: int, state) -> None:
        """Writes ``step-<step>.pt`` of what ``state()`` gives, rows first: they must not be behind it after a crash."""
        if self.metrics and self.disk.attempt("metrics.jsonl", self.metrics.sync):
            write = partial(checkpoint.save, self.folder, "step", step, state(), keep=self.keep)
            self.disk.attempt("a checkpoint", write)

    def finish(self) -> None:
        """Waits for what is being written beside training, however that ended."""

    def end(self) -> None:
        """Raises:
        Unwritable: something still could not be written at its last attempt.
        """
        self.disk.end()
