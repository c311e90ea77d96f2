"""table.md and verdicts.json of a study, from its rows alone."""

import math
from functools import cache
from pathlib import Path

import yaml

from dyt.studies.judging.verdicts import Rows, below_floor, judge
from dyt.studies.running.study import Study
from dyt.studies.showing import words
from dyt.studies.statistics import Interval, interval, paired

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


def asked(study: Study, scale: str, rows: list[dict]) -> Rows:
    return Rows(rows, study.factors, study.higher_is_better, search=study.search, collapse=study.collapse.get(scale))


def verdicts(study: Study, scale: str, rows: list[dict]) -> list[dict]:
    """One dict per test of the scale, in the file's order."""
    about = asked(study, scale, rows)
    weak = below_floor(about, study.floor, scale)
    found = []
    for test in study.tests_at(scale):
        finding = judge(test, about, weak)
        spread = finding.interval
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
                "metric": study.metric if test["metric"] in ("final", "best") else test["metric"],
                "mean": _rounded(spread.mean) if spread else None,
                "low": _rounded(spread.low) if spread else None,
                "high": _rounded(spread.high) if spread else None,
                "seeds": finding.n,
                "verdict": finding.verdict(scale),
                "why": finding.why,
            }
        )
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def ours(test: dict, finding) -> str:
    """Our number in words: what it is, its interval, the seeds."""
    if finding.interval is None or finding.interval.mean is None:
        return f"{finding.why}, n = {finding.n}"
    what = {"trend": "rank correlation", "best": "value"}.get(test["kind"], "difference")
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


def table(study: Study, scale: str, rows: list[dict], found: list[dict]) -> str:
    """The study's page: verdicts, then every cell with its intervals and paired difference. Ends with what was run."""
    about = asked(study, scale, rows)
    lines = [f"# {study.name}, {scale} scale", "", study.title, ""]
    lines += [f"    python scripts/reproduce.py {study.name} --scale {scale}", ""]
    lines += ["| verdict | claim | the papers | ours | kind |", "| --- | --- | --- | --- | --- |"]
    for v in found:
        lines.append(
            f"| **{v['verdict']}** | {v['says']} | {v['papers_say'] or 'not in the papers'} | {v['we_found']} "
            f"| {v['kind']} |"
        )
    factors = [f for f in study.factors if any(r.get(f) for r in rows)]
    derived = [d for d in study.derived if any(r.get(d) is not None for r in rows)]
    heads = [
        *factors,
        "seeds",
        f"{study.metric}, final",
        "best",
        "difference, paired",
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
        gone = sum(v is None for v in finals.values())
        cells = [cell.get(f) or "" for f in factors]
        cells += [str(len(finals)), spread(interval([v for v in finals.values() if v is not None]))]
        cells += [spread(interval(bests)), _pair(pair)]
        for name in derived:
            cells.append(spread(interval([r[name] for r in own if r.get(name) is not None]), 3))
        minutes = [r["wall_s"] / 60 for r in own if r.get("wall_s")]
        cells += [
            f"{gone} of {len(own)}" if gone else "0",
            f"{sorted(minutes)[len(minutes) // 2]:.1f}" if minutes else "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_notes(study, scale, rows, about)]
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


def _notes(study: Study, scale: str, rows: list[dict], about: Rows) -> list[str]:
    done = [r for r in rows if r["status"] in ("finished", "diverged")]
    left = len(rows) - len(done)
    hardware = sorted({f"{r['hardware']}, {r['threads']} thread(s) a run, torch {r['torch']}" for r in done})
    notes = [
        f"{len(done)} runs{f', {left} failed or cut off' if left else ''}; mean ± half the 95% interval (Student's t) "
        "over seeds; differences paired by seed against "
        + (" ".join(study.baseline.values()) or "nothing")
        + ", other factors equal."
    ]
    if study.search:
        chosen = [
            f"{' '.join(c.values())}: {about.chosen(c)}"
            for c in _cells(rows, [f for f in study.factors if f != study.search])
        ]
        notes.append(
            f"Verdicts take, for every row alike, the best {study.search} by mean final value ({'; '.join(chosen)})."
        )
    about_scale = study.scales[scale].get("about")
    notes += [about_scale] if about_scale else []
    return [*notes, f"Hardware: {'; '.join(hardware)}."]
