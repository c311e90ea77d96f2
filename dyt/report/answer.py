"""What the page answers with: the findings in words and their numbers, and every verdict on one scale.

A verdict's place in the forest plot is its difference in units of the smallest effect that matters, turned so that
positive is better. Rank correlations and counts of runs have scales of their own; what is left has its own unit.
"""

import re
from pathlib import Path

from dyt.config.variants import name, of_cell
from dyt.rundir.files import read_json
from dyt.studies.judging.rules import ALPHA, asked, matters
from dyt.studies.running.rows import read_runs
from dyt.studies.running.study import FOLDER, Study, result_folder
from dyt.studies.showing.overview import present, told
from dyt.studies.showing.table import claims
from dyt.studies.showing.words import DERIVED, UNITS, papers_difference
from dyt.studies.statistics import interval

# What a view opens on: whether DyT matches LayerNorm in a GPT; where rates were searched, what its start changes.
MAIN = ("gpt_norms", "gain_clip")
ON_ONE_SCALE = ("difference", "parity", "curves", "best")
KEPT = ("says", "kind", "papers_say", "we_found", "mean", "low", "high", "seeds", "verdict", "why", "metric", "p_holm")
FILES = ("runs.csv", "curves.parquet", "verdicts.json", "table.md")


def papers(study: Study) -> list[dict]:
    """The papers' numbers of a study's claims in the study's metric: claim, arm, value, and where it stands.

    Accuracies become fractions, as ours are. Claims in another metric than the study's are left out.
    """
    percent = study.percent
    found = []
    for id in dict.fromkeys(id for test in study.tests for id in test["claims"]):
        claim = claims()[id]
        if claim.get("metric") not in (("top-1 %",) if percent else ("validation loss",)):
            continue
        about = {k: claim.get(k) for k in ("paper", "table", "model", "dataset", "metric", "source")}
        for arm, value in claim["values"].items():
            if isinstance(value, int | float):
                found.append(
                    {"claim": id, "arm": arm, "name": name(arm), "value": value / 100 if percent else value, **about}
                )
    return found


def in_units(kind: str, metric: str, verdict: dict, higher: bool) -> list[float] | None:
    """[mean, low, high] of a verdict's difference in smallest effects that matter, positive better; None: no such."""
    small = verdict.get("matters") or matters(metric)
    ends = [verdict.get(k) for k in ("mean", "low", "high")]
    if kind not in ON_ONE_SCALE or not small or any(not isinstance(v, int | float) for v in ends):
        return None
    mean, low, high = ((v if higher else -v) / small for v in ends)
    return [mean, min(low, high), max(low, high)]


def scale_of(verdict: dict, test: dict | None) -> dict | None:
    """Where a verdict stands that is no difference of loss or accuracy.

    Returns:
        ``{"on": "rank" | "own", "ends": [mean, low, high], "claimed": "+" | "-"}``, the side of zero that the claim
        says; ``{"on": "count", "lost": 2, "of": 3}`` for runs that diverged; None: words alone.
    """
    if verdict.get("kind") == "diverges":
        counted = re.match(r"(\d+) of (\d+) runs", verdict.get("why") or "")
        return {"on": "count", "lost": int(counted[1]), "of": int(counted[2])} if counted else None
    ends = [verdict.get(k) for k in ("mean", "low", "high")]
    if any(not isinstance(v, int | float) for v in ends):
        return None
    rank = verdict.get("kind") == "trend" or verdict.get("metric") in DERIVED
    test = test or {}
    claimed = test.get("sign") or ("-" if test.get("better") == "against" else "+")
    return {"on": "rank" if rank else "own", "ends": ends, "claimed": claimed if test.get("kind") != "parity" else ""}


def claim_of(ids: list[str]) -> str:
    """The claim as a heading: the paper and its table; a question of this repository has none."""
    if not ids:
        return "Questions of this repository, in no paper"
    claim = claims()[ids[0]]
    return f"arXiv {claim['paper']}, {claim['table']}" if claim["paper"][:1].isdigit() else claim["paper"]


def asked_for(study: Study, scale: str) -> int:
    """How many runs a study is: of the further seeds of a search, one level each."""
    runs = study.runs(scale)
    late = {(tuple((f, v) for f, v in r.cell.items() if f != study.search), r.seed) for r in runs if r.late}
    return sum(not r.late for r in runs) + len(late)


def about_study(study: Study, scale: str, results: Path) -> dict:
    """A study at a scale in words: its claims with the papers' numbers, ours, and the verdicts."""
    cost = [line for line in study.header().splitlines() if line.startswith("Cost:")]
    folder = result_folder(results, study.name, scale)
    tests = {test["says"]: test for test in study.tests}
    told = []
    for verdict in present(study, scale, results):
        test = tests.get(verdict.get("says"))
        kind, metric = verdict.get("kind", ""), verdict.get("metric") or study.metric
        row = {k: verdict.get(k) for k in KEPT} | {"units": in_units(kind, metric, verdict, study.higher_is_better)}
        if row["units"] is None:
            row["scale_of"] = scale_of(verdict, test)
        row["claim"] = claim_of((test or verdict).get("claims") or [])
        apart = papers_difference(test, claims(), metric) if test and row["units"] else None
        if apart is not None:
            row["paper_units"] = (apart if study.higher_is_better else -apart) / (matters(metric) or 1)
        told.append(row)
    return {
        "name": study.name,
        "scale": scale,
        "title": " ".join(study.title.split()),
        "metric": study.metric,
        "higher": study.higher_is_better,
        "search": study.search,
        "own": study.own,
        "cost": cost[0].removeprefix("Cost:").strip() if cost else "",
        "command": f"python scripts/reproduce.py {study.name} --scale {scale}",
        "tests": told,
        "families": any(v.get("p") is not None for v in present(study, scale, results)),
        "tested": sum(v.get("p") is not None for v in present(study, scale, results)),
        "papers": papers(study),
        "asked": asked_for(study, scale),
        "claims": [test["says"] for test in study.tests_at(scale)],
        "files": [str((folder / f).resolve()) for f in FILES if (folder / f).is_file()],
        "figure": f"figures/{study.name}-{scale}.png" if (folder / "figure.png").is_file() else None,
    }


def by_chance(studies: list[dict]) -> dict:
    """How many verdicts chance alone would give: before Holm's correction, and at most after it."""
    tested = sum(study["tested"] for study in studies)
    families = sum(study["families"] for study in studies)
    return {"tested": tested, "families": families, "before": ALPHA * tested, "after": ALPHA * families}


def findings(results: Path, scales: dict[str, list[str]]) -> list[dict]:
    """README's findings: a sentence each, what more there is to say, and the numbers in it as points of a chart.

    Args:
        scales: by study the scales that the page shows; a finding that rests on others is left out.
    """
    template = FOLDER / "front.md"
    if not template.is_file():
        return []
    found = []
    texts = told(template, results).split("\n\n")
    for raw, text in zip(template.read_text().split("\n\n"), texts, strict=True):
        head = re.match(r"\s*\*\*(.+?)\*\*\s*(.*)", " ".join(text.split()))
        if head is None:
            continue
        # Cells of small scale; what a ladder foretold is no cell, and its arm alone would be a mean over sizes.
        cells = dict.fromkeys(re.findall(r"\{(?!paper)(\w+)\|([^|}]*)(?:\|(?!foretold)[^}]*)?\}", raw))
        if any("small" not in scales.get(study, ()) for study, _ in cells):
            continue
        points = [point for study, levels in cells if (point := _point(study, levels.split(";"), results))]
        points += [point for alone in cells if (point := _beside(alone, list(cells), results))]
        if not cells and "speed" in raw:
            points = _speed(results)
        says = re.sub(r"\s*\[More\]\([^)]*\)\s*", "", head[2]).replace("`", "")
        found.append({"says": head[1].rstrip("."), "more": says, "points": points})
    return found


def _beside(cell: tuple[str, str], cells: list[tuple[str, str]], results: Path) -> dict | None:
    """The baseline's point where a finding has but one cell of a study: a value alone says nothing."""
    study, levels = Study(cell[0]), cell[1].split(";")
    if [name for name, _ in cells].count(cell[0]) > 1:
        return None
    here = next((c for c in study.cells("small") if list(c.values())[: len(levels)] == levels), {})
    base = list((here | {f: v for f, v in study.baseline.items() if f in here}).values())[: len(levels)]
    return None if base == levels else _point(study.name, base, results)


def _point(name_of: str, levels: list[str], results: Path) -> dict | None:
    """One cell at small scale as a chart has it: label, mean, interval, unit; None where it has no value."""
    study = Study(name_of)
    rows = read_runs(result_folder(results, study.name, "small") / "runs.csv", study)
    about = asked(study, "small", rows)
    cell = next((c for c in study.cells("small") if list(c.values())[: len(levels)] == levels), None)
    if cell is None:
        return None
    fine = [v for v in about.values(dict(list(cell.items())[: len(levels)])).values() if v is not None]
    if not fine:
        return None
    varies = {f for f in study.factors if len({r.get(f) for r in rows if r.get(f)}) > 1}
    factors = list(cell)[: len(levels)]
    norm = dict(zip(factors, levels, strict=True)).get("norm", "")
    label = ", ".join(word for word in of_cell(dict(zip(factors, levels, strict=True)), norm, varies) if word)
    made = interval(fine)
    return {
        "study": f"{study.name}/small",
        "label": label,
        "unit": "accuracy" if study.percent else UNITS.get(study.metric, "nats"),
        "value": made.mean,
        "low": made.mean if made.low is None else made.low,
        "high": made.mean if made.high is None else made.high,
    }


def _speed(results: Path) -> list[dict]:
    """How long a training step takes with each norm, as a share of LayerNorm's, of the largest model measured."""
    rows = (read_json(results / "efficiency" / "step-cpu.json") or {}).get("rows") or []
    last = rows[-1]["model"] if rows else None
    return [
        {"study": "", "label": f"{name(row['norm'])}, {last}", "unit": "time of a step, LayerNorm = 1"}
        | {"value": row["of layernorm"]["median"]}
        | {k: row["of layernorm"][k] for k in ("low", "high")}
        for row in rows
        if row["model"] == last and row["norm"] in ("layernorm", "rmsnorm", "dyt", "derf", "none")
    ]
