"""runs.csv and curves.parquet: what came out of a study's runs, whole or not there.

A row is made from a run's own summary.json and metrics.jsonl, so a damaged runs.csv is rebuilt from the runs. A
committed row counts as the run itself wherever its config hash is asked for, in this study or another.
"""

import csv
import io
import logging
import math
from pathlib import Path

import pandas as pd

from dyt.resume import RESULTS
from dyt.rundir.files import read_json, replace_file, write_text
from dyt.studies.running.derived import DERIVED
from dyt.studies.running.study import Run, Study, names
from dyt.tracking.metrics import read_metrics

log = logging.getLogger(__name__)
NUMBERS = "seed step max_steps best_step parameters samples threads".split()
DECIMALS = "final best train_loss wall_s peak_memory_mib".split()
COLUMNS = (
    "status seed step max_steps final best best_step train_loss parameters samples wall_s peak_memory_mib why "
    "config_hash data_sha256 run hardware threads torch git_commit git_dirty overrides"
).split()
TIMING = ("wall_s", "peak_memory_mib")  # differ from machine to machine and day to day
CURVES = ["run", "seed", "norm", "step", "metric", "value"]
CURVE_BYTES = 1 << 20


def overrides(run: Run) -> str:
    """What to type after ``python train.py`` for this run."""
    return " ".join([*run.words, f"seed={run.seed}"])


def row_of(run: Run, study: Study, hash: str, folder: Path) -> dict | None:
    """The row of a run from its directory, or None where it has no summary."""
    summary = read_json(folder / "summary.json")
    if summary is None or summary.get("config_hash") != hash:
        return None
    best = summary["best"].get(study.metric) or {}
    about = summary["provenance"]
    row = {
        **run.cell,
        "status": summary["status"],
        "seed": run.seed,
        "step": summary["step"],
        "max_steps": summary["max_steps"],
        "final": summary["final"].get(study.metric),
        "best": best.get("value"),
        "best_step": best.get("step"),
        "train_loss": summary["final"].get("train/loss"),
        "parameters": summary["parameters"],
        "samples": summary.get("tokens", summary.get("images", summary.get("recordings"))),
        "wall_s": summary["wall_s"],
        "peak_memory_mib": summary["peak_memory_mib"],
        "why": summary["why"],
        "config_hash": hash,
        "data_sha256": summary["data_sha256"],
        "run": f"{folder.parent.name}/{folder.name}",  # below out_root
        "hardware": about["hardware"],
        "threads": about["threads"],
        "torch": about["versions"]["torch"],
        "git_commit": about["git_commit"],
        "git_dirty": about["git_dirty"],
        "overrides": overrides(run),
    }
    if study.derived:
        metrics = read_metrics(folder / "metrics.jsonl")
        row |= {name: DERIVED[name](metrics) for name in study.derived}
    return row


def write_runs(path: Path, rows: list[dict], study: Study) -> None:
    """Writes runs.csv, numbers to their last digit; missing is empty."""
    columns = [*study.factors, *COLUMNS, *study.derived]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({c: "" if row.get(c) is None else row[c] for c in columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, stream.getvalue())


def read_runs(path: Path, study: Study | None = None) -> list[dict]:
    """The whole rows of a runs.csv; a torn or broken line is left out with a warning.

    Raises:
        ValueError: it was written by another version of the study: its columns differ.
    """
    if not path.is_file():
        return []
    with open(path, newline="", errors="replace") as stream:
        reader = csv.DictReader(stream)
        found, columns = list(reader), list(reader.fieldnames or [])
    if study is not None and (other := other_columns(columns, study)):
        raise ValueError(
            f"{path} was written by another version of {study.name}: {other}; move {path.parent} aside and run again"
        )
    rows, broken = [], 0
    derived = study.derived if study else []
    for raw in found:
        try:
            if None in raw or None in raw.values() or len(raw["config_hash"]) != 10:
                raise ValueError("torn")
            row = {**dict.fromkeys(study.factors if study else (), ""), **raw}
            for key in NUMBERS:
                row[key] = int(raw[key]) if raw[key] else None
            for key in [*DECIMALS, *derived]:
                row[key] = float(raw[key]) if raw[key] else None
            rows.append(row)
        except (ValueError, KeyError):
            broken += 1
    if broken:
        log.warning("%s: %d broken lines; those runs are taken from their own summaries or run again", path, broken)
    return rows


def other_columns(columns: list[str], study: Study) -> str | None:
    """In which columns a table differs from a study's runs.csv, in words; None where it does not."""
    want = [*study.factors, *COLUMNS, *study.derived]
    gone, missing = [c for c in columns if c not in want], [c for c in want if c not in columns]
    if not columns or not (gone or set(missing) - set(study.factors)):  # rows may leave out a factor that came later
        return None
    return f"columns that the study has not: {', '.join(gone) or 'none'}; missing: {', '.join(missing) or 'none'}"


def committed(results: Path) -> dict[str, tuple[dict, Path]]:
    """Finished and diverged rows of every study's runs.csv by config hash, with the folder that has their curves."""
    known: dict[str, tuple[dict, Path]] = {}
    for path in sorted(results.glob("*/*/runs.csv")):
        for row in read_runs(path):
            if row.get("status") in RESULTS:
                known.setdefault(row["config_hash"], (row, path.parent))
    return known


def adopt(row: dict, folder: Path, run: Run, study: Study) -> dict | None:
    """A row another study wrote, as a row of this one; None where it lacks what this study reads."""
    if folder.parent.name == study.name:
        return {**row, **{d: float(row[d]) if row[d] else None for d in study.derived}, **run.cell}
    if study.derived or folder.parent.name not in names() or Study(folder.parent.name).metric != study.metric:
        return None
    return {**{k: v for k, v in row.items() if k in COLUMNS}, **run.cell}


# -- curves ------------------------------------------------------------------------------------------------------------


def thin(points: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most about `most` points: first, last, and each bucket's lowest and highest, so that spikes survive."""
    if len(points) <= most:
        return points
    buckets = max(1, (most - 2) // 2)
    inner = points[1:-1]
    kept = {0: points[0], len(points) - 1: points[-1]}
    for b in range(buckets):
        part = range(len(inner) * b // buckets, len(inner) * (b + 1) // buckets)
        if part:
            low, high = min(part, key=lambda i: inner[i][1]), max(part, key=lambda i: inner[i][1])
            kept[low + 1], kept[high + 1] = inner[low], inner[high]
    return [kept[i] for i in sorted(kept)]


def curve_of(folder: Path, hash: str, seed: int, norm: str, most: int = 80) -> list[dict]:
    """The tidy curve rows of a run directory: every metric with a ``/``, and grad_norm."""
    series: dict[str, list] = {}
    for row in read_metrics(folder / "metrics.jsonl"):
        for key, value in row.items():
            if ("/" in key or key == "grad_norm") and isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(key, []).append((row["step"], float(value)))
    return [
        {"run": hash, "seed": seed, "norm": norm, "step": step, "metric": metric, "value": value}
        for metric, points in series.items()
        for step, value in thin(points, most if not metric.startswith("probe/") else 12)
    ]


def write_curves(path: Path, curves: pd.DataFrame) -> None:
    """Writes curves.parquet, thinned further until it is under 1 MB; float32 values."""
    curves = curves.astype({"value": "float32", "step": "int32", "seed": "int16"})
    for most in (80, 60, 40, 24, 12, 6):
        kept = curves
        if most < 80:
            groups = curves.groupby(["run", "metric"], sort=False)
            kept = pd.concat([_thinned(group, most) for _, group in groups], ignore_index=True)
        stream = io.BytesIO()
        kept.to_parquet(stream, compression="zstd", index=False)
        if stream.tell() <= CURVE_BYTES:
            break
    replace_file(path, lambda out: out.write(stream.getvalue()))


def _thinned(group: pd.DataFrame, most: int) -> pd.DataFrame:
    points = list(zip(group["step"].tolist(), group["value"].tolist(), strict=True))
    steps = {step for step, _ in thin(points, most)}
    return group[group["step"].isin(steps)]


def read_curves(path: Path) -> pd.DataFrame:
    """A study's curves, empty where there are none."""
    if not path.is_file():
        return pd.DataFrame(columns=CURVES)
    return pd.read_parquet(path)


def refuse_lost(own: Path, rows: list[dict]) -> None:
    """Raises ValueError where `own`, the curves.parquet of a report, is gone, and with it curves of `rows`."""
    lost = sum(row["status"] in RESULTS for row in rows)
    if lost and not own.exists() and own.with_name("table.md").exists():
        raise ValueError(
            f"{own} is missing, and {lost} runs' curves are nowhere else; git checkout -- {own} brings it back"
        )


def collect(own: Path, rows: list[dict], folders: dict[str, tuple[Path, str]], results: Path) -> pd.DataFrame:
    """Curves of `rows`: from their run directories where those are, else from what is committed, in any study.

    `own` is this study's curves.parquet; `folders` gives by config hash the run's directory and its norm's name.
    """
    parts, missing = [], set()
    for row in rows:
        hash = row["config_hash"]
        folder, norm = folders[hash]
        here = (read_json(folder / "run.json") or {}).get("config_hash") == hash
        if here and row["status"] in RESULTS:  # not of a later run that failed, whose row it is not
            here = (read_json(folder / "summary.json") or {}).get("status") in RESULTS
        if here:
            parts.extend(curve_of(folder, hash, row["seed"], norm))
        else:
            missing.add(hash)
    frames = [pd.DataFrame(parts, columns=CURVES)]
    for path in [own, *sorted(results.glob("*/*/curves.parquet"))]:
        if missing:
            found = read_curves(path)
            have = found[found["run"].isin(missing)]
            missing -= set(have["run"])
            frames.append(have)
    lost = [row for row in rows if row["config_hash"] in missing and row["status"] in RESULTS]
    refuse_lost(own, lost)
    if lost:  # rows of another machine, or of runs that were removed before they were reported
        log.warning(
            "%s: %d of %d rows have no curve, here or committed; their steps are not told", own, len(lost), len(rows)
        )
    frames = [f for f in frames if len(f)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=CURVES)
