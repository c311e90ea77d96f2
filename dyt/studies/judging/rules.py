"""The rules of comparison that hold for a study as a whole, and the findings of all its tests under them.

Both sides of a comparison searched alike (search.py) and chose by the same seeds (cells.py); p-values adjusted by Holm
within the study; differences smaller than what matters are "level"; an inconclusive row says how many seeds would
decide it.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from dyt.studies.judging.cells import Rows
from dyt.studies.judging.curves import Curves
from dyt.studies.judging.verdicts import NEEDED, Finding, below_floor, judge
from dyt.studies.running.rows import read_runs
from dyt.studies.running.study import Study, result_folder
from dyt.studies.statistics import LEVEL, MOST, Pooled, holm, pooled_deviation, seeds_needed

# Which rules a table was made under. Count up with every change that can change a verdict or its numbers.
RULES = 7
ALPHA = 1 - LEVEL
POOL = 20  # baseline runs that a standard deviation between seeds needs


def matters(metric: str) -> float | None:
    """The smallest difference of a metric that matters: 0.005 nats of loss, 0.5 points of accuracy."""
    name = metric.split("/")[-1]
    return 0.005 if name == "loss" or name.startswith("top") else None


def asked(study: Study, scale: str, rows: list[dict]) -> Rows:
    """A study's rows as its tests ask for them."""
    return Rows(
        rows,
        study.factors,
        study.higher_is_better,
        metric=study.metric,
        search=study.search,
        collapse=study.collapse.get(scale),
    )


def deviation(study: Study, scale: str, rows: Rows, results: Path | None = None) -> Pooled | None:
    """The standard deviation between seeds of the baseline's runs, pooled over settings; None for fewer than 20 runs.

    With the rows that the studies of its key ``pool`` have of the same data in the folder `results`.
    """
    runs = {r["config_hash"]: (study.name, r) for r in _baselines(study, rows) if r.get("config_hash")}
    data = {r.get("data_sha256") for r in rows.rows}
    factors = {study.name: study.factors}
    for name in study.pool if results else []:
        other = Study(name)
        factors[name] = other.factors
        theirs = asked(other, scale, read_runs(result_folder(results, name, scale) / "runs.csv", other))
        for row in _baselines(other, theirs):
            if row["data_sha256"] in data:
                runs.setdefault(row["config_hash"], (name, row))
    groups: dict[tuple, list[float]] = {}
    for name, row in runs.values():
        groups.setdefault((name, *(row.get(f) for f in factors[name])), []).append(row["final"])
    found = pooled_deviation(list(groups.values()))
    return found if found and found.runs >= POOL else None


def _baselines(study: Study, rows: Rows) -> list[dict]:
    return [r for r in rows.of(study.baseline) if rows.value(r) is not None] if study.baseline else []


def findings(
    study: Study, scale: str, rows: list[dict], curves: pd.DataFrame | None = None, results: Path | None = None
) -> list[Finding]:
    """One finding per test of the scale, in the file's order."""
    about = asked(study, scale, rows)
    weak = below_floor(about, study.floor, scale)
    shapes, found, runs = Curves(curves), [], []
    for test in study.tests_at(scale):
        own = test["metric"] in ("final", "best")
        runs.append((2 if test.get("against") else 1) * (2 if test.get("beside") else 1) if own else 0)
        metric = study.metric if own else test["metric"]
        found.append(judge(test, about, weak, matters(metric), shapes))
    return settle(found, deviation(study, scale, about, results), runs)


def settle(found: list[Finding], pooled: Pooled | None = None, runs: list[int] | None = None) -> list[Finding]:
    """Holm's correction over all findings that rest on a p-value, and the seeds that would decide what stays open.

    One that is undertuned was asked too: it counts in the family, as the weakest, or a weak search would help others.

    Args:
        pooled: deviation between seeds of the study's metric.
        runs: by finding, of how many runs of that metric one of its values is made: a difference of 2, of two
            differences 4, another metric's 0, which `pooled` does not serve. None: 2 throughout.
    """
    asked_for = [1.0 if f.answer == "undertuned" else f.p for f in found]
    adjusted = holm(asked_for)
    family = sum(p is not None for p in asked_for)
    settled = []
    for i, (finding, p) in enumerate(zip(found, adjusted, strict=True)):
        finding = replace(finding, adjusted=None if finding.answer == "undertuned" else p)
        if p is not None and p >= ALPHA and finding.answer in ("yes", "no", "level"):
            why = f"{finding.why}, but not after Holm's correction over {family} tests"
            finding = replace(finding, answer="inconclusive", why=why)
        if finding.answer == "inconclusive" and finding.distance is not None:
            of = 2 if runs is None else runs[i]
            sd = pooled.sd * of**0.5 if pooled and of else finding.interval.sd
            seeds = seeds_needed(finding.distance, sd, ALPHA / family)
            finding = replace(finding, seeds=max(NEEDED, seeds) if seeds else MOST + 1)
        settled.append(finding)
    return settled
