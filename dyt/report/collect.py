"""What the page shows, gathered from results/ and from run directories, as plain data.

A run is known by its config hash: one that a study committed and whose directory is still here appears once, with the
curves of the directory. Curves are thinned so that all together stay below a budget; spikes survive (dyt/studies/rows).
"""

import functools
import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path

import yaml

from dyt.config.identity import flatten
from dyt.report.answer import MAIN, about_study, by_chance, findings
from dyt.report.naming import join_studies, name_own, name_studys
from dyt.rundir.files import finite, read_json
from dyt.rundir.lock import held
from dyt.rundir.meaning import RISING, unit_of
from dyt.studies.judging.rules import asked
from dyt.studies.running.rows import read_curves, read_runs, thin
from dyt.studies.running.study import SCALES, Study, names, result_folder
from dyt.studies.showing.styles import COLOURS
from dyt.tracking.metrics import rows_of_text

POINTS = 700_000  # in all curves together: about 10 MB
SHOWN = ("grad_norm", "lr")  # beside every metric with a slash
MORE_COLOURS = ("#7B4FB5", "#8C6D1F", "#B5367A", "#1B8A8F", "#6B8E23", "#A0522D")  # no norm's own
BEGINS = "window.DYT = "  # data.js, and no other file
SAMPLES = ("samples.txt", "samples.png")  # what a run's model makes: text, pictures, reconstructions


def short(value: float) -> float:
    """Six digits: what a picture and a download need."""
    return float(f"{value:.6g}")


def run_directories(place: Path) -> list[Path]:
    """Run directories: `place` itself, or those below it; none that was moved aside."""
    if (place / "run.json").is_file():
        return [place]
    found = sorted(p.parent for depth in ("*/run.json", "*/*/run.json") for p in place.glob(depth))
    return [p for p in found if ".replaced-" not in p.name]


def of_directory(folder: Path) -> tuple[dict, dict] | None:
    """(run, {metric: [(step, value)]}) of a run directory; None where it is damaged or there is nothing to show."""
    try:
        names = ("metrics.jsonl", "summary.json", "config.yaml", "run.json", *SAMPLES)
        files = [folder / name for name in names]
        found = _of_directory(folder, tuple(f.stat().st_mtime_ns if f.exists() else 0 for f in files))
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None  # somebody's files: whatever is in them, the others are shown
    if found is None:
        return None
    run, series = found
    status = run["status"] or ("running" if held(folder) else "cut off")
    return run | {"status": status, "studies": [], "in": {}}, series


@functools.lru_cache(maxsize=10_000)  # report.py --watch reads again only what changed
def _of_directory(folder: Path, _changed: tuple) -> tuple[dict, dict] | None:
    about, summary = read_json(folder / "run.json") or {}, read_json(folder / "summary.json") or {}
    text = (folder / "metrics.jsonl").read_text(errors="replace")
    rows = rows_of_text(text)
    if not rows:
        return None
    config = yaml.safe_load((folder / "config.yaml").read_text())
    parts = {part: str(config[part]["name"]) for part in ("model", "norm", "data")}
    seed = int(config["seed"])
    series: dict[str, list] = {}
    for row in rows:
        for key, value in row.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if number and ("/" in key or key in (*SHOWN, "time_s")):
                series.setdefault(key, []).append((row["step"], float(value)))
    last, flat = rows[-1], flatten(config)
    unit = next((u for u in ("tokens", "images", "recordings") if u in last), None)
    per_step = next((r[unit] / r["step"] for r in reversed(rows) if unit in r and r["step"]), None) if unit else None
    status = summary.get("status") or ""
    plain = {k: v if isinstance(v, bool | int | str) else str(v) for k, v in flat.items() if v is not None}
    shown = {k: v for k, v in plain.items() if not k.startswith(("logger.", "out_root"))}
    alike = {k: v for k, v in shown.items() if k not in ("seed", "tag", "resume", "data.path", "data.workers")}
    run = {
        "id": str(about.get("config_hash") or folder.name),
        "name": folder.name,
        "key": hashlib.sha256(json.dumps(alike, sort_keys=True).encode()).hexdigest()[:12],
        **parts,
        "seed": seed,
        "status": str(status),
        "chance": False,
        "why": str(summary.get("why") or ""),
        "step": last["step"],
        "max_steps": summary.get("max_steps") or flat.get("trainer.max_steps"),
        "final": {k: points[-1][1] for k, points in series.items() if k.startswith(("val/", "train/"))},
        "best": {k: v.get("value") for k, v in (summary.get("best") or {}).items()},
        "unit": unit,
        "per_step": per_step,
        "wall_s": summary.get("wall_s") or (series.get("time_s") or [(0, None)])[-1][1],
        "parameters": summary.get("parameters"),
        "dir": str(folder),
        "url": str(summary.get("wandb_url") or ""),
        "config": shown,
        "sample": sample_of(folder),
        "picture": str(folder / SAMPLES[1]) if (folder / SAMPLES[1]).is_file() else "",
        "whole": True,
        "broken": sum(bool(line.strip()) for line in text.splitlines()) - len(rows),
        "metric": judged_by(unit, series),
    }
    return finite(run), series


def judged_by(unit: str | None, series: Iterable[str]) -> str:
    """The metric by which a run's task is judged, of those that it has: accuracy of pictures, else the loss."""
    first = "val/top1" if unit == "images" else "val/return"
    return next((m for m in (first, "val/loss", "train/loss") if m in series), "")


def sample_of(folder: Path) -> str:
    """The text that a run's model wrote, as much as a page needs; empty where it wrote none."""
    try:
        return (folder / SAMPLES[0]).read_text(errors="replace")[:1500]
    except OSError:
        return ""


@functools.lru_cache(maxsize=64)
def usual(*words: str) -> tuple[str, str]:
    """What a run of these words is counted in, and the name of its data, where no other word says."""
    from dyt.config import compose

    data = compose.load(list(words))["data"]
    return unit_of(data["task"]), data["name"]


def of_study(study: Study, scale: str, results: Path) -> tuple[list[dict], dict[str, dict]]:
    """Runs and curves of a study's committed rows."""
    folder = result_folder(results, study.name, scale)
    runs, cells = [], []
    rows = read_runs(folder / "runs.csv", study)
    judged = asked(study, scale, rows)
    for row in rows:
        cells.append({f: row[f] for f in study.factors if row.get(f)})
        words = dict(word.partition("=")[::2] for word in (row["overrides"] or "").split())
        named = {f"{k}.name" if k in ("model", "norm", "data") else k: v for k, v in words.items()}
        group = " ".join(cells[-1].values())
        metrics = {study.metric: row["final"], "train/loss": row["train_loss"]}
        steps = row["step"] or 0
        unit, data = usual(*(f"{k}={words[k]}" for k in ("experiment", "model") if k in words))
        runs.append(
            {
                "id": row["config_hash"],
                "name": (row["run"] or "").rsplit("/", 1)[-1] or f"{study.name} {row['config_hash']}",
                "key": f"{study.name}/{scale} {group}",
                "model": words.get("model", ""),
                "norm": words.get("norm", "layernorm"),
                "data": words.get("data", data),
                "seed": row["seed"],
                "status": row["status"],
                # Ended no better than chance, which counts as lost.
                "chance": row["status"] == "finished" and row["final"] is not None and judged.value(row) is None,
                "why": row["why"] or "",
                "step": steps,
                "max_steps": row["max_steps"],
                "final": {k: v for k, v in metrics.items() if v is not None},
                "best": {study.metric: row["best"]} if row["best"] is not None else {},
                "unit": unit,
                "per_step": row["samples"] / steps if row["samples"] and steps else None,
                "wall_s": row["wall_s"],
                "parameters": row["parameters"],
                "dir": None,
                "url": "",
                "config": {**named, "seed": row["seed"]},
                "whole": False,  # the rest of its settings stands in the run's own directory
                "broken": 0,
                "metric": study.metric,
                "studies": [f"{study.name}/{scale}"],
            }
        )
    name_studys(runs, cells, study, f"{study.name}/{scale}")
    curves: dict[str, dict] = {}
    found = read_curves(folder / "curves.parquet")
    for (run, metric), part in found.groupby(["run", "metric"], sort=False):
        points = sorted(zip(part["step"].tolist(), part["value"].tolist(), strict=True))
        curves.setdefault(run, {})[metric] = points
    return runs, curves


def scurves(results: Path) -> list[dict]:
    """Points of trained LayerNorms with the tanh that fits them best, by setting and layer."""
    import pandas as pd
    import torch

    from dyt.training.probe import best_tanh

    found = []
    for file in sorted(results.glob("ln_scurve/*/samples.parquet")):
        for (setting, layer), part in pd.read_parquet(file).groupby(["setting", "layer"], sort=False):
            x, y = (torch.from_numpy(part[c].to_numpy().copy()) for c in ("x", "y"))
            r2, a, b = best_tanh(x, y)
            points = [[short(px), short(py)] for px, py in zip(x.tolist(), y.tolist(), strict=True)]
            fit = {"r2": short(r2), "a": short(a), "b": short(b)}
            found.append({"setting": setting, "layer": layer, "points": points, **fit})
    return found


def colours(norms: list[str]) -> dict[str, str]:
    """The figures' colours: a norm's own everywhere; those that have none take turns in others."""
    known = sorted(COLOURS, key=len, reverse=True)
    own = {n: next((COLOURS[k] for k in known if n.startswith(k)), None) for n in norms}
    others = [n for n in norms if own[n] is None]
    return own | {n: MORE_COLOURS[i % len(MORE_COLOURS)] for i, n in enumerate(others)}


def collect(results: Path, places: list[Path], studies: list[str] | None = None) -> dict:
    """Everything the page shows.

    Args:
        results: the folder of results, for studies.
        places: run directories, or folders of them.
        studies: their names; None: all of ``configs/study/``.
    """
    runs: dict[str, dict] = {}
    series: dict[str, dict] = {}
    told, left_out = [], 0
    for name in names() if studies is None else studies:
        study = Study(name)
        for scale in SCALES[1:]:
            if (result_folder(results, study.name, scale) / "runs.csv").is_file():
                told.append(about_study(study, scale, results))
                found, curves = of_study(study, scale, results)
                for run in found:
                    first = runs.setdefault(run["id"], run)
                    if first is not run:
                        first["studies"] += run["studies"]
                        first["in"] |= run["in"]
                        first["chance"] |= run["chance"]
                for id, metrics in curves.items():
                    series[id] = series.get(id, {}) | metrics
            elif scale in study.scales:
                told.append(about_study(study, scale, results))
    for folder in (f for place in places for f in run_directories(place)):
        if (found := of_directory(folder)) is None:
            left_out += 1
            continue
        run, metrics = found
        before = runs.get(run["id"])
        copied = (read_json(folder / "run.json") or {}).get("name", folder.name) != folder.name
        if before and before["dir"] and copied:  # the original is shown
            continue
        if before:  # the study's words for it stay
            run |= {k: before[k] for k in ("key", "studies", "in", "metric", "chance")}
        runs[run["id"]] = run
        series[run["id"]] = metrics
    join_studies(list(runs.values()), told)
    name_own([run for run in runs.values() if not run["studies"]])
    ran: dict[str, list[str]] = {}
    for study in told:
        study["under_way"] = not study["tests"] and any(
            f"{study['name']}/{study['scale']}" in run["studies"] for run in runs.values()
        )
        if study["tests"]:
            ran.setdefault(study["name"], []).append(study["scale"])
    more = {"left_out": left_out, "findings": findings(results, ran), "chance": by_chance(told)}
    more["main"] = [f"{name}/{scale}" for name in MAIN for scale in reversed(ran.get(name, []))]
    return pack(told, list(runs.values()), series) | more


def pack(studies: list[dict], runs: list[dict], series: dict[str, dict]) -> dict:
    """Thins all curves to the budget and writes numbers short."""
    known = {run["id"] for run in runs}
    total = sum(len(points) for id in known for points in series.get(id, {}).values())
    most = 2000
    while total > POINTS and most > 40:
        most = int(most * 0.8)
        total = sum(min(len(points), most) for id in known for points in series.get(id, {}).values())
    curves: dict[str, dict] = {}
    for id in known:
        for metric, points in series.get(id, {}).items():
            points = thin(points, 24 if metric == "time_s" else most)
            curves.setdefault(id, {})[metric] = [[s for s, _ in points], [short(v) for _, v in points]]
    for run in runs:
        for key in ("final", "best"):
            run[key] = {k: short(v) for k, v in run[key].items() if isinstance(v, int | float) and math.isfinite(v)}
    norms = sorted({run["norm"] for run in runs})
    packed = {"studies": studies, "runs": runs, "curves": curves, "colours": colours(norms), "thinned_to": most}
    return packed | {"rising": RISING}


def as_script(data: dict) -> str:
    """The data as a script: a page opened from disk may read no other file. No text in it can end the script."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return BEGINS + text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029") + ";\n"
