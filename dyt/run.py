"""One run, from its plan to its summary. Read top to bottom once."""

import contextlib
import json
import logging
import os
import shutil
import sys
import traceback
from functools import partial
from pathlib import Path

import yaml

from dyt.config.identity import Plan, counted, difference
from dyt.rundir.files import manifests, read_json, remove_parts, write_json, write_text

log = logging.getLogger(__name__)
RESULTS = ("finished", "diverged")  # statuses that no further training changes


def finished(plan: Plan) -> dict | None:
    """The summary of a run that needs no more training, or None. Imports nothing heavy.

    Raises:
        ValueError: the directory was made by another config; the line shows the difference.
    """
    if plan.config["resume"] == "fresh" or not plan.dir.exists():
        return None
    about = read_json(plan.dir / "run.json")
    if about is not None and (plan.dir / "config.yaml").is_file():
        theirs = counted(_config_of(plan.dir), about.get("data_sha256", ""), about.get("init_sha256"))
        ours = counted(plan.config, plan.data_sha256, plan.init_sha256)
        if theirs != ours:
            raise ValueError(
                f"{plan.dir} was made by another config ({difference(ours, theirs)}); "
                "set another out_root, or resume=fresh to move that directory aside"
            )
    summary = read_json(plan.dir / "summary.json")
    return summary if summary and summary.get("status") in RESULTS else None


def _config_of(folder: Path) -> dict:
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise ValueError(f"{folder}: its config.yaml is damaged; type resume=fresh to move that directory aside")
    return config


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
    with contextlib.ExitStack() as held:
        return _execute(plan, held)


def _execute(plan: Plan, held: contextlib.ExitStack) -> dict:
    # ---------------------------------------------------------------------------------------------- device, parts
    import torch

    from dyt import kernels
    from dyt.data.order import Order
    from dyt.data.text import continued
    from dyt.rundir import checkpoint
    from dyt.rundir.lock import Lock
    from dyt.rundir.patience import Unwritable
    from dyt.rundir.provenance import peak_memory_mib, provenance
    from dyt.tracking.metrics import Metrics
    from dyt.tracking.wandb import agents_id, logger_of, new_id, short_summary, where
    from dyt.training import cpu
    from dyt.training.distributed import join, leave
    from dyt.training.faults import explain, say, write_failure
    from dyt.training.loop import Diverged, Schedule, Trainer
    from dyt.training.probe import Probe, alphas

    config, trainer = plan.config, plan.config["trainer"]
    world = join(trainer["device"])
    if trainer["threads"]:
        torch.set_num_threads(trainer["threads"])
    cpu.prepare()
    if config["deterministic"]:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config["deterministic"])
    kernels.force(trainer["kernel"])
    data, model, factory, task = assemble(config, world, config["seed"], _known(config))
    order = Order(
        data.samples, config["data"]["batch_size"], config["seed"], trainer["accumulate"], world.rank, world.size
    )
    schedule = Schedule.of(trainer, order.steps_per_epoch)
    probe = Probe(model, factory.made, task, data, world) if trainer["probe_every"] and world.leads else None
    loop = Trainer(config, model, task, data, order, schedule, world, probe)

    # ------------------------------------------------------------- where to start: this directory, init_from, scratch
    folder = plan.dir / "checkpoints"
    start = "from scratch"
    if world.leads:
        try:
            held.enter_context(Lock(plan.dir))
        except OSError as error:
            raise _unwritable(config["out_root"], error) from error
        if (done := finished(plan)) is not None:  # by the process that held the lock until now
            say(f"already {done['status']}: {plan.dir}")
            leave()
            return done
        remove_parts(plan.dir)
    if config["resume"] == "fresh":
        if world.leads:
            _move_aside(plan.dir)
        world.wait()
    elif (found := checkpoint.newest(folder, device=world.device)) is not None:
        loop.load(found[0], str(plan.dir))
        start = f"resumed at step {loop.step}"
    elif manifests(folder, "step"):
        raise ValueError(f"{plan.dir}: no checkpoint there verifies; type resume=fresh to move it aside and start over")
    if config["init_from"] and loop.step == 0:
        start = _init(loop, config, plan, schedule)

    parameters = sum(p.numel() for p in model.parameters())
    if world.leads:
        say(_block(plan, data, factory, parameters, schedule, world, start, where(config["logger"])))
    # ------------------------------------------------------------------------------------- the directory and its files
    metrics = logger = None
    about = read_json(plan.dir / "run.json") or {}
    if world.leads:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(config["out_root"], error) from error
        about |= {"config_hash": plan.hash, "data_sha256": plan.data_sha256, "init_sha256": plan.init_sha256}
        path = config["data"]["path"]
        about |= {"name": plan.dir.name, "data_path": path and str(Path(path).expanduser().absolute())}
        about |= {"classes": list(data.spec.names)} if data.spec.names else {}
        about["wandb_id"] = agents_id() or about.get("wandb_id") or new_id(plan.hash)
        write_json(plan.dir / "run.json", about)
        write_text(plan.dir / "config.yaml", yaml.safe_dump(config, sort_keys=False))
        if hasattr(data, "tokenizer"):
            write_json(plan.dir / "tokenizer.json", data.tokenizer.to_json())
        for manifest in manifests(folder, "best"):  # of steps that come anew
            if (read_json(manifest) or {}).get("step", 0) > loop.step:
                checkpoint.remove(manifest)
        metrics = Metrics(plan.dir / "metrics.jsonl", loop.step)
        logger = logger_of(config, plan.dir, about, metrics.rows, loop.step, partial(alphas, model))

        (plan.dir / "summary.json").unlink(missing_ok=True)  # all that could fail is done: the run is under way

    # ------------------------------------------------------------------------------------------------------ train
    status, why = "failed", None
    try:
        status = loop.fit(metrics, logger, folder)
    except Diverged as error:
        status, why = "diverged", str(error)
        if world.leads:
            seen = probe or Probe(model, factory.made, task, data, world)
            write_failure(plan.dir / "failure.json", loop, seen, why)
            say(f"diverged: {why}. That is a result; the curve, the last checkpoint and failure.json are kept.")
    except Unwritable as error:
        why = str(error)
        say(f"failed: {why}", file=sys.stderr)
    except KeyboardInterrupt:
        status, why = "interrupted", "stopped at once by a second signal"
    except Exception as error:
        why = explain(error, config)
        if why is None or os.environ.get("DYT_TRACEBACK"):
            traceback.print_exc()
        why = why or f"{type(error).__name__}: {error}"
        say(f"failed in step {loop.step + 1}: {why}", file=sys.stderr)
    finally:
        summary = {
            "status": status,
            "why": why,
            "step": loop.step,
            "max_steps": schedule.total,
            "final": loop.final,
            "best": {k: {"value": v, "step": s} for k, (v, s) in loop.best.items()},
            "config_hash": plan.hash,
            "model": config["model"]["name"],
            "norm": config["norm"]["name"],
            "data": config["data"]["name"],
            "seed": config["seed"],
            "parameters": parameters,
            "norms": dict(factory.count),
            data.unit: loop.step * order.batch * data.unit_per_sample,
            "wall_s": round(loop.elapsed, 2),
            "peak_memory_mib": round(peak_memory_mib(), 1),
            "data_sha256": plan.data_sha256,
            "skipped": loop.skipped,
            "processes": world.size,
            "provenance": provenance(world.device, torch.get_num_threads()),
            "wandb_url": None,
        }
        if world.leads:
            summary["wandb_url"] = logger.url
            metrics.close()
            if metrics.unwritten:
                say(f"{len(metrics.unwritten)} rows that metrics.jsonl could not take:", file=sys.stderr)
                say("".join(metrics.unwritten).rstrip("\n"), file=sys.stderr)
            try:
                write_json(plan.dir / "summary.json", summary)
            except OSError as error:
                say(f"summary.json could not be written ({error.strerror}): {json.dumps(summary)}", file=sys.stderr)
            more = {}
            if status == "finished" and config["model"]["task"] == "text" and logger.shows:
                with contextlib.suppress(ValueError, RuntimeError):  # a text that knows no line end; no memory
                    how = {"temperature": 0.8}
                    more["sample"] = continued(loop.shown(), data.tokenizer, "\n", 200, 0, world.device, **how)
            if config["logger"]["artifacts"] and (best := manifests(folder, "best")):
                more["checkpoint"] = best[0].with_suffix(".pt")
            logger.finish(short_summary(summary), failed=status == "failed", **more)
        leave()
    if status == "interrupted" and world.leads:
        say(f"interrupted at step {loop.step} of {schedule.total}; the same command goes on from the last checkpoint")
    return summary


def _init(loop, config: dict, plan: Plan, schedule) -> str:
    """Takes ``init_from``: the whole state where it is this run, only shorter; else weights alone."""
    from dyt.rundir import checkpoint

    source = Path(config["init_from"]).expanduser()
    about = read_json(source / "run.json") if source.is_dir() else None
    if about is not None and (source / "config.yaml").is_file():
        theirs = counted(_config_of(source), about.get("data_sha256", ""))
        ours = counted(config, plan.data_sha256)
        free = ("trainer.max_steps", "trainer.max_epochs", "trainer.eval_every", "trainer.log_every")
        if {k: v for k, v in theirs.items() if k not in free} == {k: v for k, v in ours.items() if k not in free}:
            found = checkpoint.newest(source / "checkpoints", device=loop.world.device)
            if found is not None and found[0]["step"] >= schedule.total:
                raise ValueError(
                    f"init_from={source} is at step {found[0]['step']} already; set trainer.max_steps above that"
                )
            if found is not None:
                loop.load(found[0], f"init_from={source}")
                # Its rows come along, so that the extended run's curve is whole.
                if loop.world.leads and not (plan.dir / "metrics.jsonl").exists():
                    plan.dir.mkdir(parents=True, exist_ok=True)
                    shutil.copy(source / "metrics.jsonl", plan.dir / "metrics.jsonl")
                    (plan.dir / "checkpoints").mkdir(exist_ok=True)
                    for file in (source / "checkpoints").glob("best-*"):
                        shutil.copy(file, plan.dir / "checkpoints")
                return f"extending {source} from step {loop.step}"
    checkpoint.load_weights(loop.model, checkpoint.read_weights(str(source)), f"init_from={source}")
    if loop.ema:
        loop.ema.set(loop.model)
    return f"weights of {source}"


def _known(config: dict) -> dict | None:
    """What the weights of ``init_from`` know: their letters or classes are then this run's, each under its number.

    Raises:
        ValueError: they know tokens of another kind.
    """
    if not config["init_from"]:
        return None
    from dyt.rundir.meaning import meaning

    known, kind = meaning(Path(config["init_from"]).expanduser()), config["data"].get("tokenizer")
    if config["model"]["task"] == "text" and known["kind"] not in (None, kind):
        raise ValueError(f"init_from={config['init_from']}: its weights know {known['kind']} tokens, and this run has "
                         f"{kind}; type data.tokenizer={known['kind']}")  # fmt: skip
    return known


def _unwritable(out_root: str, error: OSError) -> ValueError:
    return ValueError(f"out_root={out_root}: cannot write there ({error.strerror}); set another folder")


def _move_aside(folder: Path) -> None:
    """Renames a run directory to ``<name>.replaced-N``: starting over loses nothing."""
    if folder.exists():
        number = 1
        while (to := folder.with_name(f"{folder.name}.replaced-{number}")).exists():
            number += 1
        folder.rename(to)
        print(f"resume=fresh: the old run is now {to}")


def _block(plan, data, factory, parameters, schedule, world, start, shown) -> str:
    config = plan.config
    sizes = ", ".join(f"{split} {size:,}" for split, size in data.spec.sizes.items())
    batch = config["data"]["batch_size"]
    shape = f"{batch} x {data.unit_per_sample} tokens" if data.unit == "tokens" else f"{batch} images"
    pieces = f" in {config['trainer']['accumulate']} pieces" if config["trainer"]["accumulate"] > 1 else ""
    at = f" at {config['data']['path']}" if config["data"]["path"] else ""
    place = str(world.device) + (f" x {world.size}" if world.size > 1 else "")
    import torch

    threads = f", {torch.get_num_threads()} threads" if world.device.type == "cpu" else ""
    return "\n".join(
        (
            f"model  {config['model']['name']}, {parameters:,} parameters; norms: {factory.describe()}",
            f"data   {config['data']['name']}{at} ({data.unit}: {sizes}; sha256 {plan.data_sha256[:12]})",
            f"device {place}{threads}, {config['trainer']['precision']}",
            f"batch  {shape}{pieces}; {schedule.total} steps, {order_epochs(schedule, data, batch)} epochs; {start}",
            f"run    {plan.dir}",
            f"logger {shown}",
        )
    )


def order_epochs(schedule, data, batch: int) -> str:
    """How often the training set is seen, e.g. ``1.5``."""
    return f"{schedule.total / max(1, data.samples // batch):.3g}"
