"""The loop, and only the loop: image models and language models alike. It counts optimizer steps.

    batch -> loss -> backward -> clip -> finite? -> step;  once in a while: log, evaluate, save

One number is read from the device each step, for the finite check; all else only on log, evaluation and save steps.
"""

import contextlib
import math
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from dyt.data.order import Order, seed_all
from dyt.rundir import checkpoint
from dyt.rundir.patience import Patience
from dyt.rundir.streams import STOPS, heard
from dyt.tasks import sums_over
from dyt.training.distributed import World
from dyt.training.faults import say
from dyt.training.optim import adamw, learning_rate

TIMING = ("time_s", "tokens_per_s", "images_per_s", "eval_s")  # keys of a row that differ from run to run


class Diverged(Exception):
    """A loss or gradient norm that is not finite: a result."""

    def __init__(self, step: int, **seen: float):
        values = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in seen.items())
        super().__init__(f"{values} in step {step}")


@dataclass(frozen=True)
class Schedule:
    """Every duration, in optimizer steps."""

    total: int
    log_every: int
    eval_every: int
    save_every: int

    @classmethod
    def of(cls, trainer: dict, steps_per_epoch: int) -> "Schedule":
        total = trainer["max_steps"] or math.ceil(trainer["max_epochs"] * steps_per_epoch)
        eval_every = trainer["eval_every"] or steps_per_epoch
        return cls(total, trainer["log_every"], eval_every, trainer["save_every"] or eval_every)


class Stop:
    """Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP ask the loop to end after this step; a second one ends it at once.

    A terminal that closes may send SIGHUP twice: that one never counts as the second.
    """

    def __init__(self):
        self.asked = 0

    def _handle(self, number, frame):
        if self.asked and number != signal.SIGHUP:
            raise KeyboardInterrupt
        self.asked = 1

    def __enter__(self):
        self._before = {}
        with contextlib.suppress(ValueError):  # not in the main thread: the caller handles signals
            for number in (signal.SIGINT, *filter(heard, STOPS)):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Trainer:
    """Trains `model` from where its state says to ``schedule.total``.

    Args:
        config: the run's plain config.
        probe: measures the model once in a while (dyt/probe.py); None: never.
    """

    def __init__(
        self,
        config: dict,
        model: nn.Module,
        task,
        data,
        order: Order,
        schedule: Schedule,
        world: World,
        probe=None,
    ):
        self.probe = probe
        self.trainer, self.optim, self.seed = config["trainer"], config["optim"], config["seed"]
        self.model, self.task, self.data, self.order, self.schedule, self.world = (
            model,
            task,
            data,
            order,
            schedule,
            world,
        )
        self.optimizer = adamw(
            model,
            lr=self.optim["lr"],
            betas=self.optim["betas"],
            weight_decay=self.optim["weight_decay"],
        )
        self.parameters = list(model.parameters())
        self.ema = None
        if self.trainer["ema_decay"] is not None:
            from timm.utils import ModelEmaV3

            self.ema = ModelEmaV3(model, decay=self.trainer["ema_decay"])
        self.step, self.elapsed = 0, 0.0
        self.skipped = 0  # samples that could not be read, with data.on_error=skip
        self.recent: deque[dict] = deque(maxlen=20)  # steps, for failure.json
        self.loss_sum, self.loss_count = 0.0, 0
        self.best: dict[str, list] = {}  # metric -> [value, step]
        self.final: dict[str, float] = {}

        wrapped = torch.compile(model) if self.trainer["compile"] else model
        if world.size > 1:
            ids = [world.device.index] if world.device.type == "cuda" else None
            wrapped = DistributedDataParallel(wrapped, device_ids=ids)
        self.wrapped = wrapped
        self.autocast = torch.autocast(
            world.device.type, dtype=torch.bfloat16, enabled=self.trainer["precision"] == "bf16"
        )

    # -- state -------------------------------------------------------------------------------------------------

    def state(self) -> dict:
        """All that exact continuation needs, as tensors and plain Python."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "step": self.step,
            "elapsed": self.elapsed,
            "skipped": self.skipped,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "best": self.best,
            "final": self.final,
        }

    def load(self, state: dict, source: str) -> None:
        """Goes on from a checkpoint's state."""
        checkpoint.load_weights(self.model, state["model"], source)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema and state["ema"]:
            self.ema.module.load_state_dict(state["ema"])
        self.skipped = state.get("skipped", 0)
        for name in ("step", "elapsed", "loss_sum", "loss_count", "best", "final"):
            setattr(self, name, state[name])

    # -- the loop ----------------------------------------------------------------------------------------------

    def fit(self, metrics, logger, folder) -> str:
        """Trains to the end; returns ``finished`` or ``interrupted``.

        Raises:
            Diverged: before the optimizer step that would have spoilt the weights.
            Unwritable: the disk took nothing for ``trainer.save_patience`` seconds, or not the last checkpoint.
        """
        every, world = self.schedule, self.world
        batches = iter(self.data.train_batches(self.order, self.step, every.total))
        began, paused = time.perf_counter() - self.elapsed, 0.0
        bar = tqdm(
            total=every.total,
            initial=self.step,
            unit="step",
            dynamic_ncols=True,
            disable=not (world.leads and sys.stderr.isatty()),
        )
        last = (time.perf_counter(), self.step)
        disk = Patience(self.trainer["save_patience"], str(folder.parent))
        unsaved = None  # (step, weights) of a best checkpoint that is still to be written
        with Stop() as stop, bar:
            while self.step < every.total:
                # ------------------------------------------------------------------------------ one training step
                lr = learning_rate(
                    self.step,
                    every.total,
                    lr=self.optim["lr"],
                    min_lr=self.optim["min_lr"],
                    warmup_steps=self.optim["warmup_steps"],
                )
                loss, grad_norm, stopping = self.train_step(batches, lr, stop)
                self.step += 1
                self.loss_sum += loss
                self.loss_count += 1
                bar.update()
                # ---------------------------------------------------------------------------------- once in a while
                at_end = self.step == every.total
                row = {}
                if self.step % every.log_every == 0 or at_end:
                    now = time.perf_counter()
                    samples = (self.step - last[1]) * self.order.batch
                    speed = samples * self.data.unit_per_sample / max(1e-9, now - last[0] - paused)
                    row |= {
                        "train/loss": self.loss_sum / self.loss_count,
                        "grad_norm": grad_norm,
                        "lr": lr,
                        "epoch": self.step / self.order.steps_per_epoch,
                        self.data.unit: self.step * self.order.batch * self.data.unit_per_sample,
                        f"{self.data.unit}_per_s": speed,
                    }
                    self.loss_sum, self.loss_count = 0.0, 0
                    last, paused = (now, self.step), 0.0
                    self.show(bar, row, every.total)
                pause = time.perf_counter()
                improved = False
                if self.step % every.eval_every == 0 or at_end:
                    row |= self.evaluate("val")
                    row["eval_s"] = time.perf_counter() - pause
                probe_every = self.trainer["probe_every"]
                if self.probe and (self.step == 1 or self.step % probe_every == 0 or at_end):
                    row |= self.probe.row(self.autocast)
                if row:
                    improved = self.note(row)
                    row = {"step": self.step, **row, "time_s": time.perf_counter() - began}
                    if metrics:
                        disk.attempt("metrics.jsonl", partial(metrics.log, row))
                        logger.log(row)
                self.elapsed = time.perf_counter() - began
                if not math.isfinite(row.get("val/loss", 0.0)):
                    raise Diverged(self.step, validation_loss=row["val/loss"])
                if world.leads and improved:
                    unsaved = (self.step, self.shown().state_dict())
                if unsaved and row:
                    best = partial(checkpoint.save, folder, "best", unsaved[0], {"model": unsaved[1]}, keep=1)
                    if disk.attempt("the best checkpoint", best):
                        unsaved = None
                    elif improved:  # training goes on; these weights wait as they are now
                        unsaved = (self.step, {k: v.clone() for k, v in unsaved[1].items()})
                if self.step % every.save_every == 0 or at_end or stopping:
                    if world.leads and disk.attempt("metrics.jsonl", metrics.sync):
                        keep = self.trainer["keep"]
                        save = partial(checkpoint.save, folder, "step", self.step, self.state(), keep=keep)
                        disk.attempt("a checkpoint", save)
                    world.wait()
                paused += time.perf_counter() - pause
                if stopping and not at_end:
                    disk.end()
                    return "interrupted"
        disk.end()
        return "finished"

    def train_step(self, batches, lr: float, stop: Stop) -> tuple[float, float, bool]:
        """One optimizer step. Returns the batch's mean loss, the gradient norm, and whether to stop after it."""
        if not self.model.training:  # after an evaluation; walking the modules takes 0.1 ms
            self.wrapped.train()
        total = torch.zeros((), device=self.world.device)
        pieces = self.order.pieces
        for piece in range(pieces):
            inputs, targets = next(batches)
            self.skipped += self.order.share - len(targets)
            # Dropout, drop path and mixup draw from here: a function of the step, so a resumed run draws the same.
            seed_all(self.seed, "step", self.step, piece, self.world.rank)
            inputs = inputs.to(self.world.device, non_blocking=True)
            targets = targets.to(self.world.device, non_blocking=True)
            only_last = self.world.size > 1 and piece < pieces - 1
            with self.wrapped.no_sync() if only_last else contextlib.nullcontext():
                with self.autocast:
                    loss = self.task.loss(self.wrapped, inputs, targets) / pieces
                loss.backward()
            total += loss.detach()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        grad_norm = nn.utils.get_total_norm(gradients)
        if (clip := self.optim["clip_grad"]) is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, clip, grad_norm)
        # The step's one read of the device; a NaN of any process makes the sums NaN in all.
        seen = torch.stack((total, grad_norm.to(total), total.new_tensor(float(stop.asked))))
        loss, norm, asked = (self.world.add(seen) / self.world.size).tolist()
        self.recent.append({"step": self.step + 1, "loss": loss, "grad_norm": norm, "lr": lr})
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(self.step + 1, loss=loss, gradient_norm=norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.model)
        return loss, norm, asked > 0

    def shown(self) -> nn.Module:
        """The model that is evaluated and saved as the best: with EMA, of the averaged weights."""
        return self.ema.module if self.ema else self.model

    @torch.no_grad()
    def evaluate(self, split: str) -> dict:
        """``{"val/loss": ...}`` over the split, every sample weighing the same; with EMA, of the averaged weights."""
        return evaluate(
            self.shown(), self.task, self.data, split, self.world, self.autocast, self.trainer["eval_batches"]
        )

    def note(self, row: dict) -> bool:
        """Keeps final and best of each metric; True when the one that picks the best checkpoint improved."""
        improved = False
        for key, value in row.items():
            if "/" not in key or key.startswith("probe/"):
                continue
            self.final[key] = value if math.isfinite(value) else None
            if not math.isfinite(value):
                continue
            better = max if key.split("/")[-1].startswith("top") else min
            if key not in self.best or better(value, self.best[key][0]) != self.best[key][0]:
                self.best[key] = [value, self.step]
                improved |= key == self.task.best[0]
        return improved

    def show(self, bar, row: dict, total: int) -> None:
        """The bar's figures; in a pipe, a line."""
        if not self.world.leads:
            return
        unit = self.data.unit
        seen = f"loss {row['train/loss']:.4f}, lr {row['lr']:.2e}, {row[f'{unit}_per_s']:,.0f} {unit}/s"
        if val := next((f", {k} {self.final[k]:.4f}" for k in (self.task.best[0],) if k in self.final), ""):
            seen += val
        if bar.disable:
            rate = row[f"{unit}_per_s"] / (self.order.batch * self.data.unit_per_sample)
            left = (total - self.step) / max(rate, 1e-9)
            say(f"step {self.step}/{total}: {seen}, {left:.0f} s left")
        else:
            bar.set_postfix_str(seen, refresh=False)


@torch.no_grad()
def evaluate(model: nn.Module, task, data, split: str, world: World, autocast, limit: int | None = None) -> dict:
    """Metrics of `model` on a split, named ``<split>/<metric>``, weighted exactly over all processes."""
    model.eval()
    with autocast:
        sums = sums_over(model, data.eval_batches(split, world.rank, world.size, limit), world.device, task.measure)
    if sums is None:  # more processes than batches
        sums = torch.zeros(len(task.names) + 1, dtype=torch.float64, device=world.device)
    *values, count = world.add(sums).tolist()
    return {f"{split}/{name}": value / count for name, value in zip(task.names, values, strict=True)}
