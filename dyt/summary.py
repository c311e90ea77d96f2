"""What a run leaves at its end: summary.json, a sample to look at, what its logger gets. `run` is a `dyt.run.Run`."""

import contextlib
import json
import sys

from dyt.rundir.files import manifests, write_json, write_text


def conclude(run, saver, status: str, why: str | None) -> dict:
    """Writes summary.json, closes the files, ends W&B, leaves the other processes; returns the summary."""
    from dyt.tracking.wandb import short_summary
    from dyt.training.distributed import leave
    from dyt.training.faults import say

    saver.finish()
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
        more = _sample(run, status) | _picture(run, status) | _checkpoint(run)
        saver.logger.finish(short_summary(summary), failed=status == "failed", **more)
    leave()
    if status == "interrupted" and run.world.leads:
        step, total = run.loop.step, run.schedule.total
        say(f"interrupted at step {step} of {total}; the same command goes on from the last checkpoint")
    return summary


def summary_of(run, status: str, why: str | None) -> dict:
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
        "strategy": run.world.strategy,
        "provenance": provenance(run.world.device, torch.get_num_threads()),
        "wandb_url": None,
    }


def _sample(run, status: str) -> dict:
    """A text that a trained language model writes, kept as samples.txt for the page and handed to the logger."""
    from dyt.data.text import continued

    if status != "finished" or run.plan.config["model"]["task"] != "text" or run.world.sharded:
        return {}  # one process alone cannot run a sharded model
    with contextlib.suppress(ValueError, RuntimeError):  # a text that knows no line end; no memory
        about = (run.loop.shown(), run.data.tokenizer, "\n", 200, 0, run.world.device)
        text = continued(*about, temperature=0.8).strip("\n")
        with contextlib.suppress(OSError):  # a full disk: only the logger has it
            write_text(run.plan.dir / "samples.txt", text + "\n")
        return {"sample": text}
    return {}


def _picture(run, status: str) -> dict:
    """The picture that a task made at the end."""
    picture = run.plan.dir / "samples.png"
    return {"picture": picture} if status == "finished" and picture.is_file() else {}


def _checkpoint(run) -> dict:
    """The best checkpoint, where the logger is to get it."""
    best = manifests(run.checkpoints, "best") if run.plan.config["logger"]["artifacts"] else []
    return {"checkpoint": best[0].with_suffix(".parts" if run.world.sharded else ".pt")} if best else {}
