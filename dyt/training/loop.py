"""The loop, and only the loop: image models and language models alike. It counts optimizer steps.

    batch -> loss -> backward -> clip -> finite? -> step;  once in a while: log, evaluate, save

One number is read from the device each step, for the finite check; all else only on log, evaluation and save steps.
"""

import math
import sys
import time
from collections import deque

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dyt.data.ahead import ahead, each
from dyt.data.order import Order, seed_all
from dyt.rundir.meaning import rises
from dyt.tasks import Place, Task
from dyt.training.average import Average
from dyt.training.distributed import World
from dyt.training.evaluation import at_end, evaluate
from dyt.training.faults import say
from dyt.training.optim import build, learning_rate
from dyt.training.saving import Saver
from dyt.training.schedule import Clock, Schedule, Stop
from dyt.training.sharding import Layout

# Keys of a row that differ from run to run.
TIMING = ("time_s", "tokens_per_s", "images_per_s", "recordings_per_s", "eval_s")


class Diverged(Exception):
    """A loss or gradient norm that is not finite: a result."""

    def __init__(self, step: int, **seen: float):
        values = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in seen.items())
        super().__init__(f"{values} in step {step}")
        self.step = step


class Trainer:
    """Trains `model` from where its state says to ``schedule.total``.

    Args:
        config: the run's plain config.
        probe: measures the model once in a while (training/probe.py); None: never.
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
        self.trainer, self.optim, self.seed = config["trainer"], config["optim"], config["seed"]
        self.model, self.task, self.data, self.order = model, task, data, order
        self.schedule, self.world, self.probe = schedule, world, probe
        decay = self.trainer["ema_decay"]
        self.ema = Average(model, decay) if decay is not None else None
        self.layout = Layout(model, world, self.trainer, [self.ema.module] if self.ema else [])
        self.optimizer = build(model, self.optim)
        self.parameters = list(model.parameters())
        self.step, self.elapsed = 0, 0.0
        self.skips = config["data"].get("on_error") == "skip"
        self.skipped = 0  # training samples of all processes that could not be read, each time one was to be learned
        self.recent: deque[dict] = deque(maxlen=20)  # steps, for failure.json
        self.loss_sum, self.loss_count = 0.0, 0
        self.best: dict[str, list] = {}  # metric -> [value, step]
        self.final: dict[str, float] = {}
        self.late: float | None = None  # the gradient norm of a step after which what is due is still to be done
        self.conversion = None  # converts the weights that the run starts with; set by dyt.run
        self.before: dict[str, float] = {}  # its row, of step 0
        self.autocast = torch.autocast(
            world.device.type, dtype=torch.bfloat16, enabled=self.trainer["precision"] == "bf16"
        )

    # -- state -------------------------------------------------------------------------------------------------

    def state(self) -> dict:
        """All that exact continuation needs, as tensors and plain Python."""
        return {
            **self.layout.state(self.optimizer, self.ema),
            "step": self.step,
            "elapsed": self.elapsed,
            "skipped": self.skipped,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "best": self.best,
            "final": self.final,
            **({"late": self.late} if self.late is not None else {}),
        }

    def load(self, saved, source: str) -> None:
        """Goes on from a checkpoint (`checkpoint.opened`)."""
        self.layout.load(saved, self.optimizer, self.ema, source)
        state = saved.plain
        self.skipped, self.late = state.get("skipped", 0), state.get("late")
        for name in ("step", "elapsed", "loss_sum", "loss_count", "best", "final"):
            setattr(self, name, state[name])

    # -- the loop ----------------------------------------------------------------------------------------------

    def fit(self, saver: Saver) -> str:
        """Trains to the end; returns ``finished`` or ``interrupted``.

        Raises:
            Diverged: before the optimizer step that would have spoilt the weights.
            Unwritable: the disk took nothing for ``trainer.save_patience`` seconds, or not the last checkpoint.
        """
        every = self.schedule
        batches = ahead(self.data.train_batches(self.order, self.step, every.total), self.world.device)
        clock = Clock(self.step, self.elapsed)
        if self.before:
            saver.row({"step": 0, **self.before})
        with Stop() as stop, self.bar() as bar:
            if self.late is not None:  # a step whose checkpoint came before what is due after it
                self.after_step(bar, clock, saver, self.late)
            while self.step < every.total:
                loss, grad_norm, stopping = self.train_step(batches, self.learning_rate(self.step), stop)
                self.step += 1
                if not math.isnan(loss):
                    self.loss_sum, self.loss_count = self.loss_sum + loss, self.loss_count + 1
                bar.update()
                self.after_step(bar, clock, saver, grad_norm, stopping)
                if stopping and self.step < every.total:
                    saver.end()
                    return "interrupted"
        saver.end()
        return "finished"

    def after_step(self, bar: tqdm, clock: Clock, saver: Saver, grad_norm: float, stopping: bool = False) -> None:
        """What is due after a step once in a while: its row, with evaluation and probe, and a checkpoint."""
        every, at_end, row = self.schedule, self.step == self.schedule.total, {}
        with clock.paused():
            if at_end and self.late is None and type(self.task).at_end is not Task.at_end and not self.world.sharded:
                # What is measured there may take long or fail: a checkpoint from which only this is done again.
                self.late = grad_norm
                saver.checkpoint(self.step, self.state)
        self.late = None
        if self.step % every.log_every == 0 or at_end:
            row |= self.log(bar, clock, self.learning_rate(self.step - 1), grad_norm)
        with clock.paused():
            if self.step % every.eval_every == 0 or at_end:
                row |= self.evaluate("val")
            if every.probe_every and (self.step == 1 or self.step % every.probe_every == 0 or at_end):
                row |= self.probe.row(self.autocast, self.layout.norm) if self.probe else {}
            if at_end:
                row |= self.at_end(saver)
            if row:
                self.record(row, clock, saver)
            if self.step % every.save_every == 0 or at_end or stopping:
                saver.checkpoint(self.step, self.state)
                self.world.wait()

    def train_step(self, batches, lr: float, stop: Stop) -> tuple[float, float, bool]:
        """One optimizer step. Returns the batch's mean loss, the gradient norm, and whether to stop after it.

        Where no sample of the batch could be read nothing is learned, and the loss is NaN.
        """
        if not self.model.training:  # after an evaluation; walking the modules takes 0.1 ms
            self.layout.wrapped.train()
        total = torch.zeros((), device=self.world.device, dtype=self.parameters[0].dtype)
        pieces, read = self.order.pieces, 0
        for piece in range(pieces):
            batch = next(batches)
            count = len(batch[1])
            read += count
            if not count:  # a blank that weighs nothing: other processes may have some, and a piece is run by all
                batch = each(batch, lambda part: part.new_zeros(1, *part.shape[1:]))
            # Dropout and drop path draw from here: a function of the step, so a resumed run draws the same.
            seed_all(self.seed, "step", self.step, piece, self.world.data_rank)
            place = Place(("train", self.seed, self.step), self.order.first(piece))
            inputs, targets = self.task.prepare(*self.world.moved(batch), place)
            with self.layout.accumulating(last=piece == pieces - 1):
                with self.autocast:
                    loss = self.task.loss(self.layout.wrapped, inputs, targets) / pieces
                    loss = loss if count == self.order.share else loss * (count / self.order.share)
                loss.backward()
            total += loss.detach()
        learned = self.of_those_read(total, read) if self.skips else True
        grad_norm = self.layout.norm(self.parameters)
        if (clip := self.optim["clip_grad"]) is not None:
            if self.optim["clip_each"]:
                for p in self.parameters:
                    nn.utils.clip_grads_with_norm_([p], clip, self.layout.norm([p]))
            else:
                nn.utils.clip_grads_with_norm_(self.parameters, clip, grad_norm)
        # The step's one read of the device; a NaN of any process makes the sums NaN in all.
        seen = torch.stack((total, grad_norm.to(total), total.new_tensor(float(stop.asked))))
        loss, norm, asked = (self.world.add(seen) / self.world.size).tolist()
        self.recent.append({"step": self.step + 1, "loss": loss, "grad_norm": norm, "lr": lr})
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(self.step + 1, loss=loss, gradient_norm=norm)
        if not learned:
            self.optimizer.zero_grad(set_to_none=True)
            return math.nan, norm, asked > 0
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.task.after_step(self.model, self.step, self.schedule.total, self.world)
        if self.ema:
            self.ema.update(self.model)
        return loss, norm, asked > 0

    def of_those_read(self, total: Tensor, read: int) -> bool:
        """Makes loss and gradients, sums over the whole batch's size, means over what could be read; counts the rest.

        So a curve does not depend on the pieces and processes that a batch is divided into. Returns whether any was.

        Raises:
            ValueError: none yet, and an epoch or the run is over.
        """
        share = torch.tensor(read / (self.order.share * self.order.pieces), device=total.device, dtype=torch.float64)
        share = self.world.add(share).item() / self.world.size
        self.skipped += round((1 - share) * self.order.batch)
        done = self.step + 1
        if self.skipped == done * self.order.batch and done in (self.order.steps_per_epoch, self.schedule.total):
            raise ValueError("data.on_error=skip: no training sample could be read: nothing to go on with")
        if 0 < share < 1:
            total /= share
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad /= share
        return share > 0

    def shown(self) -> nn.Module:
        """The model that is evaluated and saved as the best: with EMA, of the averaged weights."""
        return self.ema.module if self.ema else self.model

    def learning_rate(self, step: int) -> float:
        """Of the optimizer step after `step` steps."""
        rates = {name: self.optim[name] for name in ("lr", "min_lr", "warmup_steps")}
        return learning_rate(step, self.schedule.total, **rates)

    def log(self, bar: tqdm, clock: Clock, lr: float, grad_norm: float) -> dict:
        """The row of what training saw since the last one; shown on the bar. Touches no disk."""
        unit, per_step = self.data.unit, self.order.batch * self.data.unit_per_sample
        row = {
            "train/loss": self.loss_sum / self.loss_count if self.loss_count else math.nan,
            "grad_norm": grad_norm,
            "lr": lr,
            "epoch": self.step / self.order.steps_per_epoch,
            unit: self.step * per_step,
            f"{unit}_per_s": clock.steps_per_s(self.step) * per_step,
        }
        self.loss_sum, self.loss_count = 0.0, 0
        self.show(bar, row)
        return row

    def evaluate(self, split: str) -> dict:
        """``{"val/loss": ...}`` over the split, every sample weighing the same; with EMA, of the averaged weights."""
        began, limit = time.perf_counter(), self.trainer["eval_batches"]
        row = evaluate(self.shown(), self.task, self.data, split, self.world, self.autocast, limit)
        return row | {"eval_s": time.perf_counter() - began}

    def at_end(self, saver: Saver) -> dict:
        """What the task measures once, of the finished model, in each process that is needed; its picture is kept."""
        if not (self.world.leads or self.world.sharded):
            return {}
        row, picture = at_end(self.shown(), self.task, self.data, "val", self.world, self.autocast)
        saver.picture(picture)
        return row

    def record(self, row: dict, clock: Clock, saver: Saver) -> None:
        """Writes the row, then the weights if they are the best so far.

        Raises:
            Diverged: the validation loss is not finite; the row is written, the weights are not.
        """
        improved = self.note(row)
        self.elapsed = clock.elapsed()
        saver.row({"step": self.step, **row, "time_s": self.elapsed})
        if not math.isfinite(row.get("val/loss", 0.0)):
            raise Diverged(self.step, validation_loss=row["val/loss"])
        saver.best(self.step, self.layout.weights(self.shown()) if improved else None)

    def note(self, row: dict) -> bool:
        """Keeps final and best of each metric; True when the one that picks the best checkpoint improved."""
        improved = False
        for key, value in row.items():
            if "/" not in key or key.startswith("probe/"):
                continue
            self.final[key] = value if math.isfinite(value) else None
            if not math.isfinite(value):
                continue
            better = max if rises(key) else min
            if key not in self.best or better(value, self.best[key][0]) != self.best[key][0]:
                self.best[key] = [value, self.step]
                improved |= key == self.task.best[0]
        return improved

    def bar(self) -> tqdm:
        """A progress bar, in a terminal and in the leading process only."""
        off = not (self.world.leads and sys.stderr.isatty())
        return tqdm(total=self.schedule.total, initial=self.step, unit="step", dynamic_ncols=True, disable=off)

    def show(self, bar: tqdm, row: dict) -> None:
        """The bar's figures; in a pipe, a line."""
        if not self.world.leads:
            return
        unit = self.data.unit
        seen = f"loss {row['train/loss']:.4f}, lr {row['lr']:.2e}, {row[f'{unit}_per_s']:,.0f} {unit}/s"
        if val := next((f", {k} {self.final[k]:.4f}" for k in (self.task.best[0],) if k in self.final), ""):
            seen += val
        if bar.disable:
            rate = row[f"{unit}_per_s"] / (self.order.batch * self.data.unit_per_sample)
            left = (self.schedule.total - self.step) / max(rate, 1e-9)
            say(f"step {self.step}/{self.schedule.total}: {seen}, {left:.0f} s left")
        else:
            bar.set_postfix_str(seen, refresh=False)
