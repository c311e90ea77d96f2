"""What a run writes whose model is sharded: checkpoints by all processes together, the rest by the leading one."""

from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import torch.distributed as dist

from dyt.rundir import sharded
from dyt.training.saving import Saver


class SaverTogether(Saver):
    """For a model that no process has whole: all write, each its part, in a thread beside training (rundir/sharded.py).

    Every process calls every method alike. What went wrong shows at the next checkpoint, or at the end.

    Args:
        alphas: gives each layer's alpha, which takes all processes; the newest are in ``known``, for the logger.
    """

    def __init__(self, folder: Path, metrics=None, logger=None, *, world, alphas, known: dict, **how):
        super().__init__(folder, metrics, logger, **how)
        self.world, self.alphas, self.known = world, alphas, known
        self.group = dist.new_group(backend="gloo")  # its own: training goes on over the others
        self.thread = ThreadPoolExecutor(1)
        self.pending: list[tuple[int, str, partial, Future]] = []

    def row(self, row: dict) -> None:
        if any(key.startswith("val/") for key in row):
            self.known.update(self.alphas())
        super().row(row)

    def best(self, step: int, weights: dict | None) -> None:
        if weights is not None:
            self._begin("the best checkpoint", "best", step, weights, {}, keep=1)

    def checkpoint(self, step: int, state) -> None:
        rows = self.metrics is None or self.disk.attempt("metrics.jsonl", self.metrics.sync)
        if self.world.shared(rows):
            plain = state()
            boxes = plain.pop("boxes")
            plain.pop("step")
            self._begin("a checkpoint", "step", step, boxes, plain, keep=self.keep)

    def _begin(self, what: str, kind: str, step: int, boxes: dict, plain: dict, keep: int) -> None:
        self._settle(before=step)
        write = partial(sharded.save, self.folder, kind, step, boxes, plain, keep, self.group)
        self.pending.append((step, what, write, self.thread.submit(write)))

    def _settle(self, before: float) -> None:
        """Waits for what was begun before a step; the best weights that the disk refused are tried again."""
        due = [entry for entry in self.pending if entry[0] < before]
        self.pending = [entry for entry in self.pending if entry[0] >= before]
        for step, what, write, future in due:
            if not self.disk.attempt(what, future.result) and what == "the best checkpoint":
                self.pending.append((step, what, write, self.thread.submit(write)))

    def finish(self) -> None:
        wait([future for *_, future in self.pending], timeout=600)

    def end(self) -> None:
        self._settle(before=float("inf"))
        self.finish()  # a last try, of which `end` tells
        self._settle(before=float("inf"))
        self.disk.end()
