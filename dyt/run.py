"""One run, from its plan to its summary: `execute` names the stages, which follow it in their order."""

import contextlib
import os
import sys
import time
import traceback
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dyt.config.identity import Plan
from dyt.fit import refuse_other_heads, refuse_unfit, swap_of
from dyt.opening import announce, open_directory, take_directory
from dyt.resume import finished, known_by_weights, where_to_start
from dyt.rundir.processes import place
from dyt.summary import conclude


def first(base: Plan) -> dict:
    """Trains the run that another one starts from; where somebody else is at that, waits for it.

    Under a ``wandb agent`` W&B gets nothing of it: the trial is the other run, and a process has one trial.
    """
    from dyt.rundir.lock import Held
    from dyt.tracking.wandb import agents_id
    from dyt.training.faults import say

    logger = base.config["logger"]
    if agents_id() and logger["kind"] == "wandb":
        base = replace(base, config=base.config | {"logger": logger | {"mode": "disabled"}})
    told = False
    while True:
        try:
            return execute(base)
        except Held as error:
            if not told:
                say(f"waiting for the run to start from: {error}")
            told = True
            time.sleep(1)


def assemble(config: dict, world, rng_seed: int, known: dict | None = None):
    """(data, model, norm factory, task) of a config, the model on the world's device; `known` as in `open_data`.

    A model that is to be sharded is in the leading process's own memory, and without values in the others.

    Raises:
        ValueError, OSError: a part does not fit or is missing; one line with the key to set.
    """
    import torch

    from dyt.data import open_data
    from dyt.data.order import seed_all
    from dyt.tasks import build_task
    from models import build_model

    data = open_data(config["data"], config["model"].get("context"), known)
    seed_all(rng_seed, "init")  # norms draw nothing, so equal shapes start equal whatever the norm
    # Where no process is to hold the whole model, the leading one alone draws its weights, in its own memory.
    elsewhere = world.sharded and not world.leads
    try:
        with torch.device("meta") if elsewhere else contextlib.nullcontext():
            model, factory = build_model(config["model"], config["norm"], data.spec)
    except (RuntimeError, MemoryError, OverflowError, AssertionError, TypeError, ZeroDivisionError) as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise ValueError(
            f"model={config['model']['name']}: cannot be built from these model.* values ({text})"
        ) from error
    _precise(model, config)
    if not world.sharded:
        model.to(world.device)
    return data, model, factory, build_task(config, data.spec.classes)


def _precise(model, config: dict) -> None:
    """In double precision where the config says so; the model then takes floats of any kind."""
    if config["trainer"]["precision"] == "double":
        model.double().register_forward_pre_hook(_as_double)


def _as_double(_, inputs: tuple) -> tuple:
    from torch import Tensor

    return tuple(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)


def execute(plan: Plan) -> dict:
    """Trains the run, or goes on with it; returns its summary. A dry run only says what it would take.

    Raises:
        ValueError, OSError: bad input, found before anything is written.
        KeyboardInterrupt: stopped while the run trained that it starts from.
    """
    if plan.config["trainer"]["dry_run"]:
        from dyt.forecast.dry_run import dry_run

        if place().rank == 0:
            print(dry_run(plan.config), flush=True)
        return {"status": "dry run", "final": {}}
    if (done := finished(plan)) is not None:
        from dyt.tracking.wandb import report_to_agent

        if place().rank == 0:
            print(f"already {done['status']}: {plan.dir}")
        report_to_agent(plan.config, plan.dir, done)
        return done
    refuse_other_heads(plan)
    if plan.base is not None and finished(plan.base) is None:
        refuse_unfit(plan)
    if plan.base is not None and (base := first(plan.base))["status"] != "finished":
        if base["status"] == "interrupted":
            raise KeyboardInterrupt  # which was meant for this run too
        raise ValueError(
            f"init_from={plan.config['init_from']}: that run is {base['status']}, so this one cannot begin"
        )
    with contextlib.ExitStack() as held:
        run = prepare(plan)
        if (done := take_directory(run, held)) is not None:
            return done
        start = where_to_start(plan, run.loop)
        announce(run, start)
        forewarn(run)
        saver = open_directory(run)
        status, why = "failed", None
        try:
            status, why = train(run, saver)
        finally:
            summary = conclude(run, saver, status, why)
        return summary


@dataclass
class Run:
    """A run's plan with everything that it is made of, built and on its device."""

    plan: Plan
    world: Any  # training/distributed.py: this process among those of the run
    data: Any
    model: Any
    norms: Any  # the factory that made them, which knows their sites
    task: Any
    order: Any
    schedule: Any
    probe: Any
    loop: Any
    parameters: int  # of the whole model

    @property
    def checkpoints(self) -> Path:
        return self.plan.dir / "checkpoints"


def prepare(plan: Plan) -> Run:
    """Sets up the process, and builds data, model and loop. Writes nothing."""
    import torch

    from dyt import kernels
    from dyt.data.order import Order, pieces_of
    from dyt.tasks import refuse_unread
    from dyt.training import cpu
    from dyt.training.distributed import join
    from dyt.training.loop import Trainer
    from dyt.training.probe import Probe
    from dyt.training.schedule import Schedule

    config, trainer = plan.config, plan.config["trainer"]
    world = join(trainer["device"], trainer["strategy"], trainer["tp"])
    cpu.prepare(trainer["threads"])
    if config["deterministic"]:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config["deterministic"])
    kernels.force(trainer["kernel"])
    data, model, norms, task = assemble(config, world, config["seed"], known_by_weights(plan))
    refuse_unread(task, config)
    batch, ranks = config["data"]["batch_size"], world.data_size
    pieces = pieces_of(batch, ranks, trainer["micro_batch"], paired=task.paired) or trainer["accumulate"]
    order = Order(data.samples, batch, config["seed"], pieces, world.data_rank, ranks, paired=task.paired)
    schedule = Schedule.of(trainer, order.steps_per_epoch)
    probing = trainer["probe_every"] and (world.leads or world.sharded)
    probe = Probe(model, norms.made, task, data, world) if probing else None
    parameters = sum(p.numel() for p in model.parameters())
    loop = Trainer(config, model, task, data, order, schedule, world, probe)
    if config.get("convert"):
        loop.conversion = partial(_convert, plan, loop)
    return Run(plan, world, data, model, norms, task, order, schedule, probe, loop, parameters)


def _convert(plan: Plan, loop, weights: dict, named: str) -> dict:
    """Gives the loop's model the weights of `plan.base`, its norms converted; returns a row of before and after."""
    import itertools

    from dyt.conversion.calibrate import BATCHES
    from dyt.data.order import Order, pieces_of
    from dyt.rundir import checkpoint
    from dyt.tasks import Place
    from dyt.training.evaluation import evaluate
    from models import build_model

    old, _ = build_model(plan.base.config["model"], plan.base.config["norm"], loop.data.spec)
    _precise(old, plan.config)
    checkpoint.load_weights(old.to(loop.world.device), weights, named)
    measured = (loop.task, loop.data, "val", loop.world, loop.autocast, loop.trainer["eval_batches"])
    before = evaluate(old, *measured)
    swap = swap_of(old, loop.model, plan.config["convert"])
    if plan.config["convert"] == "calibrated":
        # The same ones in each process, so that all calibrate alike: those of one process alone.
        pieces = pieces_of(loop.order.batch, 1, loop.trainer["micro_batch"]) or loop.trainer["accumulate"]
        order = Order(loop.order.size, loop.order.batch, loop.order.seed, pieces)
        some = itertools.islice(loop.data.train_batches(order, 0, BATCHES), BATCHES)
        some = (loop.world.moved(batch) for batch in some if len(batch[1]))  # of which something could be read
        prepared = [loop.task.prepare(*batch, Place(("val",), i)) for i, batch in enumerate(some)]
        swap.calibrate(prepared, forward=lambda model, batch: loop.task.measure(model, *batch))
    else:
        if plan.config["convert"] == "naive":
            swap.carry_over()
        swap.put(swap.order)
    checkpoint.load_weights(loop.model, old.state_dict(), named)
    after = evaluate(loop.model, *measured)
    return {**after, **{f"before/{key.split('/')[1]}": value for key, value in before.items()}}


def forewarn(run: Run) -> None:
    """Says before the first step what will not do: too little memory, pictures that are blown up."""
    from dyt.forecast.warn import warnings
    from dyt.training.faults import say

    if run.world.leads:
        about = (run.plan.config, run.model, run.task, run.data, run.order, run.world, place().per_machine)
        for line in warnings(*about):
            say(f"warning: {line}")


def train(run: Run, saver) -> tuple[str, str | None]:
    """Status and, where it did not simply finish, why in words. What goes wrong ends here, not in the caller."""
    from dyt.rundir.patience import Unwritable
    from dyt.rundir.processes import speaks
    from dyt.training.faults import explain, say, write_failure
    from dyt.training.loop import Diverged
    from dyt.training.probe import Probe

    try:
        return run.loop.fit(saver), None
    except Diverged as error:
        if run.world.leads:
            say(f"diverged: {error}. That is a result; the curve and the last checkpoint are kept.")
        if run.world.leads or run.world.sharded:  # which runs in all processes or in none
            seen = run.probe or Probe(run.model, run.norms.made, run.task, run.data, run.world)
            file = run.plan.dir / "failure.json" if run.world.leads else None
            try:
                write_failure(file, run.loop, seen, error)
            except OSError as full:  # it is a divergence all the same
                say(f"failure.json could not be written ({full.strerror})", file=sys.stderr)
        return "diverged", str(error)
    except Unwritable as error:
        if speaks():
            say(f"failed: {error}", file=sys.stderr)
        return "failed", str(error)
    except KeyboardInterrupt:
        return "interrupted", "stopped at once by a second signal"
    except Exception as error:
        why, loud = explain(error, run.plan.config), speaks()
        if loud and (why is None or os.environ.get("DYT_TRACEBACK")):
            traceback.print_exc()
        why = why or f"{type(error).__name__}: {error}"
        if loud:
            say(f"failed in step {run.loop.step + 1}: {why}", file=sys.stderr)
        return "failed", why
