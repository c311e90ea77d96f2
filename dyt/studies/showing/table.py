"""table.md and verdicts.json of a study, from its rows alone."""

import math
import re
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from dyt.config import compose
from dyt.studies.judging import ladder
from dyt.studies.judging.cells import Rows
from dyt.studies.judging.curves import Curves, steps_to_target
from dyt.studies.judging.rules import POOL, RULES, asked, deviation, findings, matters
from dyt.studies.judging.search import searched
from dyt.studies.running.study import Study, result_folder
from dyt.studies.showing import words
from dyt.studies.statistics import MOST, Interval, interval, paired

CLAIMS_FILE = Path(__file__).resolve().parents[3] / "results" / "paper" / "claims.yaml"


@cache
def claims() -> dict[str, dict]:
    """The papers' numbers by id."""
    return {claim["id"]: claim for claim in yaml.safe_load(CLAIMS_FILE.read_text())["claims"]}


def the_paper(ids: list[str]) -> str:
    """The papers' numbers of some claims, in one line each."""
    parts = []
    for id in ids:
        claim = claims()[id]
        values = ", ".join(
            f"{k} {v:g}" if isinstance(v, int | float) else f"{k} {v}" for k, v in claim["values"].items()
        )
        parts.append(f"{claim['model']}: {values}")
    return "; ".join(parts)


def verdicts(
    study: Study, scale: str, rows: list[dict], curves: pd.DataFrame | None = None, results: Path | None = None
) -> list[dict]:
    """One dict per test of the scale, in the file's order."""
    found, about = [], asked(study, scale, rows)
    for test, finding in zip(study.tests_at(scale), findings(study, scale, rows, curves, results), strict=True):
        spread = finding.interval
        metric = study.metric if test["metric"] in ("final", "best") else test["metric"]
        found.append(
            {
                "study": study.name,
                "scale": scale,
                "says": test["says"],
                "kind": test["kind"],
                "claims": test["claims"],
                "paper": the_paper(test["claims"]) if test["claims"] else None,
                "ours": ours(test, finding),
                "papers_say": words.the_papers(test, claims()),
                "we_found": words.ours(test, finding, about, study),
                "metric": metric,
                "mean": _rounded(spread.mean) if spread else None,
                "low": _rounded(spread.low) if spread else None,
                "high": _rounded(spread.high) if spread else None,
                "seeds": finding.n,
                "verdict": finding.verdict(scale),
                "why": finding.why,
                "p": _rounded(finding.p, 2),
                "p_holm": _rounded(finding.adjusted, 2),
                "matters": matters(metric),
                "searched": finding.searched,
                "steps": str(finding.steps) if finding.steps else None,
                "seeds_needed": finding.seeds,
                "rules": RULES,
            }
        )
    return found


def made_under(name: str, text: str) -> int:
    """The version of the rules that a table.md or verdicts.json was made under; the first version did not say."""
    found = re.search(
        r'"rules": (\d+)' if name == "verdicts.json" else r"^Rules of comparison (\d+):", text, re.MULTILINE
    )
    return int(found[1]) if found else RULES if text == "[]\n" else 1


def _rounded(value: float | None, digits: int = 5) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def ours(test: dict, finding) -> str:
    """Our number in words: what it is, its interval, the seeds."""
    if finding.interval is None or finding.interval.mean is None:
        return f"{finding.why}, n = {finding.n}"
    what = {"trend": "rank correlation", "curves": "largest gap"}.get(test["kind"], "difference")
    if test["kind"] in ("difference", "parity") and not test["against"]:
        what = test["metric"]
    extra = "" if "inside" in finding.why or "outside" in finding.why else f"; {finding.why}"
    return f"{what} {finding.interval}, n = {finding.n}{extra}"


def number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def spread(found: Interval, digits: int = 4) -> str:
    """``mean +- half`` of the 95% interval."""
    if found.mean is None:
        return "-"
    half = "" if found.low is None else f" ± {(found.high - found.low) / 2:.{digits}f}"
    return f"{found.mean:.{digits}f}{half}"


def folders(rows: list[dict]) -> str:
    """`` --data NAME=<folder>`` for each data set of the rows that is neither embedded, made, nor installed."""
    named = {n for row in rows for n in re.findall(r"(?:^| )data=(\w+)", row["overrides"])}
    return "".join(f" --data {n}=<folder>" for n in sorted(named) if compose.option_source(n) == "files")


def table(
    study: Study,
    scale: str,
    rows: list[dict],
    found: list[dict],
    curves: pd.DataFrame | None = None,
    results: Path | None = None,
) -> str:
    """The study's page: verdicts, then every cell with its intervals and paired difference. Ends with what was run."""
    about = asked(study, scale, rows)
    shapes = Curves(curves)
    lines = [f"# {study.name}, {scale} scale", "", study.title, ""]
    lines += [f"    python scripts/reproduce.py {study.name} --scale {scale}{folders(rows)}", ""]
    heads = ["verdict", "claim", "the papers", "ours, 95% interval", "p, Holm", "steps to the baseline's end", "search"]
    lines += ["| " + " | ".join([*heads, "kind"]) + " |", "| " + " | ".join(["---"] * 8) + " |"]
    for v in found:
        cells = [f"**{v['verdict']}**", v["says"], v["papers_say"] or "no number in the papers"]
        cells.append(v["we_found"] + _more_seeds(v))
        cells += ["-" if v["p_holm"] is None else f"{v['p_holm']:.2g}", v["steps"] or "-", v["searched"], v["kind"]]
        lines.append("| " + " | ".join(cells) + " |")
    factors = [f for f in study.factors if any(r.get(f) for r in rows)]
    derived = [d for d in study.derived if any(r.get(d) is not None for r in rows)]
    heads = [
        *factors,
        "seeds",
        f"{study.metric}, final",
        "best",
        "difference, paired",
        "steps to the baseline's end",
        *derived,
        "diverged",
        "minutes a run",
    ]
    rule = ["---"] * len(factors) + ["---:"] * (len(heads) - len(factors))
    lines += ["", "| " + " | ".join(heads) + " |", "| " + " | ".join(rule) + " |"]
    for cell in _cells(rows, factors):
        own = about.of(cell)
        finals = {r["seed"]: about.value(r) for r in own}
        bests = [v for v in (about.value(r, "best") for r in own) if v is not None]
        base = {**cell, **{f: v for f, v in study.baseline.items() if f in factors}}
        pair = paired(finals, {r["seed"]: about.value(r) for r in about.of(base)}) if base != cell else None
        steps = steps_to_target(*(shapes.of(about, about.of(c), study.metric) for c in (cell, base)), about.higher)
        gone = sum(v is None for v in finals.values())
        cells = [cell.get(f) or "" for f in factors]
        cells += [str(len(finals)), spread(interval([v for v in finals.values() if v is not None]))]
        cells += [spread(interval(bests)), _pair(pair), "-" if pair is None else str(steps)]
        for name in derived:
            cells.append(spread(interval([r[name] for r in own if r.get(name) is not None]), 3))
        minutes = [r["wall_s"] / 60 for r in own if r.get("wall_s")]
        cells += [
            f"{gone} of {len(own)}" if gone else "0",
            f"{sorted(minutes)[len(minutes) // 2]:.1f}" if minutes else "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += _search(study, rows, about)
    if study.ladder and (told := ladder.read(study, scale, result_folder(results, study.name, scale), about)):
        lines += ladder.outcome(study, about, told)
    lines += ["", *_notes(study, scale, rows, about, results)]
    return "\n".join(lines) + "\n"


def _pair(pair) -> str:
    if pair is None:
        return "baseline"
    words = "" if pair.difference.mean is None else spread(pair.difference)
    for count, name in ((pair.lost, "lost by divergence"), (pair.won, "won by divergence"), (pair.void, "void")):
        if count:
            words += f"{'; ' if words else ''}{count} {name}"
    return words or "-"


def _cells(rows: list[dict], factors: list[str]) -> list[dict]:
    seen = {}
    for row in rows:
        if row["status"] in ("finished", "diverged"):
            cell = {f: row.get(f) or "" for f in factors}
            seen[tuple(cell.values())] = cell
    return [{f: v for f, v in cell.items() if v} for cell in seen.values()]


def _more_seeds(verdict: dict) -> str:
    needed = verdict["seeds_needed"]
    if needed is None:
        return ""
    return f"; {f'more than {MOST:,}' if needed > MOST else needed} seeds would decide it"


def _search(study: Study, rows: list[dict], about: Rows) -> list[str]:
    """What each arm could choose from, and what it chose."""
    if not study.search:
        return []
    arms = _cells(rows, [f for f in study.factors if f != study.search])
    found = [(arm, searched(about, {" ".join(arm.values()): arm})) for arm in arms]
    found = [s for arm, (s,) in found if s.levels != ("",)]
    if not found:
        return []
    lines = ["", f"| arm | {study.search} searched | seeds each | chosen |", "| --- | --- | ---: | --- |"]
    for s in found:
        edge = f", the {s.edge}" if s.edge else " (not searched)" if len(s.levels) == 1 else ""
        lines.append(f"| {s.name} | {', '.join(s.levels)} | {s.seeds} | {s.chosen}{edge} |")
    return lines


def _notes(study: Study, scale: str, rows: list[dict], about: Rows, results: Path | None) -> list[str]:
    done = [r for r in rows if r["status"] in ("finished", "diverged")]
    left = len(rows) - len(done)
    hardware = sorted({f"{r['hardware']}, {r['threads']} thread(s) a run, torch {r['torch']}" for r in done})
    notes = [
        f"{len(done)} runs{f', {left} failed or cut off' if left else ''}; mean ± half the 95% interval (Student's t) "
        "over seeds; differences paired by seed against "
        + (" ".join(study.baseline.values()) or "nothing")
        + ", other factors equal.",
        f"Rules of comparison {RULES}: intervals are 95% and not adjusted; a verdict needs p below 0.05 after Holm's "
        "correction over this page's tests. Where every pair diverged that decides, without a p. Steps to the "
        "baseline's end: how many more "
        "or fewer an arm needs to the baseline's final value, read from the curves of these runs: a schedule that ends "
        "there would need another number.",
    ]
    if (level := study.collapse.get(scale)) is not None:
        notes.append(
            f"*Diverged* are runs whose {study.metric} is not finite, or ends no better than chance ({level:g})."
        )
    if (least := matters(study.metric)) is not None:
        unit = "0.5 points" if study.percent else f"{least:g} nats"
        notes.append(f"The smallest difference of {study.metric} that matters is {unit}; less is level.")
    if study.search:
        notes.append(
            f"Verdicts take, for every arm alike, the best {study.search} by mean final value. The seeds that chose it "
            "are compared too, which flatters an arm, the more the fewer seeds chose and the more its own vary."
        )
    else:
        notes.append(f"Not searched: {study.unsearched}. A verdict holds for these settings.")
    if study.baseline:
        pooled = deviation(study, scale, about, results)
        others = f", those of {', '.join(study.pool)} on the same data among them" if study.pool else ""
        notes.append(
            f"Standard deviation of {study.metric} between seeds: {pooled.sd:.4f}, pooled over {pooled.runs} runs of "
            f"the baseline{others}; the seeds that would decide a row follow from it, at a power of 80%."
            if pooled
            else "The seeds that would decide a row follow, at a power of 80%, from the row's own deviation, which few "
            f"seeds know badly: there are fewer than {POOL} runs of the baseline to pool."
        )
    about_scale = study.scales[scale].get("about")
    notes += [about_scale] if about_scale else []
    return ["\n\n".join([*notes, f"Hardware: {'; '.join(hardware)}."])]
