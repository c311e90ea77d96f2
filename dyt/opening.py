"""What a run begins with: its directory, locked, its files open, and the lines it says. `run` is a `dyt.run.Run`."""

import contextlib
import os
from functools import partial
from pathlib import Path

import yaml

from dyt.resume import finished
from dyt.rundir.files import manifests, read_json, remove_parts, write_json, write_text


def take_directory(run, held: contextlib.ExitStack) -> dict | None:
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


def open_directory(run):
    """Writes what a run's directory begins with, opens its files, and returns their `Saver`.

    Raises:
        ValueError: nothing can be written there.
    """
    from dyt.rundir import checkpoint
    from dyt.tracking.metrics import Metrics
    from dyt.tracking.wandb import logger_of, new_id, trial_of
    from dyt.training.probe import alphas
    from dyt.training.saving import Saver

    plan, loop, known = run.plan, run.loop, {}
    how = {"patience": plan.config["trainer"]["save_patience"], "keep": plan.config["trainer"]["keep"]}
    make, seen = Saver, partial(alphas, run.model)
    if run.world.sharded:
        from dyt.training.saving_together import SaverTogether

        make = partial(SaverTogether, world=run.world, alphas=seen, known=known)
        seen = known.copy
    if not run.world.leads:
        return make(run.checkpoints, **how)
    about = read_json(plan.dir / "run.json") or {}
    about |= {"config_hash": plan.hash, "data_sha256": plan.data_sha256, "init_sha256": plan.init_sha256}
    path = plan.config["data"]["path"]
    about |= {"name": plan.dir.name, "data_path": path and str(Path(path).expanduser().absolute())}
    about["job"] = os.environ.get("SLURM_JOB_ID")  # that made the directory or goes on in it
    named = run.data.spec.names if run.task.knows_classes else ()
    about |= {"classes": list(named)} if named else {}
    about["wandb_id"] = trial_of(plan.config["logger"]) or about.get("wandb_id") or new_id(plan.hash)
    try:
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        checkpoint.remove_unfinished(run.checkpoints)
        write_json(plan.dir / "run.json", about)
        write_text(plan.dir / "config.yaml", yaml.safe_dump(plan.config, sort_keys=False))
        if hasattr(run.data, "tokenizer"):
            write_json(plan.dir / "tokenizer.json", run.data.tokenizer.to_json())
        for manifest in manifests(run.checkpoints, "best"):  # of steps that come anew
            if (read_json(manifest) or {}).get("step", 0) > loop.step:
                checkpoint.remove(manifest)
        done = loop.step - (loop.late is not None)  # whose rows are whole
        metrics = Metrics(plan.dir / "metrics.jsonl", done)
    except OSError as error:
        raise _unwritable(plan.config["out_root"], error) from error
    logger = logger_of(plan.config, plan.dir, about, metrics.rows, done, seen)
    (plan.dir / "summary.json").unlink(missing_ok=True)  # all that could fail is done: the run is under way
    return make(run.checkpoints, metrics, logger, **how)


def _unwritable(out_root: str, error: OSError) -> ValueError:
    return ValueError(f"out_root={out_root}: cannot write there ({error.strerror}); set another folder")


def announce(run, start: str) -> None:
    """The lines that a run begins with."""
    import torch

    from dyt.tracking.wandb import where
    from dyt.training.faults import say

    if not run.world.leads:
        return
    config, data, world = run.plan.config, run.data, run.world
    sizes = ", ".join(f"{split} {size:,}" for split, size in data.spec.sizes.items())
    batch = config["data"]["batch_size"]
    shape = f"{batch} x {data.unit_per_sample} tokens" if data.unit == "tokens" else f"{batch} {data.unit}"
    pieces = f" in {run.order.pieces} pieces" if run.order.pieces > 1 else ""
    counted = getattr(data, "counts", data.unit)
    at = f" at {config['data']['path']}" if config["data"]["path"] else ""
    device = str(world.device) + (f" x {world.size}, {world.strategy}" if world.size > 1 else "")
    device += f", tp {world.tp}" if world.tp > 1 else ""
    threads = f", {torch.get_num_threads()} threads" if world.device.type == "cpu" else ""
    total, epochs = run.schedule.total, run.schedule.total / max(1, data.samples // batch)
    warmup = config["optim"]["warmup_steps"]
    short = f"; shorter than the warm-up of {warmup} steps" if total < warmup else ""
    lines = (
        f"model  {config['model']['name']}, {run.parameters:,} parameters; norms: {run.norms.describe()}",
        f"data   {config['data']['name']}{at} ({counted}: {sizes}; sha256 {run.plan.data_sha256[:12]})",
        f"device {device}{threads}, {config['trainer']['precision']}",
        f"batch  {shape}{pieces}; {total} steps, {epochs:.3g} epochs{short}; {start}",
        f"run    {run.plan.dir}",
        f"logger {where(config['logger'])}",
    )
    say("\n".join(lines))
