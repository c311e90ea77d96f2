"""What a study costs, before anything runs: parameters and FLOPs on the meta device, hours from rates."""

import functools
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from dyt.resume import RESULTS
from dyt.studies.judging.ladder import held_out
from dyt.studies.running import rows as csv
from dyt.studies.running.study import Study, result_folder

# FLOPs a second that a run of ours reaches, an assumption except for `small` and `medium`: measured here, gpt_nano on
# one of two CPU threads, busy and quiet. paper: one H100 at 40% of its dense bfloat16 peak; float32 takes longer.
RATES = {"smoke": 2e10, "small": 2e10, "medium": 6e10, "gpu": 1e14, "paper": 4e14}
# Parameters as their authors or timm publish them, in millions.
PUBLISHED = {
    "vit_small": 22.05, "vit_base": 86.57, "vit_large": 304.33, "convnext_base": 88.59, "convnext_large": 197.77,
    "resnet50": 25.56, "vgg19": 143.68, "gpt2_124m": 124.4, "llama_7b": 6738.0, "llama_13b": 13016.0,
    "llama_34b": 33744.0, "llama_70b": 68977.0,
}  # fmt: skip


def spec_of(config: dict, about: dict, model: str):
    """What the model must know of its data, from the study's ``spec`` where the data is not at hand."""
    from dyt.data import Spec, open_data

    given = about.get("spec")
    if given is None:
        return open_data(config["data"], config["model"].get("context")).spec
    vocabulary = given.get("vocab_size", 0)
    if isinstance(vocabulary, dict):
        vocabulary = vocabulary[model]
    image, text = (config["data"]["task"] == kind for kind in ("image", "text"))
    return Spec(
        config["data"]["task"],
        "",
        {},
        classes=given.get("classes", 0) if image or config["data"]["task"] == "sequence" else 0,
        channels=given.get("channels", 0) if image else 0,
        vocab_size=vocabulary if text else 0,
    )


@functools.lru_cache(maxsize=256)
def _measured(key: str) -> tuple[int, float]:
    """(parameters, forward FLOPs of one sample) of a model built on the meta device, as its task calls it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from dyt.data import Spec
    from dyt.data.ahead import each
    from dyt.forecast.trace import samples_of
    from dyt.tasks import build_task
    from models import build_model

    config, spec = json.loads(key)
    if spec["task"] == "image":
        config["data"] |= {"mean": [0.5], "std": [0.5]}  # of any number of channels, such as a latent's
    task, model = build_task(config, spec["classes"]), config["model"]
    with torch.device("meta"):
        built, _ = build_model(model, config["norm"], Spec(**spec))
        built.eval()
    prepared = each(samples_of(config, task, Spec(**spec), 1), lambda t: t.to("meta"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        task.measure(built, *prepared)
    return sum(p.numel() for p in built.parameters()), float(counter.get_total_flops())


def cost(config: dict, spec, train_size: int | None) -> dict:
    """Parameters, training FLOPs (three forwards) and samples of one run; FLOPs None where the set is unknown."""
    about = asdict(spec) | {"sha256": "", "sizes": {}, "names": ()}
    parts = {part: config[part] for part in ("model", "norm", "data", "trainer")}
    key = json.dumps([parts, about], sort_keys=True)
    parameters, forward = _measured(key)
    trainer, batch = config["trainer"], config["data"]["batch_size"]
    steps = trainer["max_steps"]
    if steps is None and train_size:
        steps = int(trainer["max_epochs"] * (train_size // batch))
    samples = steps * batch if steps else None
    return {"parameters": parameters, "flops": 3 * forward * samples if samples else None, "samples": samples}


def _arm(study: Study, run) -> tuple:
    return tuple((f, v) for f, v in run.cell.items() if f != study.search)


def shares(study: Study, scale: str, runs: list) -> list[float]:
    """How much of each run there will be: of an arm's levels one alone gets the later seeds, or the held-out size."""
    alike = Counter(_arm(study, cell) for cell in {tuple(run.cell.items()): run for run in runs}.values())
    late = [run.late or held_out(study, scale, run.cell) for run in runs]
    return [1 / alike[_arm(study, run)] if few else 1.0 for run, few in zip(runs, late, strict=True)]


def count(study: Study, scale: str, seeds: int | None = None) -> int:
    """How many runs a study has at a scale, once its search is done."""
    return round(sum(shares(study, scale, study.runs(scale, seeds))))


def dry_run(study: Study, scale: str, seeds: int | None, results: Path, paths: dict[str, str] | None = None) -> str:
    """What --dry-run prints for a study: every cell once, its seeds, parameters, FLOPs, hours and command."""
    about = study.scale(scale)
    runs = study.runs(scale, seeds)
    rows = csv.read_runs(result_folder(results, study.name, scale) / "runs.csv", study)
    done = {r["overrides"]: r for r in rows if r["status"] in RESULTS}
    by_cell: dict[tuple, list] = {}
    for run, weight in zip(runs, shares(study, scale, runs), strict=True):
        by_cell.setdefault(tuple(run.cell.items()), []).append((run, weight))
    lines = [
        f"{study.name} {scale}: {count(study, scale, seeds)} runs of {len(by_cell)} settings",
        "  seeds  parameters     FLOPs/run   hours/run  setting",
    ]
    total = 0.0
    for cell, weighed in by_cell.items():
        cell_runs = [run for run, _ in weighed]
        config = cell_runs[0].config()
        if (path := (paths or {}).get(config["data"]["name"])) is not None:
            config["data"]["path"] = path
        name = config["model"]["name"]
        spec = spec_of(config, about, name)
        train = spec.sizes.get("train") or (1_281_167 if config["data"]["name"] == "imagenet1k" else None)
        found = cost(config, spec, train)
        rows = [done.get(csv.overrides(r)) for r in cell_runs]
        walls = [r["wall_s"] / 3600 for r in rows if r and r["wall_s"]]
        hours = sum(walls) / len(walls) if walls else (found["flops"] or 0) / RATES[scale] / 3600
        total += hours * sum(weight for _, weight in weighed)
        published = f" (published {PUBLISHED[name]:,.1f}M)" if scale == "paper" and name in PUBLISHED else ""
        flops = f"{found['flops']:.2e}" if found["flops"] else "-"
        state = f"; {sum(bool(r) for r in rows)} finished" if any(rows) else ""
        lines.append(
            f"  {len(cell_runs):>5}  {found['parameters'] / 1e6:>9,.2f}M  {flops:>12}  {hours:>10.3g}  "
            f"{' '.join(v for _, v in cell)}{published}{state}"
        )
        if scale == "paper":
            lines.append(f"         python train.py {' '.join(cell_runs[0].words)}")
    rate = "" if total == 0 else f" at {RATES[scale]:.0e} FLOP/s, or as measured where runs are finished"
    lines.append(f"  all: {total:,.3g} device hours{rate}")
    return "\n".join(lines)
