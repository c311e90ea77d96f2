"""One run, from its plan to its summary: `execute` names the stages, which follow it in their order."""

import contextlib
import json
import os
import sys
import time
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from dyt.config.identity import Plan
from dyt.resume import finished, known_by_weights, where_to_start
from dyt.rundir.files import manifests, read_json, remove_parts, write_json, write_text


def first(base: Plan) -> dict:
    """Trains the run that another one starts from; where somebody else is at that, waits for it."""
    from dyt.rundir.lock import Held
    from dyt.training.faults import say

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

    Raises:
        ValueError, OSError: a part does not fit or is missing; one line with the key to set.
    """
    from dyt.data import open_data
    from dyt.data.order import seed_all
    from dyt.tasks import build_task
    from models import build_model

    data = open_data(config["data"], config["model"].get("context"), known)
    seed_all(rng_seed, "init")  # norms draw nothing, so equal shapes start equal whatever the norm
    try:
        model, factory = build_model(config["model"], config["norm"], data.spec)
    except (RuntimeError, MemoryError, OverflowError, AssertionError, TypeError, ZeroDivisionError) as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise ValueError(
            f"model={config['model']['name']}: cannot be built from these model.* values ({text})"
        ) from error
    return data, model.to(world.device), factory, build_task(config, data.spec.classes)


def execute(plan: Plan) -> dict:
    """Trains the run, or goes on with it; returns its summary.

    Raises:
        ValueError, OSError: bad input, found before anything is written.
    """
    if (done := finished(plan)) is not None:
        from dyt.tracking.wandb import report_to_agent

        print(f"already {done['status']}: {plan.dir}")
        report_to_agent(plan.config, plan.dir, done)
        return done
    if plan.base is not None and (base := first(plan.base))["status"] != "finished":
        raise ValueError(
            f"init_from={plan.config['init_from']}: that run is {base['status']}, so this one cannot begin"
        )
    with contextlib.ExitStack() as held:
        run = prepare(plan)
        if (done := take_directory(run, held)) is not None:
            return done
        start = where_to_start(plan, run.loop)
        announce(run, start)
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

    @property
    def checkpoints(self) -> Path:
        return self.plan.dir / "checkpoints"

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())


def prepare(plan: Plan) -> Run:
    """Sets up the process, and builds data, model and loop. Writes nothing."""
    import torch

    from dyt import kernels
    from dyt.data.order import Order
    from dyt.training import cpu
    from dyt.training.distributed import join
    from dyt.training.loop import Trainer
    from dyt.training.probe import Probe
    from dyt.training.schedule import Schedule

    config, trainer = plan.config, plan.config["trainer"]
    world = join(trainer["device"])
    if trainer["threads"]:
        torch.set_num_threads(trainer["threads"])
    cpu.prepare()
    if config["deterministic"]:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config["deterministic"])
    kernels.force(trainer["kernel"])
    data, model, norms, task = assemble(config, world, config["seed"], known_by_weights(plan))
    batch, pieces = config["data"]["batch_size"], trainer["accumulate"]
    order = Order(data.samples, batch, config["seed"], pieces, world.rank, world.size)
    schedule = Schedule.of(trainer, order.steps_per_epoch)
    probe = Probe(model, norms.made, task, data, world) if trainer["probe_every"] and world.leads else None
    loop = Trainer(config, model, task, data, order, schedule, world, probe)
    if config.get("convert"):
        loop.conversion = partial(_convert, plan, loop)
    return Run(plan, world, data, model, norms, task, order, schedule, probe, loop)


def _convert(plan: Plan, loop, weights: dict, named: str) -> dict:
    """Gives the loop's model the weights of `plan.base`, its norms converted; returns a row of before and after."""
    import itertools

    import torch

    from dyt.conversion.calibrate import BATCHES, Swap
    from dyt.rundir import checkpoint
    from dyt.tasks import Place
    from dyt.training.loop import evaluate
    from models import build_model

    old, _ = build_model(plan.base.config["model"], plan.base.config["norm"], loop.data.spec)
    checkpoint.load_weights(old.to(loop.world.device), weights, named)
    measured = (loop.task, loop.data, "val", loop.world, loop.autocast, loop.trainer["eval_batches"])
    before = evaluate(old, *measured)
    swap = Swap.of(old, loop.model)
    if plan.config["convert"] == "calibrated":
        some = itertools.islice(loop.data.train_batches(loop.order, 0, BATCHES), BATCHES)
        prepared = [loop.task.prepare(*loop.world.moved(b), Place(("val",), i)) for i, b in enumerate(some)]
        swap.calibrate(prepared, forward=lambda model, batch: loop.task.measure(model, *batch))
    else:
        if plan.config["convert"] == "naive":
            swap.carry_over()
        swap.put(swap.order)
    with torch.no_grad():
        loop.model.load_state_dict(old.state_dict())
    after = evaluate(loop.model, *measured)
    return {**after, **{f"before/{key.split('/')[1]}": value for key, value in before.items()}}


def take_directory(run: Run, held: contextlib.ExitStack) -> dict | None:
    """Locks the run's directory until `held` closes; the summary, where the process that held it has just finished.

    Raises:
        ValueError: another process writes there, or nothing can be written there.
    """
    from dyt.rundir.lock import Lock
    from dyt.training.distributed import leave
    from dyt.training.faults import say

    if not run.world.leads:
        return None
    try:
        held.enter_context(Lock(run.plan.dir))
    except OSError as error:
        raise _unwritable(run.plan.config["out_root"], error) from error
    if (done := finished(run.plan)) is not None:
        say(f"already {done['status']}: {run.plan.dir}")
        leave()
        return done
    remove_parts(run.plan.dir)
    return None


def open_directory(run: Run):
    """Writes what a run's directory begins with, opens its files, and returns their `Saver`.

    Raises:
        ValueError: nothing can be written there.
    """
    from dyt.rundir import checkpoint
    from dyt.tracking.metrics import Metrics
    from dyt.tracking.wandb import agents_id, logger_of, new_id
    from dyt.training.probe import alphas
    from dyt.training.saving import Saver

    plan, loop = run.plan, run.loop
    how = {"patience": plan.config["trainer"]["save_patience"], "keep": plan.config["trainer"]["keep"]}
    if not run.world.leads:
        return Saver(run.checkpoints, **how)
    about = read_json(plan.dir / "run.json") or {}
    about |= {"config_hash": plan.hash, "data_sha256": plan.data_sha256, "init_sha256": plan.init_sha256}
    path = plan.config["data"]["path"]
    about |= {"name": plan.dir.name, "data_path": path and str(Path(path).expanduser().absolute())}
    about |= {"classes": list(run.data.spec.names)} if run.data.spec.names else {}
    about["wandb_id"] = agents_id() or about.get("wandb_id") or new_id(plan.hash)
    try:
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        write_json(plan.dir / "run.json", about)
        write_text(plan.dir / "config.yaml", yaml.safe_dump(plan.config, sort_keys=False))
        if hasattr(run.data, "tokenizer"):
            write_json(plan.dir / "tokenizer.json", run.data.tokenizer.to_json())
        for manifest in manifests(run.checkpoints, "best"):  # of steps that come anew
            if (read_json(manifest) or {}).get("step", 0) > loop.step:
                checkpoint.remove(manifest)
        metrics = Metrics(plan.dir / "metrics.jsonl", loop.step)
    except OSError as error:
        raise _unwritable(plan.config["out_root"], error) from error
    logger = logger_of(plan.config, plan.dir, about, metrics.rows, loop.step, partial(alphas, run.model))
    (plan.dir / "summary.json").unlink(missing_ok=True)  # all that could fail is done: the run is under way
    return Saver(run.checkpoints, metrics, logger, **how)


def train(run: Run, saver) -> tuple[str, str | None]:
    """Status and, where it did not simply finish, why in words. What goes wrong ends here, not in the caller."""
    from dyt.rundir.patience import Unwritable
    from dyt.training.faults import explain, say, write_failure
    from dyt.training.loop import Diverged
    from dyt.training.probe import Probe

    try:
        return run.loop.fit(saver), None
    except Diverged as error:
        if run.world.leads:
            seen = run.probe or Probe(run.model, run.norms.made, run.task, run.data, run.world)
            say(f"diverged: {error}. That is a result; the curve and the last checkpoint are kept.")
            try:
                write_failure(run.plan.dir / "failure.json", run.loop, seen, str(error))
            except OSError as full:  # it is a divergence all the same
                say(f"failure.json could not be written ({full.strerror})", file=sys.stderr)
        return "diverged", str(error)
    except Unwritable as error:
        say(f"failed: {error}", file=sys.stderr)
        return "failed", str(error)
    except KeyboardInterrupt:
        return "interrupted", "stopped at once by a second signal"
    except Exception as error:
        why = explain(error, run.plan.config)
        if why is None or os.environ.get("DYT_TRACEBACK"):
            traceback.print_exc()
        why = why or f"{type(error).__name__}: {error}"
        say(f"failed in step {run.loop.step + 1}: {why}", file=sys.stderr)
        return "failed", why


def conclude(run: Run, saver, status: str, why: str | None) -> dict:
    """Writes summary.json, closes the files, ends W&B, leaves the other processes; returns the summary."""
    from dyt.tracking.wandb import short_summary
    from dyt.training.distributed import leave
    from dyt.training.faults import say

    summary = summary_of(run, status, why)
    if run.world.leads:
        summary["wandb_url"] = saver.logger.url
        saver.metrics.close()
        if lost := saver.metrics.unwritten:
            say(f"{len(lost)} rows that metrics.jsonl could not take:", file=sys.stderr)
            say("".join(lost).rstrip("\n"), file=sys.stderr)
        try:
            write_json(run.plan.dir / "summary.json", summary)
        except OSError as error:
            say(f"summary.json could not be written ({error.strerror}): {json.dumps(summary)}", file=sys.stderr)
        saver.logger.finish(short_summary(summary), failed=status == "failed", **_for_logger(run, saver, status))
    leave()
    if status == "interrupted" and run.world.leads:
        step, total = run.loop.step, run.schedule.total
        say(f"interrupted at step {step} of {total}; the same command goes on from the last checkpoint")
    return summary


def summary_of(run: Run, status: str, why: str | None) -> dict:
    """What summary.json holds."""
    import torch

    from dyt.rundir.provenance import peak_memory_mib, provenance

    config, loop, data = run.plan.config, run.loop, run.data
    return {
        "status": status,
        "why": why,
        "step": loop.step,
        "max_steps": run.schedule.total,
        "final": loop.final,
        "best": {k: {"value": v, "step": s} for k, (v, s) in loop.best.items()},
        "config_hash": run.plan.hash,
        "model": config["model"]["name"],
        "norm": config["norm"]["name"],
        "data": config["data"]["name"],
        "seed": config["seed"],
        "parameters": run.parameters,
        "norms": dict(run.norms.count),
        data.unit: loop.step * run.order.batch * data.unit_per_sample,
        "wall_s": round(loop.elapsed, 2),
        "peak_memory_mib": round(peak_memory_mib(), 1),
        "data_sha256": run.plan.data_sha256,
        "skipped": loop.skipped,
        "processes": run.world.size,
        "provenance": provenance(run.world.device, torch.get_num_threads()),
        "wandb_url": None,
    }


def _for_logger(run: Run, saver, status: str) -> dict:
    """What W&B gets beside the summary: a language model's text, a task's picture, the best weights where asked for."""
    from dyt.data.text import continued

    more = {}
    if status == "finished" and run.plan.config["model"]["task"] == "text" and saver.logger.shows:
        with contextlib.suppress(ValueError, RuntimeError):  # a text that knows no line end; no memory
            about = (run.loop.shown(), run.data.tokenizer, "\n", 200, 0, run.world.device)
            more["sample"] = continued(*about, temperature=0.8)
    if status == "finished" and (picture := run.plan.dir / "samples.png").is_file():
        more["picture"] = picture
    if run.plan.config["logger"]["artifacts"] and (best := manifests(run.checkpoints, "best")):
        more["checkpoint"] = best[0].with_suffix(".pt")
    return more


def _unwritable(out_root: str, error: OSError) -> ValueError:
    return ValueError(f"out_root={out_root}: cannot write there ({error.strerror}); set another folder")


def announce(run: Run, start: str) -> None:
    """The lines that a run begins with."""
    import torch

    from dyt.tracking.wandb import where
    from dyt.training.faults import say

    if not run.world.leads:
        return
    config, data, world = run.plan.config, run.data, run.world
    sizes = ", ".join(f"{split} {size:,}" for split, size in data.spec.sizes.items())
    batch = config["data"]["batch_size"]
    shape = f"{batch} x {data.unit_per_sample} tokens" if data.unit == "tokens" else f"{batch} images"
    pieces = f" in {config['trainer']['accumulate']} pieces" if config["trainer"]["accumulate"] > 1 else ""
    at = f" at {config['data']['path']}" if config["data"]["path"] else ""
    place = str(world.device) + (f" x {world.size}" if world.size > 1 else "")
    threads = f", {torch.get_num_threads()} threads" if world.device.type == "cpu" else ""
    total, epochs = run.schedule.total, run.schedule.total / max(1, data.samples // batch)
    warmup = config["optim"]["warmup_steps"]
    short = f"; shorter than the warm-up of {warmup} steps" if total < warmup else ""
    lines = (
        f"model  {config['model']['name']}, {run.parameters:,} parameters; norms: {run.norms.describe()}",
        f"data   {config['data']['name']}{at} ({data.unit}: {sizes}; sha256 {run.plan.data_sha256[:12]})",
        f"device {place}{threads}, {config['trainer']['precision']}",
        f"batch  {shape}{pieces}; {total} steps, {epochs:.3g} epochs{short}; {start}",
        f"run    {run.plan.dir}",
        f"logger {where(config['logger'])}",
    )
    say("\n".join(lines))
